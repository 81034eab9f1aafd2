"""Blocks as a whole: rehearsed by all workers at once, against the sum of their parts."""

import time
from dataclasses import replace

import psutil
import pytest
from distributed import Client, LocalCluster

from embedkit.extraction.measure import machines, measuring, probing, rehearsing
from embedkit.extraction.measure.measuring import measure
from embedkit.files.files import files_at
from embedkit.planning.costs import Layout, Work, cost
from embedkit.planning.question import Question

pytestmark = pytest.mark.usefixtures("cache")

LAYOUT = Layout(workers=2, threads=2, batch=4, block=8, decode_threads=2)


@pytest.fixture
def worker(workers_here):
    """A worker with two threads in this process."""
    with workers_here(1, threads=2) as client:
        yield client


@pytest.fixture
def long(monkeypatch):
    """Every run counts as long enough, and its rehearsal is short."""
    monkeypatch.setattr(rehearsing, "_WORTH", 0.0)
    monkeypatch.setattr(rehearsing, "_SECONDS", 0.2)
    monkeypatch.setattr(rehearsing, "_BLOCK", 0.05)


@pytest.fixture
def told(monkeypatch):
    """Note what every worker tells of its rehearsal."""
    answers, true = [], rehearsing.at_once

    def noted(*given):
        found = true(*given)
        answers.extend(found)
        return found

    monkeypatch.setattr(rehearsing, "at_once", noted)
    return answers


def test_a_short_run_is_not_rehearsed(ask, started, worker):
    """Its seconds are the sum of its parts."""
    found = measure([ask()])

    assert len(started) == 1
    assert (found.pace, found.rehearsed) == (1.0, 0)


def test_how_long_a_run_is_goes_by_the_images_it_computes(ask, started, worker):
    """Forty images are none that count, a billion are."""
    short = measure([ask()])
    long = measure([ask()], n_images=10**9)

    assert (short.rehearsed, long.rehearsed) == (0, 1)


def test_this_process_rehearses_nothing(ask, started, long):
    """It computes one block after the other, as it was measured."""
    assert measure([ask()]).rehearsed == 0


def test_a_run_is_rehearsed_once(ask, started, worker, long, told):
    """Each thread of the worker tells images and seconds; what follows is kept."""
    found = measure([ask()])
    again = measure([ask()])

    assert len(started) == 2
    assert again == found
    assert found.rehearsed == 1
    (threads,) = told
    assert len(threads) == 2
    assert all(images > 0 < seconds for images, seconds in threads)


def test_parts_that_are_known_are_not_measured_again(
    ask, started, worker, long, monkeypatch
):
    """A longer run of the same kind adds the pace."""
    with monkeypatch.context() as patch:
        patch.setattr(rehearsing, "_WORTH", 1e9)
        parts = measure([ask()])
    monkeypatch.setattr(rehearsing, "_pace", lambda *given: 1.25)

    found = measure([ask()])

    assert len(started) == 2
    assert found == replace(parts, pace=1.25, rehearsed=1)


def test_more_workers_rehearse_again(ask, started, worker, long, told, monkeypatch):
    """Two want more of a machine than one."""
    first = measure([ask()])
    (kind,) = machines.machines()
    both = replace(kind, beside=(*kind.beside, "inproc://gone"))
    monkeypatch.setattr(measuring, "machines", lambda: (both,))
    true = rehearsing.cluster_of
    monkeypatch.setattr(
        rehearsing,
        "cluster_of",
        lambda addresses: replace(true(addresses), n_workers=2),
    )

    found = measure([ask()])

    assert first.rehearsed == 1
    assert found.rehearsed == 2
    assert len(told) == 2, "the worker that is gone has told nothing"


@pytest.mark.parametrize("way", ["dies", "fails"])
def test_a_rehearsal_that_goes_wrong_says_nothing_of_the_pace(
    ask, started, worker, long, monkeypatch, way
):
    """The plan is that of the parts, which are kept."""
    true = probing._run

    def goes_wrong(module, folder, *, seconds):
        if module != probing._REHEARSAL:
            return true(module, folder, seconds=seconds)
        if way == "fails":
            raise OSError("no space left")
        return "was ended by signal 9, as when memory runs out"

    monkeypatch.setattr(probing, "_run", goes_wrong)

    found = measure([ask()])
    measure([ask()])

    assert len(started) == 1
    assert (found.pace, found.rehearsed) == (1.0, 0)


def test_nobody_begins_where_there_is_no_memory_for_all(
    ask, started, worker, long, told, monkeypatch
):
    """Planning takes no memory that a run would not be given."""
    true = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: true._replace(available=1))

    assert measure([ask()]).rehearsed == 0
    assert told == [[]]


def test_workers_that_are_busy_are_not_waited_for(worker, monkeypatch):
    """What they would have said comes too late."""
    monkeypatch.setattr(machines, "_ANSWERING", 0.2)
    (address,) = worker.scheduler_info()["workers"]
    busy = worker.map(time.sleep, [5.0] * 2, workers=[address], pure=False)

    assert machines.at_once([address], abs, -1) == []
    worker.cancel(busy)


def test_the_pace_is_what_was_taken_over_what_was_planned(ask, started):
    """Of all threads the mean, and never less than the parts."""
    measured = measure([ask()])
    question = Question(measured=measured, n_images=1000, cores=2, memory=2**40)
    rows = LAYOUT.slots * LAYOUT.block
    planned = cost(measured, LAYOUT, n_images=rows, cores=2).seconds
    planned -= Work.of(measured, batch=LAYOUT.batch).load

    def pace(*times):
        told = [[LAYOUT.block, each * planned] for each in times]
        return rehearsing._pace(question, LAYOUT, told)

    assert pace(1.25) == pytest.approx(1.25)
    assert pace(1.0, 1.5, 1.0, 1.5) == pytest.approx(1.25)
    assert pace(0.5) == 1.0


def test_nothing_of_a_rehearsal_is_left_beside_the_store(
    ask, started, worker, long, tmp_path
):
    """Its blocks lie where those of the store will, for as long as it takes."""
    place = tmp_path / "there"
    place.mkdir()

    found = measure([ask()], where=files_at(place / "s.zarr"))

    assert found.rehearsed == 1
    assert list(place.iterdir()) == []


def test_workers_that_are_gone_rehearse_nothing(ask, started, worker, long):
    """They left while one of them was measured."""
    (kind,) = machines.machines()
    parts = measure([ask()], n_images=1)
    gone = replace(kind, beside=("inproc://gone",))

    found = rehearsing.rehearsed(
        ask(), [], gone, replace(parts, rehearsed=0), n_images=10**9, where=None
    )

    assert found.rehearsed == 0


@pytest.mark.slow
def test_all_workers_of_a_machine_rehearse_at_once(ask, long, told):
    """Each in a process of its own, beside a worker that stays as it is."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        Client(cluster),
    ):
        (kind,) = machines.machines()
        found = measure([ask()])

    assert len(kind.beside) == found.rehearsed == 2
    assert [len(threads) for threads in told] == [1, 1]
