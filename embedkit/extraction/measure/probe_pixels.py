"""In the measured process: what it takes to read, decode and prepare images."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread

import numpy as np
import numpy.typing as npt
import psutil

from embedkit.errors import NetworkError, SourceError
from embedkit.extraction.block.memory import peak, reset_peak
from embedkit.extraction.block.ticker import Ticker, held
from embedkit.extraction.measure.probe_job import Findings, ProbeJob
from embedkit.networks.network import Network

_SHARE = 0.2
"""Of the time for everything that images may take when they are slow (chosen)."""

_LEAST = 4
"""Images that are read however slow they are (chosen)."""


def resident() -> int:
    """Return the bytes that this process holds now."""
    return int(psutil.Process().memory_info().rss)


def top() -> int:
    """Return the largest size since `reset_peak`, or the present one where only that is known."""
    return max(peak(), resident())


@dataclass(slots=True)
class Stopwatch:
    """Adds up seconds by name."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Add the time that the body takes."""
        began = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - began
            self.seconds[name] = self.seconds.get(name, 0.0) + taken


def measure_pixels(
    job: ProbeJob, network: Network, findings: Findings, *, idle: float
) -> npt.NDArray[np.float32]:
    """Read the images of a job as a task does, and tell what that takes.

    Parameters
    ----------
    job : ProbeJob
        The job.
    network : Network
        Prepares images.
    findings : Findings
        Is told ``pixels``: images, seconds of ``decode`` and ``transform``, the largest
        ``bytes`` that one took besides its result, and seconds ``held``.
    idle : float
        See `embedkit.extraction.block.ticker`.

    Returns
    -------
    (n, C, H, W) array of float32
        Those that could be prepared; a single one of zeros where none could.
    """
    job.source.load(job.uris[0])  # readers are imported now, and not below
    given: list[npt.NDArray[np.float32]] = []
    # A thread of its own has a heap of its own, as each that reads ahead has: what it
    # needs is not hidden in what others have left over.
    with Ticker() as ticker:
        began = time.perf_counter()
        thread = Thread(target=_read, args=(job, network, findings, given))
        thread.start()
        thread.join()
        seconds = time.perf_counter() - began
    findings.tell("pixels_held", held(ticker, idle=idle, seconds=seconds))
    fitting = [each for each in given if each.shape == network.input_shape]
    return np.stack(fitting or [np.zeros(network.input_shape, np.float32)])


def _read(
    job: ProbeJob,
    network: Network,
    findings: Findings,
    given: list[npt.NDArray[np.float32]],
) -> None:
    watch, began, count = Stopwatch(), time.perf_counter(), 0
    base, kept, most = resident(), 0, 0
    for uri in job.uris:
        slow = time.perf_counter() - began > _SHARE * job.seconds
        if slow and count >= _LEAST:
            break
        reset_peak()
        value = _prepared(job, network, uri, watch)
        count += 1
        if value is not None:
            kept += value.nbytes
            given.append(value)
        most = max(most, top() - base - kept)
    findings.tell("pixels", {"images": count, "bytes": most, **watch.seconds})


def _prepared(
    job: ProbeJob, network: Network, uri: str, watch: Stopwatch
) -> npt.NDArray[np.float32] | None:
    """Return one image as the network takes it; what fails here a run tells."""
    with watch.time("decode"):
        loaded = job.source.load(uri)
    if isinstance(loaded.image, SourceError):
        return None
    try:
        with watch.time("transform"):
            return network.prepare(loaded.image)
    except NetworkError:
        return None
