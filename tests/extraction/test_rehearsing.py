"""Blocks as a whole: rehearsed by all workers at once, against the sum of their parts."""

from dataclasses import replace

import pytest
from distributed import Client, LocalCluster

from embedkit.extraction.measure import machines, probing, rehearsing
from embedkit.extraction.measure.layer_sizes import specs_of
from embedkit.extraction.measure.measuring import keys_of, measure
from embedkit.extraction.plans.learned import ratios, remember
from embedkit.files.files import files_at
from embedkit.planning.correction import Ratio
from embedkit.planning.costs import Layout, Work, cost

pytestmark = pytest.mark.usefixtures("cache")

LAYOUT = Layout(workers=1, threads=2, batch=4, block=8, decode_threads=2)


@pytest.fixture
def long(monkeypatch):
    """Every run counts as long enough, and its rehearsal is short."""
    monkeypatch.setattr(rehearsing, "_WORTH", 0.0)
    monkeypatch.setattr(rehearsing, "_SECONDS", 0.2)
    monkeypatch.setattr(rehearsing, "_BLOCK", 0.05)


def test_a_short_run_is_not_rehearsed(ask, started):
    """Its seconds are the sum of its parts."""
    found = measure([ask()])

    assert len(started) == 1
    assert (found.pace, found.rehearsed) == (1.0, 0)


def test_a_run_is_rehearsed_once(ask, started, long):
    """What it says is kept beside what was measured of the parts."""
    found = measure([ask()])
    again = measure([ask()])

    assert len(started) == 2
    assert again == found
    assert found.rehearsed == 1
    assert 0.8 <= found.pace <= 2.0


def test_parts_that_are_known_are_not_measured_again(ask, started, long, monkeypatch):
    """A longer run of the same kind adds the pace."""
    with monkeypatch.context() as patch:
        patch.setattr(rehearsing, "_WORTH", 1e9)
        parts = measure([ask()])

    found = measure([ask()])

    assert len(started) == 2
    assert replace(found, pace=1.0, rehearsed=0) == parts


def test_more_workers_rehearse_again(ask, started, long, monkeypatch, tmp_path):
    """Two want more of a machine than one."""
    first = measure([ask()])
    two = replace(machines.machine_here(), beside=(None, None))
    monkeypatch.setattr(rehearsing, "on_workers", lambda *given: [[8.0, 1e-9]] * 2)
    asked = ask()
    specs = specs_of(asked, prefix="", backend="torch")

    found = rehearsing.rehearsed(asked, specs, two, first, str(tmp_path), place="")

    assert first.rehearsed == 1
    assert (found.pace, found.rehearsed) == (0.8, 2)


def test_what_earlier_runs_said_of_the_parts_is_forgotten(
    ask, started, long, monkeypatch
):
    """They were off by what the pace says now."""
    (key,) = keys_of([ask()])
    with monkeypatch.context() as patch:
        patch.setattr(rehearsing, "_WORTH", 1e9)
        measure([ask()])
    remember(key, Ratio(1.0, 1.3))

    measure([ask()])

    assert ratios(key) == []


def test_a_rehearsal_that_dies_says_nothing_of_the_pace(
    ask, started, long, monkeypatch
):
    """The plan is that of the parts, and it is not tried each time."""
    true = probing._run

    def dies(module, folder, *, seconds):
        if module == probing._REHEARSAL:
            return "was ended by signal 9, as when memory runs out"
        return true(module, folder, seconds=seconds)

    monkeypatch.setattr(probing, "_run", dies)

    found = measure([ask()])

    assert len(started) == 1
    assert (found.pace, found.rehearsed) == (1.0, 1)


def test_the_pace_is_what_was_taken_over_what_was_planned(ask, started):
    """Of workers that differ the mean; none where none has told."""
    measured = measure([ask()])
    here = machines.machine_here()
    rows = LAYOUT.slots * LAYOUT.block
    planned = cost(measured, LAYOUT, n_images=rows, cores=here.cores).seconds
    planned -= Work.of(measured, batch=LAYOUT.batch).load

    def pace(*times):
        told = [[rows, each * planned] for each in times]
        return rehearsing._pace(measured, LAYOUT, here, told)

    assert pace(1.0) == pytest.approx(1.0)
    assert pace(1.0, 1.5) == pytest.approx(1.25)
    assert pace(9.0) == 2.0
    assert pace() == 1.0


def test_nothing_of_a_rehearsal_is_left_beside_the_store(ask, started, long, tmp_path):
    """Its blocks lie where those of the store will, for as long as it takes."""
    place = tmp_path / "there"
    place.mkdir()

    measure([ask()], where=files_at(place / "s.zarr"))

    assert len(started) == 2
    assert list(place.iterdir()) == []


@pytest.mark.slow
def test_all_workers_of_a_machine_rehearse_at_once(ask, long):
    """Each in a process of its own, beside a worker that stays as it is."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        Client(cluster),
    ):
        (kind,) = machines.machines()
        found = measure([ask()])

    assert len(kind.beside) == 2
    assert found.rehearsed == 2
    assert 0.8 <= found.pace <= 2.0
