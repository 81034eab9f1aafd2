"""In the measured process: what forward passes take, batch by batch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import psutil

from embedkit.errors import NetworkError
from embedkit.extraction.block.memory import reset_peak
from embedkit.extraction.block.ticker import Ticker, held
from embedkit.extraction.measure.probe_job import Findings, ProbeJob
from embedkit.extraction.measure.probe_pixels import resident, top
from embedkit.networks.device import DeviceMemory
from embedkit.networks.machine import use_threads
from embedkit.networks.taps import TapGraph
from embedkit.planning.measurement import GAIN
from embedkit.planning.memory import TARGET

_Rows: TypeAlias = Mapping[str, npt.NDArray[np.float32]]

_ALWAYS = 2
"""Batch sizes that are measured whatever time they take: a line needs two points."""

_REPEATS = 3
_ENOUGH = 0.5
"""Seconds of one batch size after which one repeat is enough (chosen)."""

BY_SIZE = ("openvino",)
"""Backends that make a graph for every size of a batch, and keep it."""

_FAILURES = (NetworkError, MemoryError, RuntimeError)
"""What a batch may raise for which there is no memory, on a GPU too."""


class Forwards:
    """Runs batches of the images that a job has prepared.

    Parameters
    ----------
    job : ProbeJob
        The job.
    taps : TapGraph
        Computes the layers.
    inputs : (n, C, H, W) array of float32
        Prepared images, repeated as often as a batch needs.
    findings : Findings
        Is told ``forward`` for every batch size, ``speedup`` for every number of threads
        and ``forward_held``, seconds of an image.
    until : float
        On the clock of `time.perf_counter`: the end of what can be left out.
    device : DeviceMemory, optional
        Of the GPU that the network runs on: ``device_forward`` and ``device_alone`` are
        told too then, bytes at the peak beside what was there before.
    """

    def __init__(
        self,
        job: ProbeJob,
        taps: TapGraph,
        inputs: npt.NDArray[np.float32],
        findings: Findings,
        *,
        until: float,
        device: DeviceMemory | None = None,
    ) -> None:
        self._job, self._taps, self._inputs = job, taps, inputs
        self._findings, self._until, self._device = findings, until, device
        self._base = self._now = resident()
        # Graphs for other sizes are no use; the first came with what all of them need.
        self._apart, self._needed = taps.backend in BY_SIZE, self._base
        self._best = job.batches[0]
        self._last: tuple[int, float, int] = (0, 0.0, 0)

    def first(self) -> _Rows:
        """Run the batch sizes that are always measured; return the rows of the last."""
        rows: _Rows = {}
        for size in self._job.batches[:_ALWAYS]:
            rows = self._measure(size)
            self._best = size
        self._now = resident()
        return rows

    def alone(self, last: TapGraph) -> None:
        """Run the batch sizes that are always measured, keeping the deepest layer alone.

        It tells ``alone`` as `first` tells ``forward``: what layers take that are
        computed one after the other.
        """
        for size in self._job.batches[:_ALWAYS]:
            batch = self._batch(size)
            reset_peak()
            held = self._begin()
            began = time.perf_counter()
            try:
                last.forward(batch)
            except _FAILURES:  # the passes that follow say what is to be said of it
                return
            seconds = time.perf_counter() - began
            peak = max(0, top() - self._base - batch.nbytes)
            self._findings.tell("alone", [size, peak, seconds])
            self._end("device_alone", size, held)

    def grow(self) -> None:
        """Run larger batches while they gain something and there is memory and time."""
        # What was measured in between has kept some memory, which is not the passes'.
        more = max(0, resident() - self._now)
        self._base, self._needed = self._base + more, self._needed + more
        for wanted in self._job.batches[_ALWAYS:]:
            size = next(filter(self._possible, (wanted, wanted // 2)), 0)
            before, seconds, _ = self._last
            if size <= before:
                return
            try:
                self._measure(size)
            except _FAILURES:
                return
            if GAIN * self._last[1] / size > seconds / before:
                return
            self._best = size

    def _possible(self, size: int) -> bool:
        """Return whether there is memory and time for batches of that size."""
        before, seconds, _ = self._last
        ends = time.perf_counter() + self._repeats(seconds * size / before)
        return ends <= self._until and self._fits(size)

    def _fits(self, size: int) -> bool:
        """Return whether there is memory for batches of that size."""
        before, _, peak = self._last
        needed = max(peak * size / before, 2 * size * self._inputs[0].nbytes)
        return bool(needed <= self._room())

    def _room(self) -> int:
        """Return the bytes that a batch may take: a worker's share, if they are free."""
        free = psutil.virtual_memory().available
        return min(self._job.memory - resident(), int(TARGET * free))

    def threads(self, idle: float) -> None:
        """Run the best batch size with more threads, and beside a ticking one."""
        batch = self._batch(self._best)
        run = self._runner(batch)
        run()
        with Ticker() as ticker:
            alone, _ = self._timed(run)
        kept = held(ticker, idle=idle, seconds=alone)
        self._findings.tell("forward_held", kept / len(batch))
        try:
            for count in self._job.threads[1:]:
                if time.perf_counter() + self._repeats(alone) > self._until:
                    return
                use_threads(count)
                run()
                self._findings.tell("speedup", [count, alone / self._timed(run)[0]])
        finally:
            use_threads(1)

    def rows(self) -> _Rows:
        """Return the rows of the best batch size: of as many images as it has."""
        return self._taps.forward(self._batch(self._best))

    def _measure(self, size: int) -> _Rows:
        batch = self._batch(size)
        run = self._runner(batch)
        before = resident() - batch.nbytes
        reset_peak()
        held = self._begin()
        run()
        seconds, rows = self._timed(run)
        # What smaller batches have left over is used again, so it counts as this one's.
        useless = max(0, before - self._needed) if self._apart else 0
        peak = max(0, top() - self._base - batch.nbytes - useless)
        if not self._last[0]:
            self._needed = resident() - batch.nbytes
        self._findings.tell("forward", [size, peak, seconds])
        self._end("device_forward", size, held)
        self._last = (size, seconds, peak)
        return rows

    def _begin(self) -> int:
        """Begin to look at the GPU; return what is held there."""
        if self._device is None:
            return 0
        self._device.reset()  # what another size has left would count as this one's
        return self._device.held()

    def _end(self, name: str, size: int, held: int) -> None:
        if self._device is not None:
            peak = max(0, self._device.peak() - held)
            self._findings.tell(name, [size, peak])

    def _runner(self, batch: npt.NDArray[np.float32]) -> Callable[[], _Rows]:
        return lambda: self._taps.forward(batch)

    def _timed(self, run: Callable[[], _Rows]) -> tuple[float, _Rows]:
        """Return the median of a few runs, of one where it is slow, and the last rows."""
        taken: list[float] = []
        while len(taken) < _REPEATS and sum(taken) < _ENOUGH:
            rows: _Rows = {}  # there is no room for two of them, as in a task
            began = time.perf_counter()
            rows = run()
            taken.append(time.perf_counter() - began)
        return statistics.median(taken), rows

    def _repeats(self, seconds: float) -> float:
        """Return how long a pass of so many seconds is measured, its first run included."""
        return seconds * (2 if seconds > _ENOUGH else 1 + _REPEATS)

    def _batch(self, size: int) -> npt.NDArray[np.float32]:
        chosen = np.arange(size) % len(self._inputs)
        return self._inputs[chosen]  # B C H W, a copy
