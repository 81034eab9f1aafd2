"""How much memory this process has, holds, and has needed, as the system says."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from distributed import get_worker
from distributed.system import MEMORY_LIMIT

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def memory_limit() -> int:
    """Return the bytes that this process may hold.

    Those of the Dask worker that runs this task; without one, or where it has no limit,
    those of the machine or of the control group that this process is in.
    """
    try:
        limit = get_worker().memory_manager.memory_limit
    except (ValueError, AttributeError):  # no worker runs this thread
        limit = None
    return int(limit or MEMORY_LIMIT)


def resident() -> int:
    """Return the bytes that this process holds now."""
    return int(psutil.Process().memory_info().rss)


def reset_peak() -> bool:
    """Begin a new measurement of the peak, where the system can; return whether it did.

    Writing 5 to ``/proc/self/clear_refs`` makes the peak the present size (Linux,
    proc_pid_clear_refs(5)); without that it only ever grows. Within tasks a `Meter` does
    it, for all threads of the process.
    """
    try:
        _RESET.write_text("5", "ascii")
    except OSError:
        return False
    return True


def release() -> None:
    """Give back what nobody uses any more, and what glibc's allocator keeps of it."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class Meter:
    """The largest resident size of this process while it runs, and since each look.

    It is that of the whole process: tasks in other threads of it count too. Make it
    with `metered`.

    Attributes
    ----------
    peak : int
        The largest so far, bytes; -1 where the system does not tell.
    """

    def __init__(self) -> None:
        self.peak = -1
        self._since = -1

    def look(self) -> int:
        """Return the largest size since the last look, bytes; at least the present one."""
        with _LOOKING:
            _look()
            found, self._since = self._since, -1
        return max(found, resident())

    def take(self, whole: int, since: int) -> None:
        """Note the largest size, and the largest since somebody last looked."""
        self.peak = max(self.peak, whole)
        self._since = max(self._since, since)


_LOOKING = threading.Lock()
_running: list[Meter] = []


@contextmanager
def metered() -> Iterator[Meter]:
    """Run a meter. Any number may run in threads of a process."""
    meter = Meter()
    with _LOOKING:
        _look()
        _running.append(meter)
    try:
        yield meter
    finally:
        with _LOOKING:
            _look()
            _running.remove(meter)


def _look() -> None:
    """Tell every meter the largest size since the last time, and begin anew.

    A peak that cannot be set back speaks of what may be long ago: meters then know the
    whole peak alone.
    """
    found = peak()
    since = found if reset_peak() else -1
    for meter in _running:
        meter.take(found, since)


def peak() -> int:
    """Return the largest resident size since the last reset, bytes; -1 if not known."""
    try:
        lines = _STATUS.read_text("ascii", "replace").splitlines()
    except OSError:
        return -1
    sizes = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return next((int(size) * 1024 for size in sizes), -1)
