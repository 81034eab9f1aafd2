"""Starts a process that measures, waits for it, and says what became of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dask.config

import embedkit.errors
from embedkit.errors import EmbedkitError, PlanError
from embedkit.extraction.measure.probe_job import JOB, SAID, Findings

_PROBE = "embedkit.extraction.measure.probe"
_REHEARSAL = "embedkit.extraction.measure.rehearsal"

_PATIENCE = 300.0
"""Seconds beyond those that it is given after which a measuring process is ended: what
cannot be left out takes a while where disks are slow (chosen)."""

NEEDED = ("reserved", "loaded", "pixels", "pixels_held", "forward", "shards")
"""What has to be found for a measurement; a process may die of more than that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """A job, and the network's file: nothing else has to be in reach.

    Parameters
    ----------
    job : bytes
        From `Tried.pickled`.
    file : str
        The path of the network's file.
    network : bytes
        What is in it, for machines that do not see it. Elsewhere it is empty: a large
        network would fill the memory of a small worker, which only passes it on.
    name : str
        What the network is called, for messages.
    seconds : float
        As in the job.
    """

    job: bytes
    file: str
    network: bytes
    name: str
    seconds: float


def run_errand(errand: Errand) -> dict[str, list[Any]]:
    """Measure in a process of its own, on the machine where this is called.

    Parameters
    ----------
    errand : Errand
        What is to be measured.

    Returns
    -------
    dict of str to list
        What was found, by name; see the modules ``embedkit.extraction.measure.probe_*``.

    Raises
    ------
    PlanError
        When the process ended before all that is needed was found.
    EmbedkitError
        What the process itself raised.
    """
    with _at_work(errand, _PROBE) as (folder, ended, found):
        if "error" in found:
            raise _raised(*found["error"][0])
        if any(name not in found for name in NEEDED):
            raise PlanError(_told(errand, found, ended, folder))
    return found


def rehearse_errand(errand: Errand) -> list[list[float]]:
    """Compute blocks in a process of its own, on the machine where this is called.

    Parameters
    ----------
    errand : Errand
        What is to be computed.

    Returns
    -------
    list of [float, float]
        Of each thread its images and the seconds that they took, without those of the
        beginning; empty where the process ended before it knew.
    """
    with _at_work(errand, _REHEARSAL) as (_, _, found):
        return found.get("rehearsed", [])


@contextmanager
def _at_work(
    errand: Errand, module: str
) -> Iterator[tuple[Path, str, dict[str, list[Any]]]]:
    """Yield the folder of a process that has ended, how it did, and what it found."""
    with TemporaryDirectory(prefix="embedkit-measured-") as temporary:
        folder = Path(temporary)
        _bring(errand, folder / Path(errand.file).name)
        (folder / JOB).write_bytes(errand.job)
        ended = _run(module, folder, seconds=_PATIENCE + errand.seconds)
        yield folder, ended, Findings(folder).read()


def _bring(errand: Errand, to: Path) -> None:
    """Put the network's file where the process looks for it."""
    if errand.network:
        to.write_bytes(errand.network)
    else:
        shutil.copyfile(errand.file, to)


def _run(module: str, folder: Path, *, seconds: float) -> str:
    """Return how the process ended, in words; empty where it went well."""
    with (folder / SAID).open("wb") as said:
        try:
            status = subprocess.run(
                [sys.executable, "-P", "-m", module, str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env=_environment(),
                timeout=seconds,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return f"had not ended after {seconds:.0f} s"
    if status < 0:
        return f"was ended by signal {-status}" + (
            ", as when memory runs out" if status == -9 else ""
        )
    return f"ended with status {status}" if status else ""


def _environment() -> dict[str, str]:
    """Return that of a worker process which this one would start.

    It imports from the same places, and memory is given back as Dask's nannies have it:
    how much an allocator keeps makes a difference of some hundred megabytes.
    """
    places = [str(Path(each).absolute()) for each in sys.path]  # "" is the current one
    given = dask.config.get("distributed.nanny.pre-spawn-environ", {})
    worker = {name: str(value) for name, value in given.items()}
    return {**worker, **os.environ, "PYTHONPATH": os.pathsep.join(places)}


def _raised(kind: str, message: str) -> EmbedkitError:
    """Return the error that the process has told."""
    found: type[EmbedkitError] = getattr(embedkit.errors, kind)
    return found(message)


def _told(errand: Errand, found: Mapping[str, object], ended: str, folder: Path) -> str:
    lacking = next(name for name in NEEDED if name not in found)
    doing = {
        "reserved": "starting",
        "loaded": "loading the network",
        "pixels": "reading images",
        "pixels_held": "reading images",
        "forward": "the first forward pass",
        "shards": "writing a block",
    }[lacking]
    lines = (folder / SAID).read_text("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return (
        f"network {errand.name!r} cannot be measured: the process that did it {ended} "
        f"while {doing}{f' ({last[:200]})' if last else ''}: give workers more memory, "
        "or plan without measuring"
    )
