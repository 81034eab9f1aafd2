"""Blocks that fail, kill or wait: what becomes of them and of the run."""

import itertools
import os
from dataclasses import replace

import dask
import numpy as np
import psutil
import pytest
import torch
from distributed import Client, LocalCluster

import embedkit as ek
from embedkit.errors import IncompleteStore, InputError, StoreError
from embedkit.extraction import dispatch, run
from embedkit.extraction.block import task
from embedkit.extraction.block.job import Job, Part
from embedkit.extraction.block.task import BlockLoss, BlockReport
from embedkit.extraction.dispatch import Turn, run_blocks
from embedkit.extraction.plans import followed
from embedkit.images.source import FileSource
from embedkit.networks.spool import Spooled
from embedkit.store.attempts import begin, deaths


class Fragile:
    """A transform that fails on images of one height while a file says so."""

    def __init__(self, flag, heights=(10,)):
        self.flag, self.heights = str(flag), heights

    def __call__(self, image):
        if os.path.exists(self.flag) and image.height in self.heights:  # noqa: PTH110
            raise ZeroDivisionError(f"no picture of height {image.height}")
        pixels = np.asarray(image.resize((12, 12)), np.float32) / 255
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())

    def __repr__(self):
        return "Fragile()"


@pytest.fixture
def many(tmp_path):
    """A hundred and sixty pictures of height 9, of which one in the third block has 10."""
    from PIL import Image

    rng = np.random.default_rng(5)
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(160):
        height = 10 if i == 70 else 9
        pixels = rng.integers(0, 256, (height, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
    return folder


@pytest.fixture
def fragile(network, tmp_path):
    """A network whose transform fails as long as the flag is there."""
    flag = tmp_path / "broken"
    flag.touch()
    return ek.load_network(network.module, transform=Fragile(flag)), flag


@pytest.fixture(scope="module")
def cluster_client():
    """A cluster of two workers in this process."""
    with (
        LocalCluster(
            processes=False, n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.mark.parametrize("where", ["threads", "synchronous", "cluster"])
def test_a_block_that_fails_again_and_again_is_given_up_and_the_others_finish(
    where, many, fragile, tmp_path, cluster_client, monkeypatch
):
    """The summary names block, images, reason and what to do; then the same call does it."""
    network, flag = fragile
    tried = []
    true_extract = task.extract_block

    def extract_block(job, block, *, number):
        tried.append((block, number))
        return true_extract(job, block, number=number)

    monkeypatch.setattr(task, "extract_block", extract_block)
    seen = []
    active = (
        cluster_client.as_current()
        if where == "cluster"
        else dask.config.set(scheduler=where)
    )

    with active, pytest.raises(IncompleteStore) as caught:
        ek.extract(many, network, tmp_path / "s.zarr", on_progress=seen.append)

    message = str(caught.value)
    assert "1 of the 5 blocks" in message
    assert "4 are written" in message
    assert "block 2 (images '064.png' to '095.png')" in message
    assert "ZeroDivisionError: no picture of height 10" in message
    assert "run the same call again" in message
    assert [number for block, number in tried if block == 2] == [1, 2, 3]
    assert sorted(block for block, _ in tried if block != 2) == [0, 1, 3, 4]
    assert seen[-1].n_lost == 1
    assert seen[-1].images_done == 128
    store = ek.open_store(tmp_path / "s.zarr")
    assert store.blocks == (4, 5)
    assert not store.finished
    flag.unlink()
    assert ek.extract(many, network, tmp_path / "s.zarr").complete


def test_when_nothing_works_the_run_ends_early(many, network, tmp_path, monkeypatch):
    """A transform that always fails is told after three blocks, not after all."""
    flag = tmp_path / "broken"
    flag.touch()
    never = ek.load_network(network.module, transform=Fragile(flag, heights=(9,)))
    tried = []
    true_extract = task.extract_block

    def extract_block(job, block, *, number):
        tried.append(block)
        return true_extract(job, block, number=number)

    monkeypatch.setattr(task, "extract_block", extract_block)
    monkeypatch.setattr(dispatch, "CPU_COUNT", 1)

    with (
        dask.config.set({"scheduler": "synchronous", "embedkit.window": 1}),
        pytest.raises(IncompleteStore, match="3 of the 5 blocks"),
    ):
        ek.extract(many, never, tmp_path / "s.zarr")

    assert set(tried) == {0, 1, 2}


def test_an_error_of_the_store_ends_the_run_after_its_retries(
    many, network, tmp_path, monkeypatch
):
    """What no other block could escape is not tried on all of them."""
    tried = []

    def full(*_args):
        tried.append(1)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(task, "write_block", full)
    monkeypatch.setattr(dispatch, "CPU_COUNT", 1)

    with (
        dask.config.set({"scheduler": "synchronous", "embedkit.window": 1}),
        pytest.raises(StoreError, match="No space left"),
    ):
        ek.extract(many, network, tmp_path / "s.zarr")

    assert len(tried) == 3


def test_a_block_in_which_processes_died_is_left_alone(
    many, network, tmp_path, monkeypatch
):
    """Marks of three deaths, whoever left them: the others finish, the reason is told."""
    path = tmp_path / "s.zarr"
    with monkeypatch.context() as patched:
        patched.setattr(run, "fill", None)
        patched.setattr(
            "embedkit.extraction.strategy.by_layer.fill", lambda *a, **k: None
        )
        ek.extract(many, network, path)
    store = ek.open_store(path)
    (one,) = store.schema.passes
    for _ in range(3):
        begin(store.files, one, 1)
    begin(store.files, one, 0)

    with (
        dask.config.set(scheduler="synchronous"),
        pytest.raises(IncompleteStore, match="died 3 times: process") as caught,
    ):
        ek.extract(many, network, path)

    assert f"process {os.getpid()} on" in str(caught.value)
    done = ek.open_store(path).commits(one)
    assert set(done) == {0, 2, 3, 4}
    assert done[0].attempt == 2
    assert deaths(store.files, one) == {}  # the next call tries again
    assert ek.extract(many, network, path).complete


def test_a_block_that_dies_a_third_time_in_a_run_is_not_begun_again(
    many, network, tmp_path, monkeypatch
):
    """A task looks for the marks itself: the scheduler sends it again unasked."""
    path = tmp_path / "s.zarr"
    true_run = run.run_blocks
    outcomes = []

    def run_blocks_after_deaths(turns):
        todo = list(turns)
        for _ in range(3):
            begin(store.files, store.schema.passes[0], 1)
        for outcome in true_run(iter(todo)):
            outcomes.append(outcome)
            yield outcome

    with monkeypatch.context() as patched:
        patched.setattr(
            "embedkit.extraction.strategy.by_layer.fill", lambda *a, **k: None
        )
        ek.extract(many, network, path)
    store = ek.open_store(path)
    monkeypatch.setattr(run, "run_blocks", run_blocks_after_deaths)

    with pytest.raises(IncompleteStore, match="its worker died 3 times"):
        ek.extract(many, network, path)

    lost = [each for each in outcomes if isinstance(each, BlockLoss)]
    assert [(each.block, each.final) for each in lost] == [(1, True)]


def test_a_task_of_a_driver_that_lost_its_lock_writes_nothing(
    many, network, tmp_path, monkeypatch
):
    """Its images may not be those of the driver that came after it."""
    true_compute = task.compute_block

    def compute_block(given, *args, **kwargs):
        computed = true_compute(given, *args, **kwargs)
        text = given.files.read("_embedkit/lock.json")
        token = b'"token": "' + b"0" * 32
        at = text.index(b'"token": "')
        given.files.write("_embedkit/lock.json", text[:at] + token + text[at + 42 :])
        return computed

    monkeypatch.setattr(task, "compute_block", compute_block)

    with pytest.raises(StoreError, match=r"not held by the run .* nothing was written"):
        ek.extract(many, network, tmp_path / "s.zarr")

    assert ek.open_store(tmp_path / "s.zarr").blocks == (0, 5)
    assert not list((tmp_path / "s.zarr" / "layers").rglob("c.*"))


def _job(n):
    return Job(
        store=f"/nowhere/{n}",
        token="t",
        parts=(Part("i" * 64, Spooled(url="/nowhere", name="n", sha256="0" * 64)),),
        source=FileSource(),
        decode_threads=1,
    )


def _skipped(job, block, number):
    return BlockReport(
        block=block, n_images=4096, n_failed=0, seconds=0.0, skipped=True
    )


@pytest.mark.slow
def test_a_window_over_ten_million_images_stays_flat(cluster_client, monkeypatch):
    """Tasks that skip: the scheduler never knows more of them than the window holds."""
    monkeypatch.setattr(dispatch, "attempt_block", _skipped)
    blocks = -(-10_000_000 // 4096)
    job = _job(0)
    asked = itertools.count()
    turns = (Turn(job, next(asked)) for _ in range(blocks))
    scheduler = cluster_client.cluster.scheduler
    known, memory, images = [], [], 0

    with cluster_client.as_current():
        for number, report in enumerate(run_blocks(turns)):
            images += report.n_images
            known.append(len(scheduler.tasks))
            if number in (blocks // 5, blocks - 1):
                memory.append(psutil.Process().memory_info().rss)

    assert images >= 10_000_000
    assert max(known) <= 2 * 3 * 2  # twice the window: what ended is forgotten in time
    assert memory[1] - memory[0] < 30 * 2**20


def test_no_more_than_the_window_is_drawn_in_this_process(monkeypatch):
    """Ten million images are no list of tasks anywhere."""
    monkeypatch.setattr(dispatch, "attempt_block", _skipped)
    monkeypatch.setattr(dispatch, "CPU_COUNT", 2)
    drawn = []

    def turns():
        for block in range(100):
            drawn.append(block)
            yield Turn(_job(0), block)

    with dask.config.set({"scheduler": "synchronous", "embedkit.window": 3}):
        outcomes = run_blocks(turns())
        for _ in range(6):
            next(outcomes)
        assert len(drawn) == 6
        assert len(list(outcomes)) == 94


def test_blame_by_the_scheduler_is_a_reason_to_send_a_block_again(
    cluster_client, monkeypatch
):
    """A neighbor of a block that kills is innocent: it is sent until it is done."""
    monkeypatch.setattr(dispatch, "attempt_block", _skipped)
    true_outcome = dispatch._outcome
    attempts = []

    def outcome(future, turn):
        attempts.append((turn.block, turn.attempt))
        if turn.block == 1 and turn.attempt < 5:
            return BlockLoss(key="k", block=1, reason="KilledWorker: …", died=True)
        return true_outcome(future, turn)

    monkeypatch.setattr(dispatch, "_outcome", outcome)

    with cluster_client.as_current():
        found = list(run_blocks(Turn(_job(1), block) for block in range(3)))

    assert all(isinstance(each, BlockReport) for each in found)
    assert [number for block, number in attempts if block == 1] == [1, 2, 3, 4, 5]


def test_blame_without_end_has_an_end(cluster_client, monkeypatch):
    """A block that the scheduler gives up nine times is given up."""
    monkeypatch.setattr(dispatch, "attempt_block", _skipped)
    monkeypatch.setattr(
        dispatch,
        "_outcome",
        lambda _future, turn: BlockLoss(
            key="k", block=turn.block, reason="KilledWorker: …", died=True
        ),
    )

    with cluster_client.as_current():
        (found,) = run_blocks([Turn(_job(2), 0)])

    assert isinstance(found, BlockLoss)


@pytest.mark.slow
def test_a_scheduler_that_goes_ends_the_run_with_what_to_do(many, network, tmp_path):
    """What is written is kept, and the next call goes on without a cluster."""
    path = tmp_path / "s.zarr"
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
        LocalCluster(
            processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
    ):
        client = Client(cluster)

        def leave(progress):
            client.sync(cluster.scheduler.close)

        with (
            dask.config.set({"embedkit.window": 1}),
            pytest.raises(IncompleteStore, match=r"scheduler is gone.*same call again"),
        ):
            ek.extract(many, network, path, on_progress=leave)
        client.close(timeout=1)

    store = ek.extract(many, network, path)
    assert store.complete


def test_a_run_inside_of_a_task_on_the_only_thread(many, tmp_path, monkeypatch):
    """Measuring, choosing a backend and blocks: all of them need its place."""
    monkeypatch.setattr(followed, "LONG", 0.0)
    with (
        LocalCluster(
            processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        future = client.submit(
            ek.extract, many, "embedkit/digits", tmp_path / "s.zarr", backend="auto"
        )
        store = future.result(timeout=120)

    assert store.complete
    assert store.info()["planned"]


def test_memory_of_this_process_is_no_place_for_worker_processes(many, network):
    """They could not reach it; a cluster in this process can."""
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        Client(cluster),
        pytest.raises(InputError, match="lies in the memory of this process"),
    ):
        ek.extract(many, network, "memory://unreachable")


def test_a_job_names_its_pass(many):
    """Keys of tasks tell passes of one store apart."""
    assert _job(0).key == "i" * 16
    part = replace(_job(0).parts[0], identity="abc")
    assert replace(_job(0), parts=(part,)).key == "abc"
