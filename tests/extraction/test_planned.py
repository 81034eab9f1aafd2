"""`embedkit.plan`: limits, workers, and stores that exist."""

import contextlib
from dataclasses import replace

import dask
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embedkit as ek
from embedkit import workers
from embedkit.config import settings as configured
from embedkit.errors import IdentityMismatch, InputError, PlanError
from embedkit.extraction.measure.rough import rough
from embedkit.extraction.plans import planned
from embedkit.planning.memory import MOST

GIB = 2**30
MIB = 2**20
SAID = r"0\.8 of its memory\) as fused; staged and lazy cannot fit.*\(1\).*\(2\).*\(3\)"


@pytest.fixture(autouse=True, scope="module")
def unmeasured():
    """Rough numbers in place of measured ones, which take seconds; counts the calls."""
    calls = []

    def measure(looks, *, n_images=None, where=None, refresh=False):
        calls.append((where, refresh))
        return rough(looks)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planned, "measure", measure)
        yield calls


@pytest.fixture(scope="module")
def pictures():
    """Two thousand small black pictures in memory."""
    return ek.open_images(np.zeros((2000, 16, 16, 3), np.uint8))


class Asked:
    """A client that knows some workers, as far as planning asks it."""

    def __init__(self, *workers):
        self.workers = {f"tcp://w{at}": each for at, each in enumerate(workers)}

    def scheduler_info(self, n_workers):
        """Return what the scheduler knows of all workers."""
        assert n_workers == -1
        return {"workers": self.workers}


def worker(host="10.0.0.1", nthreads=1, memory_limit=4 * GIB):
    """Return what a scheduler knows of a worker."""
    return {"host": host, "nthreads": nthreads, "memory_limit": memory_limit}


@pytest.fixture
def connected(monkeypatch):
    """Make workers the active ones."""

    def connect(*told):
        monkeypatch.setattr(workers, "get_client", lambda: Asked(*told))

    return connect


@settings(deadline=None, max_examples=60)
@given(
    memory_limit=st.none() | st.integers(GIB, 8 * GIB),
    n_workers=st.none() | st.integers(1, 8),
    threads=st.none() | st.integers(1, 4),
    batch_size=st.none() | st.integers(1, 64),
    block=st.none() | st.sampled_from([16, 32, 100]),
    disk_budget=st.none() | st.integers(10**4, 10**6),
    max_files=st.none() | st.integers(10, 1000),
    time_budget=st.none() | st.integers(1, 1000),
)
def test_every_limit_is_honoured(pictures, network, **given):
    """A plan keeps what was given; there is none where that is impossible."""
    kept = {name: value for name, value in given.items() if value is not None}
    with contextlib.suppress(PlanError):
        plan = ek.plan(pictures, network, layers="all", **given)

        assert plan.projected_mem <= MOST * plan.allowed_mem
        assert plan.allowed_mem <= kept.get("memory_limit", plan.allowed_mem)
        assert plan.n_workers == kept.get("n_workers", plan.n_workers)
        assert plan.threads == kept.get("threads", plan.threads)
        assert plan.block == kept.get("block", plan.block)
        assert plan.batch_size in (kept.get("batch_size", plan.batch_size), plan.block)
        assert sum(plan.nbytes.values()) <= kept.get("disk_budget", 2**62)
        assert plan.files <= kept.get("max_files", 10**6) + 1
        assert plan.seconds <= kept.get("time_budget", 2**62)


