"""How benchmarks show what they found: the machine, a table as it grows, a summary.

`conftest.py` loads it and hands it out as the fixture ``shown``.
"""

import os
import platform
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import psutil

PACKAGES = ("embedkit", "torch", "torchvision", "dask", "zarr", "numpy", "pillow")
GIB = 2**30


def machine():
    """Return the processor, cores, memory, load and versions: two lines."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else "?"
    load = " ".join(f"{each:.1f}" for each in psutil.getloadavg())
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{_processor()}, {cores} cores, {psutil.virtual_memory().total / GIB:.0f} GiB, "
        f"{platform.system()}; load before {load}\n"
        f"Python {platform.python_version()}, {versions}"
    )


def _processor():
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class Table:
    """A table that is printed row by row, so that long runs can be watched.

    Parameters
    ----------
    out : context manager
        Within which printing is seen: ``capsys.disabled``.
    title : str
        What it is about.
    columns : dict of str to int
        Headers, and how wide each is; the first is set to the left.
    """

    def __init__(self, out, title, columns):
        self._out, self._title, self._columns = out, title, columns
        self._say(f"\n\n{title}\n{machine()}\n", self._line(columns))

    def row(self, *cells):
        """Print a row: as many cells as columns, or fewer, the last of them as it is."""
        widths = list(self._columns.values())
        if len(cells) == len(widths):
            self._say(self._line(cells))
        else:
            head = self._line(cells[:-1])
            self._say(f"{head}  {cells[-1]}")

    def summary(self, *lines):
        """Print what a person may paste elsewhere, the machine named again."""
        rule = "-" * 80
        self._say("", rule, f"SUMMARY: {self._title}", machine(), *lines, rule)

    def _line(self, cells):
        widths = self._columns.values()
        first, *others = zip(map(str, cells), widths, strict=False)
        return "  ".join([first[0].ljust(first[1]), *(c.rjust(w) for c, w in others)])

    def _say(self, *lines):
        with self._out():
            print(*lines, sep="\n", flush=True)


def gib(nbytes):
    """Return bytes in GiB, as text."""
    return f"{nbytes / GIB:.2f}"


def judged(what, met, of, *, wanted):
    """Return how many of a number of runs kept a promise, and whether that is enough."""
    if not of:
        return f"{what}: no run that counts"
    verdict = "met" if met >= wanted * of else "MISSED"
    return f"{what}: {met} of {of} = {met / of:.0%}, wanted {wanted:.0%}: {verdict}"
