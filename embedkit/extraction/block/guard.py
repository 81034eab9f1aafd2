"""When the batches of a forward pass become smaller, because memory runs short.

The layout of a store does not change by it. Which rows were computed in which batches
stands in the commit records: rows of another batch size may differ in their last bits,
within the tolerance that the store records.
"""

from __future__ import annotations

import logging
import threading
from typing import Final, TypeVar

from embedkit.extraction.block.memory import Meter, memory_limit, release, resident
from embedkit.networks.device import release_device
from embedkit.planning.units import told_bytes, told_count

FULL: Final = 0.75
"""The share of its limit from which a process makes its batches smaller. Dask stops a
worker at 0.8 and ends it at 0.95."""

_WORTH: Final = 0.05
"""The share of the limit that a forward pass has to take for half a batch to help (chosen:
where rows or other things fill the memory, smaller batches would only be slower)."""

_RUNS: Final = 64
"""Passes of runs of which a process remembers how far it has come down."""

_SHORT_OF_MEMORY: Final = (
    "out of memory",
    "can't allocate memory",
    "defaultcpuallocator",
    "status_alloc_failed",  # as cuDNN and cuBLAS say it
)

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

_log = logging.getLogger(__name__)

_changing = threading.Lock()
_sizes: dict[tuple[str, str], tuple[int, str]] = {}
"""Batch size that this process has come down to, and why, by run and pass."""
_rises: dict[tuple[str, str], int] = {}
"""Bytes that the last forward pass took on top of what was there, by run and pass."""


_shares: dict[str, float] = {}
"""The largest share of its memory that this process has needed for a block, by run."""


def needed(run: str) -> float | None:
    """Return the largest share of its memory that this process has needed for a block.

    None where it has not finished any of that run.
    """
    return _shares.get(run)


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left, on the CPU or on a GPU."""
    if isinstance(error, MemoryError):
        return True
    told = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        words in told for words in _SHORT_OF_MEMORY
    )


class Guard:
    """Watches the memory of this process while it computes one block.

    Parameters
    ----------
    meter : Meter
        Which runs.
    run : str
        Name of the run: what the process has learned counts until its end.
    deaths : int, default 0
        Workers that may have died in this block for want of memory: each halves its
        batches.
    """

    def __init__(self, meter: Meter, *, run: str, deaths: int = 0) -> None:
        self._meter, self._run, self._deaths = meter, run, deaths
        self._limit = memory_limit()
        self._before = 0

    def begin(self, key: str, size: int) -> tuple[int, str]:
        """Return the batch size that a pass begins the block with, and why.

        Parameters
        ----------
        key : str
            Of the pass.
        size : int
            Its batch size.

        Returns
        -------
        size : int
            1 or more.
        why : str
            Empty where it is the pass's own.
        """
        known, why = _sizes.get((self._run, key), (size, ""))
        held = resident()
        if known > 1 and self._is_short(held, _rises.get((self._run, key))):
            known, why = self.halve(key, known, self._told(held))
        died = max(1, size >> self._deaths)
        if died < known:
            died_here = told_count(self._deaths, "worker")
            return died, f"{died_here} died in this block"
        return min(known, size), why

    def before(self) -> None:
        """Note what is there just before a forward pass."""
        self._meter.look()
        self._before = resident()

    def after(self, key: str, size: int) -> tuple[int, str]:
        """Return the batch size to go on with after a forward pass, and why it changes.

        Returns
        -------
        size : int
            As given, or smaller: half of it, or what other threads have come down to.
        why : str
            Empty where it is as given.
        """
        peak = self._meter.look()
        rise = max(0, peak - self._before)
        _remember(_rises, (self._run, key), rise)
        known, why = _sizes.get((self._run, key), (size, ""))
        if known < size:
            return known, why
        if size > 1 and self._is_short(peak, rise):
            return self.halve(key, size, self._told(peak))
        return size, ""

    def halve(self, key: str, size: int, why: str) -> tuple[int, str]:
        """Return half a batch size; this process keeps to it until the run ends."""
        half = max(1, size // 2)
        with _changing:
            before, _ = _sizes.get((self._run, key), (size, ""))
            _remember(_sizes, (self._run, key), (min(before, half), why))
        release()
        release_device()
        return half, why

    def end(self, *, projected: int = 0) -> None:
        """Note how much the block has needed, and say so where that is beyond the plan.

        Parameters
        ----------
        projected : int, default 0
            Bytes that were planned, 0 where nothing was.
        """
        peak = max(self._meter.look(), self._meter.peak)
        if resident() > FULL * self._limit:
            release()  # Dask begins no task in a worker that holds more than 0.8
        with _changing:
            before = _shares.get(self._run, 0.0)
            _remember(_shares, self._run, max(peak / self._limit, before))
        if projected and peak > max(projected, before * self._limit):
            told = told_bytes(peak), told_bytes(projected), told_bytes(self._limit)
            _log.warning("a block needed %s; %s were planned and %s are there", *told)

    def _is_short(self, held: int, rise: int | None) -> bool:
        """Whether too much is taken, and smaller batches would take noticeably less."""
        worth = rise is None or rise > _WORTH * self._limit
        return held > FULL * self._limit and worth

    def _told(self, held: int) -> str:
        return f"{told_bytes(held)} of {told_bytes(self._limit)} in use"


def _remember(known: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    known[key] = value
    while len(known) > _RUNS:
        known.pop(next(iter(known)))
