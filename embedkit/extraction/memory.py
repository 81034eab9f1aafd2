"""How much memory this process has needed, measured by the system."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def reset_peak() -> None:
    """Begin a new measurement, where the system can.

    Writing 5 to ``/proc/self/clear_refs`` makes the peak the present size (Linux,
    proc_pid_clear_refs(5)); without that it only ever grows.
    """
    with suppress(OSError):
        _RESET.write_text("5", "ascii")


def peak() -> int:
    """Return the largest resident size since the last reset, bytes; -1 if not known.

    It is that of the whole process: tasks in other threads of it count too.
    """
    try:
        lines = _STATUS.read_text("ascii", "replace").splitlines()
    except OSError:
        return -1
    sizes = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return next((int(size) * 1024 for size in sizes), -1)
