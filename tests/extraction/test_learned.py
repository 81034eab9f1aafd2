"""Ratios of finished runs, kept for the next plan."""

import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from distributed import Client, LocalCluster

import embedkit as ek
from embedkit.errors import PlanError
from embedkit.extraction.measure.rough import rough
from embedkit.extraction.plans import learned, planned
from embedkit.extraction.plans.learned import (
    corrected,
    learning,
    ratio_of,
    ratios,
    remember,
)
from embedkit.planning.correction import LAST, Ratio, factors_of
from embedkit.planning.memory import Part
from embedkit.planning.plan import make_plan
from embedkit.planning.question import Question
from embedkit.store.commits import Halving, withdraw, write_commit
from embedkit.store.plans import write_plan

GIB = 2**30


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def known(monkeypatch):
    """Forty images are enough, and workers are processes that were measured."""
    monkeypatch.setattr(learned, "_LEAST_IMAGES", 40)
    monkeypatch.setattr(learned, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(learned, "_held_by_workers", lambda: 1)
    monkeypatch.setattr(learned, "keys_of", lambda looks, where: ("b", "a"))


@pytest.fixture
def store(photos, network, tmp_path):
    """A store that has followed no plan yet."""
    return ek.extract(photos, network, tmp_path / "s.zarr", plan=None)


@pytest.fixture
def plan(ask, store):
    """A plan of which the store's run needed twice the memory and 1.5 times the time."""
    found = Question(measured=rough([ask()]), n_images=40, cores=2, memory=16 * GIB)
    info = store.info()
    made = replace(
        make_plan(found),
        parts=(Part("Python and libraries", info["peak_mem"] // 2),),
        stages={"forward": info["seconds"]["total"] / 1.5},
        keys=("a", "b"),
    )
    _follow(store, made)
    return made


def _follow(store, plan):
    (one,) = store.schema.passes
    write_plan(store.files, one.key, plan.to_json())


def _ratio(store, plan, **how):
    return ratio_of(store, store.schema.passes, plan, **how)


def _change(store, block, **changes):
    """Put another record in the place of one."""
    (one,) = store.schema.passes
    grid = store.schema.grid(one)
    commit = store.commits(one)[block]
    withdraw(store.files, one, grid, [block])
    write_commit(store.files, one, grid, replace(commit, **changes))


def test_without_runs_nothing_is_corrected(ask):
    """No file, no folder."""
    measured = replace(rough([ask()]), keys=("a", "b"))

    assert corrected(measured) == measured


def test_what_runs_took_corrects_what_was_measured_under_their_key(ask):
    """And nothing else."""
    remember("a", Ratio(1.5, 1.2))
    remember("a", Ratio(1.2, 1.4))
    measured = rough([ask()])

    found = corrected(replace(measured, keys=("a",)))

    assert (found.factors.memory, found.factors.runs) == (1.5, 2)
    assert found.factors.time == pytest.approx(1.3)
    assert found.decode_seconds == pytest.approx(1.3 * measured.decode_seconds)
    assert corrected(replace(measured, keys=("b",))).factors.runs == 0


def test_only_the_last_runs_are_kept(cache):
    """The file does not grow."""
    for number in range(3 * LAST):
        remember("a", Ratio(1.0 + number / 100, 1.0))

    (file,) = (cache / "learned").glob("*.json")
    kept = json.loads(file.read_text())
    assert len(kept) == LAST
    assert kept[-1]["memory"] == pytest.approx(1.23)


@pytest.mark.parametrize("text", ["no json", "[1]", '[{"memory": 1}]', "null", "\xff"])
def test_a_damaged_file_counts_as_none(text, cache):
    """And is replaced by the next run."""
    (cache / "learned").mkdir(parents=True)
    (cache / "learned" / "a.json").write_bytes(text.encode("latin-1"))

    assert ratios("a") == []
    remember("a", Ratio(1.5, None))
    assert ratios("a") == [Ratio(1.5, None)]


def test_a_folder_that_cannot_be_written_forgets(cache):
    """A run does not fail of it."""
    cache.write_text("a file where the folder should be")

    remember("a", Ratio(1.5, 1.5))

    assert ratios("a") == []


def test_runs_that_end_at_once_are_all_kept():
    """Each reads what the others have written before it writes."""
    with ThreadPoolExecutor(LAST) as pool:
        list(pool.map(lambda at: remember("a", Ratio(1.0 + at / 10)), range(LAST)))

    kept = sorted(each.memory for each in ratios("a"))
    assert kept == pytest.approx([1.0 + at / 10 for at in range(LAST)])


@pytest.mark.slow
def test_processes_that_end_at_once_are_all_kept():
    """The file is whole, whoever wrote last."""
    context = multiprocessing.get_context("spawn")
    others = [
        context.Process(target=remember, args=("a", Ratio(1.0 + at / 10)))
        for at in range(2)
    ]
    for each in others:
        each.start()
    for each in others:
        each.join()

    assert sorted(each.memory for each in ratios("a")) == pytest.approx([1.0, 1.1])


def test_a_ratio_is_over_what_was_measured(store, plan, known):
    """Not over what earlier runs had made of it: a corrected plan that holds is no news."""
    plain = _ratio(store, plan)
    factors = factors_of([[Ratio(1.25, 1.5)]])
    other = replace(plan, factors=factors)
    _follow(store, other)

    found = _ratio(store, other)

    assert plain == Ratio(pytest.approx(2.0, abs=0.01), pytest.approx(1.5))
    assert found == Ratio(pytest.approx(2.5, abs=0.01), pytest.approx(1.5 * plain.time))


def test_a_run_teaches_under_every_key_of_its_plan(store, plan, known, ask):
    """The block ended well; it had not begun."""
    (one,) = store.schema.passes
    kept = store.commits(one)
    withdraw(store.files, one, store.schema.grid(one), list(kept))

    with learning(store, [one.network], plan, [ask()]):
        for each in kept.values():
            write_commit(store.files, one, store.schema.grid(one), each)

    assert ratios("a") == ratios("b") == [_ratio(store, plan)]


@pytest.mark.parametrize("why", ["begun", "no plan", "in here", "elsewhere", "failed"])
def test_what_teaches_nothing(store, plan, known, ask, monkeypatch, why):
    """Blocks of an earlier run, no plan, this process, another machine, a lost cluster."""
    (one,) = store.schema.passes
    grid, kept = store.schema.grid(one), store.commits(one)
    if why != "begun":
        withdraw(store.files, one, grid, list(kept))
    if why == "in here":
        monkeypatch.setattr(learned, "_held_by_workers", lambda: 0)
    if why == "elsewhere":
        monkeypatch.setattr(learned, "keys_of", lambda looks, where: ("a", "c"))
    if why == "failed":

        def fail(looks, where):
            raise PlanError("the worker died")

        monkeypatch.setattr(learned, "keys_of", fail)

    given = None if why == "no plan" else plan
    with learning(store, [one.network], given, [ask()]):
        for each in kept.values():
            write_commit(store.files, one, grid, each)

    assert ratios("a") == []


def test_a_run_that_fails_teaches_nothing(store, plan, known, ask):
    """Its error goes on."""
    (one,) = store.schema.passes
    kept = store.commits(one)
    withdraw(store.files, one, store.schema.grid(one), list(kept))

    def stop():
        with learning(store, ["Tiny"], plan, [ask()]):
            for each in kept.values():
                write_commit(store.files, one, store.schema.grid(one), each)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()

    assert ratios("a") == []


def test_short_runs_say_nothing(store, plan, known, monkeypatch):
    """Too few images, or too few seconds, or another way than the plan's, or no plan."""
    (one,) = store.schema.passes
    assert _ratio(store, plan) is not None
    staged = replace(one, about={**one.about, "strategy": "staged"})
    assert ratio_of(store, [staged], plan) is None
    monkeypatch.setattr(learned, "_LEAST_IMAGES", 41)
    assert _ratio(store, plan) is None
    monkeypatch.setattr(learned, "_LEAST_IMAGES", 40)
    monkeypatch.setattr(learned, "_LEAST_SECONDS", 1e6)
    assert _ratio(store, plan) is None
    monkeypatch.setattr(learned, "_LEAST_SECONDS", 0.0)
    store.files.delete_tree("_embedkit/plans")
    assert _ratio(store, plan) is None


@pytest.mark.parametrize(
    "change",
    [
        {"attempt": 2},
        {"halvings": (Halving(row=0, batch_size=1, why="short"),)},
        {"failures": {f"{at}": "gone" for at in range(5)}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_disturbed_run_only_teaches_that_more_memory_is_needed(
    store, plan, known, change
):
    """Its seconds are others', and with all batches whole it would have needed more."""
    _change(store, 0, **change)

    found = _ratio(store, plan)

    assert found == Ratio(pytest.approx(2.0, abs=0.01), None)
    roomy = replace(plan, parts=(Part("all", 4 * plan.parts[0].nbytes),))
    _follow(store, roomy)
    assert _ratio(store, roomy) is None


def test_workers_that_others_have_used_say_nothing_of_memory(store, plan, known):
    """What those have left in them is no part of the plan."""
    reserved = plan.parts[0].nbytes

    assert _ratio(store, plan, used=reserved).memory is not None
    assert _ratio(store, plan, used=2 * reserved) == Ratio(None, pytest.approx(1.5))


def test_threads_of_this_process_are_no_workers():
    """Nor is this process without a cluster."""
    assert learned._held_by_workers() == 0
    with (
        LocalCluster(
            processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster),
    ):
        assert learned._held_by_workers() == 0


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        ({"tcp://a": {"metrics": {"memory": 7}}, "tcp://b": {}}, 7),
        ({"tcp://a": {}}, 1),
        ({"tcp://a": {}, "inproc://b": {}}, 0),
        ({}, 0),
    ],
)
def test_worker_processes_are_known_by_their_addresses(workers, expected, monkeypatch):
    """TCP means another process; the largest counts."""
    monkeypatch.setattr(learned, "active_workers", lambda: workers)

    assert learned._held_by_workers() == expected


@pytest.mark.slow
def test_the_next_plan_is_corrected_by_the_run_before(
    images, network, tmp_path, monkeypatch
):
    """Measured, followed and remembered on worker processes; a second call adds nothing."""
    monkeypatch.setattr(learned, "_LEAST_IMAGES", 40)
    monkeypatch.setattr(learned, "_LEAST_SECONDS", 0.0)
    with ek.connect(n_workers=2, memory_limit="2 GiB"):
        first = ek.plan(images, network, path=tmp_path / "s.zarr")
        store = ek.extract(images, network, tmp_path / "s.zarr", plan=first)
        ek.extract(images, network, tmp_path / "s.zarr", plan=first)
        second = ek.plan(images, network, path=tmp_path / "t.zarr")

    assert first.factors.runs == 0
    assert "corrected by" not in first.describe()
    assert second.factors.runs == 1
    assert "corrected by 1 earlier run: memory x" in second.describe()
    assert second.keys == first.keys
    (kept,) = ratios(first.keys[0])
    assert kept == ratio_of(store, store.schema.passes, first)


def test_plans_of_a_call_are_corrected(images, network, monkeypatch):
    """More memory was needed: the same limits have smaller steps, or none."""

    def measure(looks, *, n_images=None, where=None, refresh=False):
        return replace(rough(looks), keys=("a",))

    monkeypatch.setattr(planned, "measure", measure)
    plain = ek.plan(images, network, memory_limit="8 GiB")
    remember("a", Ratio(1.5, 1.25))

    found = ek.plan(images, network, memory_limit="8 GiB")

    assert found.projected_mem == pytest.approx(1.5 * plain.projected_mem, rel=1e-6)
    assert np.allclose(
        [found.stages[name] for name in plain.stages],
        [1.25 * each for each in plain.stages.values()],
    )
    with pytest.raises(PlanError, match="even in the smallest steps"):
        ek.plan(images, network, memory_limit=plain.needed_mem)
