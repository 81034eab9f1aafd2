"""Forward passes of growing batches: when to stop, and what is told of them."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

from embedkit.extraction.measure import probe_forward
from embedkit.extraction.measure.probe_forward import Forwards
from embedkit.extraction.measure.probe_job import Findings


class _Taps:
    """Takes its time: so much a batch, and so much a pair of its images."""

    backend = "torch"

    def __init__(self, fixed=0.02, each=0.0, most=64):
        self.fixed, self.each, self.most = fixed, each, most

    def forward(self, batch):
        if len(batch) > self.most:
            raise RuntimeError("out of memory")
        time.sleep(self.fixed + self.each * len(batch) ** 2)
        return {"layer": np.zeros((len(batch), 3), np.float32)}


@pytest.fixture
def tried(tmp_path, monkeypatch):
    """Runs batches, and returns what was found."""
    monkeypatch.setattr(probe_forward, "use_threads", lambda count: None)

    def run(taps, *, memory=2**50, seconds=60.0, batches=(1, 2, 4, 8, 16)):
        findings = Findings(tmp_path)
        job = SimpleNamespace(
            batches=batches, threads=(1, 2), memory=memory, seconds=seconds
        )
        inputs = np.zeros((3, 1, 2, 2), np.float32)
        until = time.perf_counter() + seconds
        forwards = Forwards(job, taps, inputs, findings, until=until)
        rows = forwards.first()
        assert rows["layer"].shape == (2, 3)
        forwards.grow()
        forwards.threads(idle=0.0)
        found = findings.read()
        return [each[0] for each in found["forward"]], found

    return run


def test_batches_grow_while_they_gain(tried):
    """Where a batch costs the same whatever its size, all are tried."""
    sizes, found = tried(_Taps())

    assert sizes == [1, 2, 4, 8, 16]
    assert all(0.01 < seconds < 0.5 for _, _, seconds in found["forward"])
    assert found["forward_held"][0] >= 0
    ((count, times),) = found["speedup"]
    assert count == 2
    assert times > 0


def test_batches_stop_growing_when_nothing_is_gained(tried):
    """The first one that is no faster per image is the last."""
    sizes, _ = tried(_Taps(fixed=0.0, each=0.01))

    assert sizes == [1, 2, 4]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [({"memory": 1}, [1, 2]), ({"seconds": 0.0}, [1, 2])],
    ids=["memory", "seconds"],
)
def test_batches_stop_growing_at_a_limit(tried, limit, expected):
    """Two are measured in any case: a line needs two points."""
    sizes, _ = tried(_Taps(), **limit)

    assert sizes == expected


def test_half_a_batch_is_measured_where_a_whole_one_takes_too_long(tried):
    """It says nearly as much of larger batches."""
    sizes, _ = tried(_Taps(fixed=0.3), seconds=3.6, batches=(1, 2, 8))

    assert sizes == [1, 2, 4]


def test_a_batch_for_which_there_is_no_memory_is_the_end(tried):
    """What was measured before counts."""
    sizes, found = tried(_Taps(most=4))

    assert sizes == [1, 2, 4]
    assert "forward_held" in found


def test_what_is_slow_is_measured_once(tried, monkeypatch):
    """Repeating it would take longer than it is worth."""
    monkeypatch.setattr(probe_forward, "_ENOUGH", 0.01)
    calls = []

    class Counting(_Taps):
        def forward(self, batch):
            calls.append(len(batch))
            return super().forward(batch)

    tried(Counting(), seconds=0.0)

    assert calls[:4] == [1, 1, 2, 2]


class _Device:
    """Stands in for a GPU's memory: there is none where tests run."""

    def __init__(self):
        self.largest, self.resets = 0, 0

    def reset(self):
        self.largest, self.resets = 0, self.resets + 1

    def held(self):
        return 7

    def peak(self):
        return 7 + self.largest


def test_a_gpu_s_peak_is_told_for_every_batch(tmp_path, monkeypatch):
    """Reset between sizes, and without what was there before."""
    monkeypatch.setattr(probe_forward, "use_threads", lambda count: None)
    device = _Device()

    class OnDevice(_Taps):
        def forward(self, batch):
            device.largest = max(device.largest, 100 * len(batch))
            return super().forward(batch)

    findings = Findings(tmp_path)
    job = SimpleNamespace(batches=(1, 2, 4), threads=(1,), memory=2**50, seconds=60.0)
    forwards = Forwards(
        job,
        OnDevice(),
        np.zeros((3, 1, 2, 2), np.float32),
        findings,
        until=time.perf_counter() + 60,
        device=device,
    )
    forwards.alone(OnDevice())
    forwards.first()
    forwards.grow()

    found = findings.read()
    assert found["device_alone"] == [[1, 100], [2, 200]]
    assert found["device_forward"] == [[1, 100], [2, 200], [4, 400]]
    assert [each[0] for each in found["alone"]] == [1, 2]
    assert device.resets == 5


def test_without_a_gpu_nothing_is_told_of_one(tried):
    """A measurement of the memory alone."""
    _, found = tried(_Taps())

    assert not [name for name in found if name.startswith("device")]
