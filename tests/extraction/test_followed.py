"""Plans that runs follow: given ones, and those that are made where it matters."""

from dataclasses import replace

import dask
import numpy as np
import pytest
from distributed import Client

import embedkit as ek
from embedkit import workers
from embedkit.errors import InputError, PlanError
from embedkit.extraction import run
from embedkit.extraction.measure.rough import rough
from embedkit.extraction.plans import followed, planned
from embedkit.planning.plan import Plan
from embedkit.store.plans import read_plan

GIB = 2**30


@pytest.fixture(autouse=True)
def synchronous():
    """One block after another, in this thread."""
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    """Rough numbers in place of measured ones, which take seconds; counts the calls."""
    calls = []

    def measure(looks, *, n_images=None, where=None, refresh=False):
        calls.append(where)
        return rough(looks)

    for each in (planned, followed):
        monkeypatch.setattr(each, "measure", measure)
    return calls


@pytest.fixture
def told(monkeypatch):
    """What runs are told besides their blocks."""
    seen = []
    inner = run.run_blocks

    def spy(turns, **planned):
        turns = list(turns)
        seen.append((planned, [turn.job for turn in turns]))
        return inner(turns, **planned)

    monkeypatch.setattr(run, "run_blocks", spy)
    return seen


def layer_files(store):
    """Return the bytes of every file below ``layers``, by name."""
    return {
        str(each.relative_to(store.path)): each.read_bytes()
        for each in (store.path / "layers").rglob("c.*")
    }


def plans(store):
    """Return the plans that are kept in a store, by pass."""
    return {one.key: read_plan(store.files, one.key) for one in store.schema.passes}


def test_a_small_run_measures_and_keeps_nothing(
    images, network, tmp_path, measured, told
):
    """It has the batches of the settings, Dask's own window, and no plan."""
    store = ek.extract(images, network, tmp_path / "s.zarr")

    assert measured == []
    assert plans(store) == {store.schema.passes[0].key: None}
    ((given, jobs),) = told
    assert given == {}
    assert {(job.slots, job.projected_mem) for job in jobs} == {(0, 0)}
    assert store.schema.passes[0].batch_size == 32


def test_a_plan_is_followed(images, network, tmp_path, told):
    """Blocks, batches, threads, window and memory reach the store and the tasks."""
    plan = ek.plan(images, network, block=8, batch_size=2)
    plan = replace(plan, decode_threads=5, window=4)

    store = ek.extract(images, network, tmp_path / "s.zarr", plan=plan)

    (one,) = store.schema.passes
    assert (one.block, one.batch_size) == (8, 2)
    ((given, jobs),) = told
    assert given == {"window": 4, "slots": 1}
    assert {job.decode_threads for job in jobs} == {5}
    assert {(job.slots, job.projected_mem) for job in jobs} == {(1, plan.projected_mem)}


def test_the_plan_is_kept_in_the_store(images, network, tmp_path):
    """For every pass; it comes back equal, and the files are as many as it says."""
    nets = [network, "embedkit/digits"]
    plan = ek.plan(images, nets, layers="last")

    store = ek.extract(images, nets, tmp_path / "s.zarr", layers="last", plan=plan)

    kept = plans(store)
    assert len(kept) == 2
    assert all(Plan.from_json(text) == plan for text in kept.values())
    assert plan.files == sum(each.is_file() for each in store.path.rglob("[!.]*"))
    assert plan.nbytes == {
        spec.name: 40 * spec.row_bytes for spec in store.schema.layers
    }


def test_the_same_bytes_as_without_a_plan(images, network, tmp_path):
    """A plan of the usual block and batch changes no byte."""
    plain = ek.extract(images, network, tmp_path / "plain.zarr", plan=None)
    one = plain.schema.passes[0]
    plan = ek.plan(images, network, block=one.block, batch_size=one.batch_size)

    planned = ek.extract(images, network, tmp_path / "planned.zarr", plan=plan)

    assert planned.schema.passes[0].identity == one.identity
    assert layer_files(planned) == layer_files(plain) != {}


def test_a_long_run_is_planned(images, network, tmp_path, measured, monkeypatch):
    """It is measured, where the store will be, and the plan is followed and kept."""
    monkeypatch.setattr(followed, "LONG", 0.0)

    store = ek.extract(images, network, tmp_path / "s.zarr")

    (one,) = store.schema.passes
    plan = Plan.from_json(plans(store)[one.key])
    assert [where.url for where in measured] == [store.url]
    assert (one.block, one.batch_size) == (plan.block, plan.batch_size)


def test_a_batch_size_that_is_given_is_kept_by_the_plan(
    images, network, tmp_path, monkeypatch
):
    """The user decides what decides the last bits."""
    monkeypatch.setattr(followed, "LONG", 0.0)

    store = ek.extract(images, network, tmp_path / "s.zarr", batch_size=3)

    assert store.schema.passes[0].batch_size == 3


@pytest.mark.slow
def test_tight_memory_makes_steps_small(images, network, tmp_path, measured):
    """Whole maps of a larger block would not fit; the numbers are the same."""
    options = {"layers": "all", "pool": "none", "batch_size": 1}
    plain = ek.extract(images, network, tmp_path / "plain.zarr", plan=None, **options)
    needed = ek.plan(images, network, block=4, **options).needed_mem

    tight = ek.extract(
        images, network, tmp_path / "tight.zarr", memory_limit=needed, **options
    )

    assert len(measured) == 2
    assert tight.schema.passes[0].block <= 4 < plain.schema.passes[0].block
    for name in plain:
        np.testing.assert_array_equal(tight[name].values, plain[name].values)


