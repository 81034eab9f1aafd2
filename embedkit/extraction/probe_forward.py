"""In the measured process: what forward passes take, batch by batch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import psutil

from embedkit.errors import NetworkError
from embedkit.extraction.memory import reset_peak
from embedkit.extraction.probe_job import Findings, ProbeJob
from embedkit.extraction.probe_pixels import resident, top
from embedkit.extraction.ticker import Ticker, held
from embedkit.networks.machine import use_threads
from embedkit.networks.taps import TapGraph
from embedkit.planning.measurement import GAIN
from embedkit.planning.memory import TARGET

_ALWAYS = 2
"""Batch sizes that are measured whatever time they take: a line needs two points."""

_REPEATS = 3
_ENOUGH = 0.5
"""Seconds of one batch size after which one repeat is enough (chosen)."""

_BY_SIZE = ("openvino",)
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
    """

    def __init__(
        self,
        job: ProbeJob,
        taps: TapGraph,
        inputs: npt.NDArray[np.float32],
        findings: Findings,
        *,
        until: float,
    ) -> None:
        self._job, self._taps, self._inputs = job, taps, inputs
        self._findings, self._until = findings, until
        self._base = self._now = resident()
        self._best = job.batches[0]
        self._last: tuple[int, float, int] = (0, 0.0, 0)

    def first(self) -> Mapping[str, npt.NDArray[np.float32]]:
        """Run the batch sizes that are always measured; return the rows of the last."""
        rows: Mapping[str, npt.NDArray[np.float32]] = {}
        for size in self._job.batches[:_ALWAYS]:
            rows = self._measure(size)
            self._best = size
        self._now = resident()
        return rows

    def grow(self) -> None:
        """Run larger batches while they gain something and there is memory and time."""
        # What was measured in between has kept some memory, which is not the passes'.
        self._base += max(0, resident() - self._now)
        for size in self._job.batches[_ALWAYS:]:
            before, seconds, peak = self._last
            more = 2 * max(peak, size * self._inputs[0].nbytes)
            late = time.perf_counter() + 2 * self._repeats(seconds) > self._until
            if late or more > self._room():
                return
            try:
                self._measure(size)
            except _FAILURES:
                return
            if GAIN * self._last[1] / size > seconds / before:
                return
            self._best = size

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
            alone = self._timed(run)
            spent = alone * _REPEATS
        share = held(ticker, idle=idle, seconds=spent) / _REPEATS / len(batch)
        self._findings.tell("forward_held", share)
        try:
            for count in self._job.threads[1:]:
                if time.perf_counter() + self._repeats(alone) > self._until:
                    return
                use_threads(count)
                run()
                self._findings.tell("speedup", [count, alone / self._timed(run)])
        finally:
            use_threads(1)

    def _measure(self, size: int) -> Mapping[str, npt.NDArray[np.float32]]:
        batch = self._batch(size)
        run = self._runner(batch)
        # What smaller batches have left over is used again, so it counts as this one's:
        # unless a graph was made for each size, and those of smaller ones are no use.
        base = (
            resident() if self._taps.backend in _BY_SIZE else self._base + batch.nbytes
        )
        reset_peak()
        rows = run()
        seconds = self._timed(run)
        peak = max(0, top() - base)
        self._findings.tell("forward", [size, peak, seconds])
        self._last = (size, seconds, peak)
        return rows

    def _runner(
        self, batch: npt.NDArray[np.float32]
    ) -> Callable[[], Mapping[str, npt.NDArray[np.float32]]]:
        return lambda: self._taps.forward(batch)

    def _timed(self, run: Callable[[], object]) -> float:
        """Return the median of a few runs, of one where it is slow."""
        taken: list[float] = []
        while len(taken) < _REPEATS and sum(taken) < _ENOUGH:
            began = time.perf_counter()
            run()
            taken.append(time.perf_counter() - began)
        return statistics.median(taken)

    def _repeats(self, seconds: float) -> float:
        """Return how long a pass of so many seconds is measured, its first run included."""
        return seconds * (2 if seconds > _ENOUGH else 1 + _REPEATS)

    def _batch(self, size: int) -> npt.NDArray[np.float32]:
        chosen = np.arange(size) % len(self._inputs)
        return self._inputs[chosen]  # B C H W, a copy
