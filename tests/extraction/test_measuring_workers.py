"""Measuring where processes and workers die, and where workers are unlike."""

import json
import math
import os
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from distributed import Client, KilledWorker, get_worker
from distributed.comm.core import CommClosedError
from distributed.system import MEMORY_LIMIT

import embedkit as ek
from embedkit.errors import PlanError
from embedkit.extraction.measure import errands, machines, measuring, probing
from embedkit.extraction.measure.measuring import measure
from embedkit.extraction.measure.probe_job import FOUND, SAID

pytestmark = pytest.mark.usefixtures("cache")


def _cut(folder, name):
    """Take away what was found from some name on, and end within a line."""
    lines = (folder / FOUND).read_text().splitlines(keepends=True)
    kept = lines[: next(i for i, line in enumerate(lines) if f'["{name}"' in line)]
    (folder / FOUND).write_text("".join(kept) + '["forw')


@pytest.mark.parametrize(
    ("name", "doing"),
    [
        ("reserved", "starting"),
        ("loaded", "loading the network"),
        ("pixels", "reading images"),
        ("forward", "the first forward pass"),
        ("shards", "writing a block"),
    ],
)
def test_a_process_that_dies_early_is_told(ask, monkeypatch, started, name, doing):
    """What it was doing, how it ended, and what to do."""
    true = probing._run

    def dies(module, folder, *, seconds):
        true(module, folder, seconds=seconds)
        _cut(folder, name)
        (folder / SAID).write_text("first\nlast words\n\n")
        return "was ended by signal 9, as when memory runs out"

    monkeypatch.setattr(probing, "_run", dies)

    with pytest.raises(
        PlanError,
        match=rf"'Tiny' cannot be measured: .* signal 9.* while {doing} \(last words\): "
        "give workers more memory",
    ):
        measure([ask()])


def test_a_process_that_dies_of_a_large_batch_has_told_enough(
    ask, monkeypatch, started
):
    """The batches before it count."""
    true = probing._run

    def dies(module, folder, *, seconds):
        true(module, folder, seconds=seconds)
        _cut(folder, "forward_held")
        return "was ended by signal 9, as when memory runs out"

    monkeypatch.setattr(probing, "_run", dies)

    found = measure([ask()])

    assert len(found.networks[0].forward) >= 2
    assert found.speedup == ((1, 1.0),)


def test_workers_of_a_kind_are_measured_once(ask, started, workers_here):
    """Two that are alike are one kind, and its limits are theirs."""
    with workers_here(2, threads=3) as client:
        (kind,) = machines.machines()
        found = measure([ask()])
        assert kind.address in client.scheduler_info()["workers"]

    assert (kind.threads, kind.limit) == (3, int(MEMORY_LIMIT))
    assert len(started) == 1
    assert found.networks[0].name == "Tiny"
    measure([ask()])
    assert len(started) == 2, "this process is another kind of worker"


def _has_blocks():
    return machines._BLOCKS in sys.modules


def test_all_workers_import_before_one_of_them_is_measured():
    """A run does not begin with it then."""
    with ek.connect(n_workers=2, dashboard_port=0) as client:
        before = client.run(_has_blocks)
        found = machines.machines()
        after = client.run(_has_blocks)

    assert len(found) == 1
    assert list(before.values()) == [False, False]
    assert list(after.values()) == [True, True]


def test_of_unlike_workers_each_is_measured(ask, started, monkeypatch):
    """And the most demanding numbers count."""
    here = machines.machine_here()
    two = (here, replace(here, cores=here.cores + 1))
    monkeypatch.setattr(measuring, "machines", lambda: two)

    found = measure([ask()])

    assert len(started) == 2
    each = []
    for kind in two:
        monkeypatch.setattr(measuring, "machines", lambda kind=kind: (kind,))
        each.append(measure([ask()]))
    assert len(started) == 2
    assert found.reserved == max(one.reserved for one in each)
    assert found.write_rate == min(one.write_rate for one in each)


