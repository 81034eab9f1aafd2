"""Ratios of finished runs, kept for the next plan."""

import json

import pytest
from distributed import Client, LocalCluster

import embedkit as ek
from embedkit.extraction import learned
from embedkit.extraction.learned import correction, learn, remember
from embedkit.planning.correction import LAST, Ratio
from embedkit.store.plans import write_plan


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def store(photos, network, tmp_path):
    """A store whose run needed twice the memory and half the time of its plan."""
    store = ek.extract(photos, network, tmp_path / "s.zarr", plan=None)
    (one,) = store.schema.passes
    info = store.info()
    plan = {
        "n_images": 40,
        "parts": [{"name": "all", "nbytes": info["peak_mem"] // 2}],
        "stages": {"forward": 2 * info["seconds"]["total"]},
        "waits_for": "forward",
    }
    write_plan(store.files, one.key, json.dumps(plan))
    return store


def test_without_runs_nothing_is_corrected():
    """No file, no folder."""
    assert correction("a" * 32) == (1.0, 1.0)


def test_what_runs_took_is_kept_by_key():
    """And corrects the projections of that key alone."""
    remember("a", Ratio(1.5, 1.2))
    remember("a", Ratio(1.2, 1.4))

    assert correction("a") == pytest.approx((1.5, 1.3))
    assert correction("b") == (1.0, 1.0)


def test_only_the_last_runs_are_kept(cache):
    """The file does not grow."""
    for number in range(3 * LAST):
        remember("a", Ratio(1.0 + number / 100, 1.0))

    (file,) = (cache / "learned").iterdir()
    kept = json.loads(file.read_text())
    assert len(kept) == LAST
    assert kept[-1]["memory"] == pytest.approx(1.23)


@pytest.mark.parametrize("text", ["no json", "[1]", '[{"memory": 1}]', "null", "\xff"])
def test_a_damaged_file_counts_as_none(text, cache):
    """And is replaced by the next run."""
    (cache / "learned").mkdir(parents=True)
    (cache / "learned" / "a.json").write_bytes(text.encode("latin-1"))

    assert correction("a") == (1.0, 1.0)
    remember("a", Ratio(1.5, 1.5))
    assert correction("a") == (1.5, 1.5)


def test_a_folder_that_cannot_be_written_forgets(cache):
    """A run does not fail of it."""
    cache.write_text("a file where the folder should be")

    remember("a", Ratio(1.5, 1.5))

    assert correction("a") == (1.0, 1.0)


def test_a_run_on_workers_teaches(store, network, monkeypatch):
    """Under every key that its plan was made of."""
    monkeypatch.setattr(learned, "_on_workers", lambda: True)
    monkeypatch.setattr(learned, "_LEAST_IMAGES", 40)

    assert learn(store, ["a", "b"], networks=[network.name])

    memory, time = correction("a")
    assert memory == pytest.approx(2.0, abs=0.01)
    assert time == 0.8  # a half, clamped
    assert correction("b") == (memory, time)


def test_a_short_run_another_network_or_no_plan_teach_nothing(
    store, network, monkeypatch
):
    """Opening and warming up are most of forty images."""
    monkeypatch.setattr(learned, "_on_workers", lambda: True)

    assert not learn(store, ["a"], networks=[network.name])
    monkeypatch.setattr(learned, "_LEAST_IMAGES", 40)
    assert not learn(store, ["a"], networks=["other"])
    store.files.delete_tree("_embedkit/plans")
    assert not learn(store, ["a"], networks=[network.name])
    assert correction("a") == (1.0, 1.0)


def test_this_process_teaches_nothing(store, network, monkeypatch):
    """It holds what its user has put there; so do workers that are threads of it."""
    monkeypatch.setattr(learned, "_LEAST_IMAGES", 40)

    assert not learn(store, ["a"], networks=[network.name])
    with (
        LocalCluster(
            processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster),
    ):
        assert not learn(store, ["a"], networks=[network.name])


@pytest.mark.parametrize(
    ("addresses", "expected"), [(["tcp://1.2.3.4:5"], True), ([], False)]
)
def test_worker_processes_are_known_by_their_addresses(
    addresses, expected, monkeypatch
):
    """TCP means another process."""

    class Known:
        def scheduler_info(self, n_workers):
            return {"workers": dict.fromkeys(addresses)}

    monkeypatch.setattr(learned, "get_client", Known)

    assert learned._on_workers() is expected