def test_limits_are_also_told_in_words(pictures, network):
    """Bytes and times may be text; the same plan comes of it."""
    numbers = {"memory_limit": 3 * GIB, "disk_budget": 10**9, "time_budget": 7200}
    words = {"memory_limit": "3 GiB", "disk_budget": "1 GB", "time_budget": "2h"}

    assert ek.plan(pictures, network, **numbers) == ek.plan(pictures, network, **words)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"memory_limit": "lots"},
            "memory_limit is 'lots': give bytes, as a number or",
        ),
        ({"disk_budget": "1 furlong"}, "disk_budget is '1 furlong': give bytes"),
        (
            {"time_budget": "soon"},
            "time_budget is 'soon': give seconds, or a time like",
        ),
        ({"memory_limit": 0}, "memory_limit is 0: give 1 or more"),
        ({"n_workers": 0}, "n_workers is 0: give 1 or more"),
        ({"threads": 0}, "threads is 0: give 1 or more"),
        ({"block": 0}, "block is 0: give 1 or more"),
        ({"batch_size": 0}, "batch_size is 0: give 1 or more"),
        ({"max_files": 0}, "max_files is 0: give 1 or more"),
    ],
)
def test_what_cannot_be_a_limit_is_refused(pictures, network, given, said):
    """The name, what was given, and what to give instead."""
    with pytest.raises(InputError, match=said):
        ek.plan(pictures, network, **given)


def test_what_cannot_fit_is_refused_with_remedies(pictures, network):
    """The limit, the numbers and three changes."""
    with pytest.raises(PlanError, match=SAID):
        ek.plan(pictures, network, layers="all", pool="none", memory_limit="700 MiB")


def test_nothing_is_written(pictures, network, tmp_path):
    """Neither the store nor its parents are made, nor an empty folder taken away."""
    (tmp_path / "empty.zarr").mkdir()

    for name in ("new/s.zarr", "empty.zarr"):
        ek.plan(pictures, network, path=tmp_path / name)

    assert [each.name for each in tmp_path.rglob("*")] == ["empty.zarr"]


def test_the_place_and_the_wish_to_measure_again_are_passed_on(
    pictures, network, tmp_path, unmeasured
):
    """Shards are tried where the store will be."""
    ek.plan(pictures, network, path=tmp_path / "s.zarr", refresh=True)

    where, refresh = unmeasured[-1]
    assert (where.url, refresh) == (str(tmp_path / "s.zarr"), True)


def test_this_process_is_one_worker_with_dask_s_threads(pictures, network):
    """Without a client a run has the threads of Dask's scheduler."""
    with dask.config.set(num_workers=3):
        three = ek.plan(pictures, network)
    with dask.config.set(scheduler="synchronous"):
        one = ek.plan(pictures, network)

    assert (three.n_workers, three.threads) == (1, 3)
    assert (one.n_workers, one.threads) == (1, 1)
    assert one.decode_threads == configured().decode_threads


def test_workers_that_are_not_there_can_be_planned_for(pictures, network):
    """Their number and memory are enough; this machine has no say in it."""
    plan = ek.plan(pictures, network, n_workers=500, memory_limit="100 GiB", threads=2)

    assert (plan.n_workers, plan.threads) == (500, 2)
    assert plan.allowed_mem == 100 * GIB


def test_processes_of_this_machine_share_its_memory(pictures, network, monkeypatch):
    """Where only their number is given, each has its part of what is there."""
    monkeypatch.setattr(workers, "_available", lambda: 16 * GIB)

    plan = ek.plan(pictures, network, n_workers=4)

    assert (plan.n_workers, plan.allowed_mem) == (4, 4 * GIB)


def test_the_active_workers_are_planned_for(pictures, network, connected):
    """Their number, their threads, and the memory of the smallest."""
    connected(worker(nthreads=2, memory_limit=8 * GIB), worker(nthreads=2), worker())

    plan = ek.plan(pictures, network)

    assert (plan.n_workers, plan.threads, plan.allowed_mem) == (3, 2, 4 * GIB)
    assert ek.plan(pictures, network, n_workers=3) == plan
    assert ek.plan(pictures, network, memory_limit="3 GiB").allowed_mem == 3 * GIB


def test_fewer_threads_where_all_do_not_fit(pictures, network, connected):
    """A worker with more threads than memory computes fewer blocks at a time."""
    asked = {"layers": "all", "batch_size": 32}
    connected(worker(nthreads=64, memory_limit=64 * GIB))
    limit = ek.plan(pictures, network, **asked).needed_mem - 100 * 2**20
    connected(worker(nthreads=64, memory_limit=limit))

    plan = ek.plan(pictures, network, **asked)

    assert 1 <= plan.threads < 64
    assert plan.projected_mem <= MOST * plan.allowed_mem
    with pytest.raises(PlanError, match="threads="):
        ek.plan(pictures, network, **asked, threads=64)