@pytest.mark.parametrize(("inside", "tried"), [(1, (1,)), (3, (1, 2, 3))])
def test_no_more_threads_are_measured_than_a_pass_will_have(
    ask, tmp_path, inside, tried
):
    """Dask's nannies allow one: a core that is free then makes no pass faster."""
    kind = replace(machines.machine_here(), cores=8, inside=inside)
    asked = ask()
    specs = measuring.specs_of(asked, prefix="", backend="torch")
    errand = errands.probe_errand(
        asked, specs, kind, str(tmp_path), place="", seconds=1.0
    )

    assert pickle.loads(errand.job).threads == tried


def test_a_worker_that_dies_is_told(ask, started, monkeypatch):
    """Which one, and what to do."""

    class Dying:
        def scatter(self, given, **options):
            return given

        def submit(self, *given, **options):
            return self

        def result(self):
            raise KilledWorker("measure", SimpleNamespace(address="tcp://a"), 3)

    monkeypatch.setattr(machines, "active_client", Dying)

    with pytest.raises(PlanError, match="worker tcp://a died while it was measured"):
        machines.on_worker("tcp://a", abs, -1)


@pytest.mark.parametrize(
    "error",
    [
        CommClosedError("Stream is closed"),
        TimeoutError("No valid workers found"),
        KeyError("tcp://a"),
    ],
)
def test_a_worker_that_takes_nothing_is_told(monkeypatch, error):
    """Dask's scheduler says that a connection closed, or that no worker is running."""

    class Full:
        def scatter(self, given, **options):
            raise error

    monkeypatch.setattr(machines, "active_client", Full)

    with pytest.raises(
        PlanError, match=r"worker tcp://a died .* or its memory is full"
    ):
        machines.on_worker("tcp://a", abs, -1)


def _dies_at(address, _data=b""):
    if get_worker().address == address:
        os._exit(1)
    return get_worker().address


@pytest.mark.slow
@pytest.mark.parametrize("given", [(), (b"0" * 1000,)], ids=["alone", "with data"])
def test_a_worker_that_dies_keeps_nobody_from_answering(monkeypatch, given):
    """Nor does it make others wait for it, whether what it was sent is lost or not."""
    monkeypatch.setattr(machines, "_ANSWERING", 60.0)

    with ek.connect(n_workers=2, dashboard_port=0) as client:
        first, second = client.scheduler_info()["workers"]
        found = machines.at_once([first, second], _dies_at, first, *given)

    assert found == [second]


def test_nobody_answers_where_nobody_is_asked():
    """A machine may have lost all of its workers."""
    with Client(processes=False, n_workers=1, dashboard_address=":0"):
        assert machines.at_once([], abs, -1) == []


def test_a_large_network_does_not_pass_through_workers_that_see_its_file(
    ask, tmp_path, monkeypatch
):
    """A worker that does not see it is sent what is in it; both measure the same file."""
    asked, here = ask(), machines.machine_here()
    specs = measuring.specs_of(asked, prefix="", backend="torch")

    def brought(place):
        place.mkdir()
        errand = errands.probe_errand(
            asked, specs, here, str(place), place="", seconds=1.0
        )
        probing._bring(errand, place / "brought")
        return errand.network, Path(errand.file), (place / "brought").read_bytes()

    sent, file, by_path = brought(tmp_path / "seen")
    assert sent == b""
    assert file.parent == tmp_path / "seen"
    monkeypatch.setattr(os.path, "isfile", lambda path: False)
    sent, _, by_value = brought(tmp_path / "not seen")

    assert sent == by_value == by_path == file.read_bytes()
    assert len(sent) > 0


def test_a_kind_of_worker_is_told_by_what_speed_depends_on():
    """All of it can be written as JSON, and where it is does not count."""
    here = machines.machine_here(2, 10**9)

    assert replace(here, beside=("tcp://a", "tcp://b")).kind == here.kind
    assert json.loads(json.dumps(here.kind))["threads"] == 2
    assert dict(here.versions).keys() >= {"python", "torch", "zarr", "numpy"}
    assert math.isclose(here.limit, 10**9)
