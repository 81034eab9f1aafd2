"""How long a piece of work keeps all other threads of its process from running Python."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_WAITED = Path("/proc/thread-self/schedstat")

_EVERY = 0.001
"""Seconds between two looks."""

_LATE = 0.0003
"""Seconds by which a thread wakes up late on a machine that has other things to do
(chosen: three times what an idle Linux takes)."""


class Ticker:
    """A thread that wakes up every millisecond and notes whether it was kept waiting.

    It can be kept waiting by whoever holds the interpreter. The share of its looks at
    which it was is the share of time that others held it: looks are at random moments of
    the work. Time that it waits for a processor does not count, where the system tells
    it; what else makes a thread late is measured in an idle process, see `idle_share`.

    Attributes
    ----------
    looks, late : int
        So far.
    """

    def __init__(self) -> None:
        self.looks = 0
        self.late = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def share(self) -> float:
        """Of the looks, those that were late."""
        return self.late / max(self.looks, 1)

    def _run(self) -> None:
        queued = _queued()
        while not self._ended.is_set():
            began = time.perf_counter()
            time.sleep(_EVERY)  # lets go of the interpreter, and asks for it again
            taken = time.perf_counter() - began
            before, queued = queued, _queued()
            self.late += taken - (queued - before) - _EVERY > _LATE
            self.looks += 1


def _queued() -> float:
    """Return the seconds that this thread has waited for a processor; 0 if not known.

    Linux, Documentation/scheduler/sched-stats.rst: the second number of schedstat.
    """
    try:
        return int(_WAITED.read_text("ascii").split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def idle_share(seconds: float = 0.1) -> float:
    """Return the share of late looks while nothing runs."""
    with Ticker() as ticker:
        time.sleep(seconds)
    return ticker.share


def held(ticker: Ticker, *, idle: float, seconds: float) -> float:
    """Return for how long the interpreter was held.

    Parameters
    ----------
    ticker : Ticker
        That ran beside the work.
    idle : float
        From `idle_share`.
    seconds : float
        Of the work.
    """
    return seconds * max(0.0, ticker.share - idle) / max(1.0 - idle, 0.01)