def test_cores_are_counted_by_host(connected, monkeypatch):
    """Threads of this machine's workers share its cores; others are taken at their word."""
    monkeypatch.setattr(workers, "CPU_COUNT", 2)
    connected(
        *(worker("127.0.0.1", nthreads=4) for _ in range(2)),
        *(worker("10.0.0.1", nthreads=4) for _ in range(2)),
    )

    assert workers.active_cluster().cores == 2 + 8


def test_workers_without_a_limit_share_what_is_free(connected, monkeypatch):
    """A scheduler knows 0 of a worker whose memory nobody watches."""
    monkeypatch.setattr(workers, "_available", lambda: 6 * GIB)
    connected(worker(memory_limit=0), worker(memory_limit=0))

    assert workers.active_cluster().memory_limit == 3 * GIB


def test_a_cluster_without_workers_is_told(pictures, network, connected):
    """A batch system may start them later; what they will be can be said."""
    connected()

    with pytest.raises(InputError, match=r"has no workers yet.*give n_workers and mem"):
        ek.plan(pictures, network)
    plan = ek.plan(pictures, network, n_workers=2, memory_limit="4 GiB")
    assert plan.n_workers == 2


@pytest.fixture
def begun(images, network, tmp_path):
    """A store of forty images in blocks of eight, stopped after its second block."""
    path = tmp_path / "begun.zarr"
    plan = ek.plan(images, network, layers="conv1", block=8, batch_size=4)

    def stop(progress):
        if progress.images_done >= 16:
            raise KeyboardInterrupt

    with (
        dask.config.set({"scheduler": "synchronous", "embedkit.window": 1}),
        pytest.raises(KeyboardInterrupt),
    ):
        ek.extract(
            images,
            network,
            path,
            layers="conv1",
            plan=replace(plan, window=1, threads=1),
            on_progress=stop,
        )
    return path


def test_what_a_store_lacks_is_planned_as_it_was_begun(images, network, begun):
    """Its blocks and batches are kept, and only what is missing takes time."""
    whole = ek.plan(images, network, layers="conv1", block=8, batch_size=4)

    rest = ek.plan(images, network, layers="conv1", path=begun)

    assert (rest.block, rest.batch_size) == (8, 4)
    assert rest.n_images == 24
    assert rest.seconds < whole.seconds


def test_new_layers_of_a_store_are_planned(images, network, begun):
    """Together with those that are not finished; batches are the network's."""
    plan = ek.plan(images, network, layers=["conv1", "fc"], path=begun)

    assert [layer.name for layer in plan.layers] == ["conv1", "fc"]
    assert (plan.block, plan.batch_size, plan.n_images) == (8, 4, 40)


def test_more_images_are_planned_for_a_store(images, network, begun):
    """All that the images behind those of the store need."""
    plan = ek.plan(images[:20], network, layers="conv1", path=begun)

    assert (plan.n_images, plan.block) == (4, 8)


def test_a_finished_store_has_nothing_to_plan(images, network, tmp_path):
    """Said in one line."""
    path = tmp_path / "s.zarr"
    with dask.config.set(scheduler="synchronous"):
        ek.extract(images, network, path, layers="fc")

    with pytest.raises(InputError, match="has all of these layers for all images"):
        ek.plan(images, network, layers="fc", path=path)
    assert ek.plan(images, network, layers="relu", path=path).n_images == 40


def test_a_store_of_another_network_may_take_this_one(images, network, begun):
    """A plan does not ask for add_network; what is incompatible is told as ever."""
    plan = ek.plan(images, "embedkit/digits", layers="last", path=begun)

    assert plan.n_images == 40
    with pytest.raises(IdentityMismatch, match="pool"):
        ek.plan(images, network, layers="conv1", pool="max", path=begun)