@pytest.mark.parametrize("name", ["s.zarr", "new/folder/s.zarr", "empty"])
def test_what_cannot_fit_is_refused_before_anything_is_written(
    images, network, tmp_path, name
):
    """The folder is as it was, an empty one that was given included."""
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(PlanError, match=r"need .* in a worker.*\(1\) memory_limit="):
        ek.extract(images, network, tmp_path / name, memory_limit="200 MiB")

    assert sorted(tmp_path.rglob("*")) == before


def test_what_cannot_fit_can_be_tried_without_a_plan(
    images, network, tmp_path, connected
):
    """Whoever knows better passes None: a plan is careful."""
    connected(memory_limit=200 * 2**20)
    with pytest.raises(PlanError, match="what would fit is"):
        ek.extract(images, network, tmp_path / "s.zarr")
    connected(None)

    assert ek.extract(images, network, tmp_path / "s.zarr", plan=None).complete


@pytest.fixture
def connected(monkeypatch):
    """Let planning see a cluster of one worker, or of none; tasks still run here."""

    def connect(memory_limit):
        told = {"host": "10.0.0.1", "nthreads": 1, "memory_limit": memory_limit}
        found = {} if memory_limit is None else {"tcp://w": told}
        monkeypatch.setattr(workers, "active_workers", lambda: found)

    return connect


def test_nothing_is_planned_for_workers_that_nobody_knows(
    images, network, tmp_path, connected, measured, monkeypatch
):
    """A cluster whose workers are still to come runs as without a plan."""
    monkeypatch.setattr(followed, "LONG", 0.0)
    connected(None)

    store = ek.extract(images, network, tmp_path / "s.zarr")

    assert measured == []
    assert store.complete


def test_a_plan_for_larger_workers_is_refused(images, network, tmp_path, connected):
    """What it needs and what there is are told."""
    plan = ek.plan(images, network, memory_limit="8 GiB")
    connected(memory_limit=GIB // 2)

    with pytest.raises(
        PlanError, match=r"needs 1\.\d GiB in a worker and .* 512\.0 MiB"
    ):
        ek.extract(images, network, tmp_path / "s.zarr", plan=plan)

    assert list(tmp_path.glob("*.zarr")) == []


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            {"plan": "fast"},
            "plan is 'fast': give what embedkit.plan returns, 'auto' or",
        ),
        ({"plan": None, "memory_limit": "2 GiB"}, "memory_limit is for plan='auto'"),
        ({"memory_limit": "2 miles"}, "memory_limit is '2 miles': give bytes"),
        (
            {"layers": "fc"},
            r"other layers, pools or numbers than these \('conv1'\)",
        ),
        ({"dtype": "float16"}, "for other layers, pools or numbers than these"),
        ({"pool": "none"}, "for other layers, pools or numbers than these"),
        ({"batch_size": 7}, "the plan has batch_size 32 and this run has 7"),
        ({"memory_limit": "1 TiB"}, "memory_limit is for plan='auto'"),
    ],
)
def test_what_does_not_agree_with_a_plan_is_refused(
    images, network, tmp_path, call, said
):
    """A plan for something else is no plan; nothing is written."""
    plan = ek.plan(images, network, layers=["conv1", "fc"], batch_size=32)
    call = {"layers": ["conv1", "fc"], "plan": plan, **call}
    if call.get("memory_limit") == "2 miles":
        call["plan"] = "auto"

    with pytest.raises(InputError, match=said):
        ek.extract(images, network, tmp_path / "s.zarr", **call)

    assert list(tmp_path.glob("*.zarr")) == []


def test_a_plan_for_other_images_is_refused(images, network, tmp_path):
    """Both numbers are told."""
    plan = ek.plan(images[:30], network)

    with pytest.raises(InputError, match="the plan is for 30 images and these are 40"):
        ek.extract(images, network, tmp_path / "s.zarr", plan=plan)


def test_a_stopped_run_goes_on_with_its_plan(images, network, tmp_path):
    """The same call finishes the store; a third one finds nothing to do."""
    plan = replace(ek.plan(images, network, block=8), window=1)
    call = (images, network, tmp_path / "s.zarr")

    def stop(progress):
        if progress.images_done >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ek.extract(*call, plan=plan, on_progress=stop)

    assert ek.extract(*call, plan=plan).complete
    assert ek.extract(*call, plan=plan).blocks == (5, 5)


def test_a_store_keeps_its_blocks(images, network, tmp_path, monkeypatch):
    """Another plan is refused; one that is made keeps them, for new layers too."""
    monkeypatch.setattr(followed, "LONG", 0.0)
    first = ek.plan(images, network, layers="fc", block=8, batch_size=2)
    path = tmp_path / "s.zarr"
    ek.extract(images, network, path, layers="fc", plan=first)
    other = ek.plan(images, network, layers=["conv1"], batch_size=4)

    with pytest.raises(
        InputError, match="the plan has batch_size 4 and this run has 2"
    ):
        ek.extract(images, network, path, layers="conv1", plan=other)
    store = ek.extract(images, network, path, layers=["conv1", "fc"])

    assert [one.batch_size for one in store.schema.passes] == [2, 2]
    assert store.complete
    assert None not in plans(store).values()


def test_on_a_cluster_the_window_follows_the_workers(images, network, tmp_path, told):
    """More of them may join than were planned for."""
    plan = ek.plan(images, network)
    options = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": ":0"}

    with Client(processes=False, **options):
        ek.extract(images, network, tmp_path / "s.zarr", plan=plan)

    ((given, jobs),) = told
    assert given == {"slots": plan.threads}
    assert {job.slots for job in jobs} == {1}
