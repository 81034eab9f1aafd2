"""How many blocks a process computes at once."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import dask
import pytest
from distributed import Client, LocalCluster

from embedkit.extraction import dispatch
from embedkit.extraction.block import slots, task
from embedkit.extraction.block.job import Job, Part
from embedkit.extraction.block.slots import a_slot
from embedkit.extraction.block.task import BlockReport
from embedkit.extraction.dispatch import Turn, run_blocks
from embedkit.images.source import FileSource
from embedkit.networks.spool import Spooled


@pytest.fixture
def job():
    """A job that is told apart by nothing."""
    return Job(
        store="/nowhere",
        token="t",
        parts=(Part("i" * 64, Spooled(url="/nowhere", name="n", sha256="0" * 64)),),
        source=FileSource(),
        decode_threads=1,
    )


@pytest.fixture
def seen(monkeypatch):
    """How many blocks were computed at once, each time that one began."""
    counts, now, lock = [], [0], threading.Lock()

    def extract_block(job, block, *, number):
        with lock:
            now[0] += 1
            counts.append(now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        return BlockReport(block=block, n_images=1, n_failed=0, seconds=0.0)

    monkeypatch.setattr(task, "extract_block", extract_block)
    return counts


@pytest.mark.parametrize("most", [1, 2, 3])
def test_never_more_blocks_at_once_than_slots(most, job, seen):
    """Twelve tasks on eight threads: so many compute, the others wait."""
    mine = replace(job, slots=most)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda block: task.attempt_block(mine, block), range(12)))

    assert max(seen) == most
    assert len(seen) == 12


def test_without_slots_every_thread_computes(job, seen):
    """0 is no limit."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda block: task.attempt_block(job, block), range(8)))

    assert max(seen) == 4


def test_the_slots_of_one_job_count_blocks_of_the_others(job, seen):
    """Memory is the process's, whoever fills it."""
    jobs = [replace(job, slots=2, token=f"{i}") for i in range(4)]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda each: task.attempt_block(each, 0), jobs))

    assert max(seen) == 2


def test_a_slot_is_given_back_whatever_happens():
    """An error in a block leaves no slot taken."""
    with pytest.raises(ZeroDivisionError), a_slot(1):
        raise ZeroDivisionError

    assert slots._running == []
    with a_slot(1):
        assert len(slots._running) == 1


def test_threads_of_this_process_are_as_many_as_asked(job, seen):
    """Without a client, Dask's threads are given their number; then its own again."""
    turns = [Turn(job, block) for block in range(9)]

    with dask.config.set(scheduler="threads"):
        reports = list(run_blocks(turns, slots=3))

    assert max(seen) == 3
    assert sorted(each.block for each in reports) == list(range(9))


@pytest.mark.parametrize("window", [1, 4])
def test_a_window_is_what_is_drawn_in_this_process(window, job, monkeypatch):
    """As many blocks as asked, and no more before they have ended."""
    monkeypatch.setattr(dispatch, "attempt_block", _skipped)
    drawn = []
    turns = (drawn.append(block) or Turn(job, block) for block in range(10))

    outcomes = run_blocks(turns, window=window)
    next(outcomes)

    assert len(drawn) == window
    assert len(list(outcomes)) == 9


@pytest.mark.slow
def test_a_window_is_what_lies_on_a_cluster(job, monkeypatch):
    """Whatever the number of its threads, no more are drawn than have ended and that."""
    monkeypatch.setattr(dispatch, "attempt_block", _skipped)
    drawn, gaps = [], []
    turns = (drawn.append(block) or Turn(job, block) for block in range(20))

    with (
        LocalCluster(
            processes=False, n_workers=2, threads_per_worker=2, dashboard_address=":0"
        ) as cluster,
        Client(cluster),
    ):
        for ended, _ in enumerate(run_blocks(turns, window=3), 1):
            gaps.append(len(drawn) - ended)

    assert max(gaps) <= 3
    assert len(drawn) == 20


def _skipped(job, block, number):
    return BlockReport(block=block, n_images=1, n_failed=0, seconds=0.0, skipped=True)
