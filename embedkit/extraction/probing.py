"""Starts the process that measures, waits for it, and says what became of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import embedkit.errors
from embedkit.errors import EmbedkitError, PlanError
from embedkit.extraction.probe_job import SAID, Findings, ProbeJob
from embedkit.files.files import files_at

_MODULE = "embedkit.extraction.probe"

_PATIENCE = 300.0
"""Seconds beyond those that it is given after which a measuring process is ended: what
cannot be left out takes a while where disks are slow (chosen)."""

NEEDED = ("reserved", "loaded", "pixels", "pixels_held", "forward", "shards")
"""What has to be found for a measurement; a process may die of more than that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """A job, and the network's file with it: nothing else has to be in reach.

    Parameters
    ----------
    job : ProbeJob
        Whose network lies nowhere yet, and whose place may be empty: a temporary folder.
    network : bytes
        The network's file.
    name : str
        What the network is called, for messages.
    """

    job: ProbeJob
    network: bytes
    name: str


def run_errand(errand: Errand) -> dict[str, list[Any]]:
    """Measure in a process of its own, on the machine where this is called.

    Parameters
    ----------
    errand : Errand
        What is to be measured.

    Returns
    -------
    dict of str to list
        What was found, by name; see the modules ``embedkit.extraction.probe_*``.

    Raises
    ------
    PlanError
        When the process ended before all that is needed was found.
    EmbedkitError
        What the process itself raised.
    """
    with TemporaryDirectory(prefix="embedkit-measured-") as temporary:
        folder = Path(temporary)
        spooled = replace(errand.job.network, url=files_at(folder).url)
        (folder / spooled.name).write_bytes(errand.network)
        place = errand.job.place or str(folder / "place")
        replace(errand.job, network=spooled, place=place).write(folder)
        ended = _run(folder, seconds=_PATIENCE + errand.job.seconds)
        found = Findings(folder).read()
        if "error" in found:
            raise _raised(*found["error"][0])
        if any(name not in found for name in NEEDED):
            raise PlanError(_told(errand, found, ended, folder))
    return found


def _run(folder: Path, *, seconds: float) -> str:
    """Return how the process ended, in words; empty where it went well."""
    with (folder / SAID).open("wb") as said:
        try:
            status = subprocess.run(
                [sys.executable, "-P", "-m", _MODULE, str(folder)],
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
    """Return that of this process, with all the places it imports from."""
    places = [str(Path(each).absolute()) for each in sys.path]  # "" is the current one
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places)}


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
        "forward": f"a forward pass of {errand.job.batches[0]} image",
        "shards": "writing a block",
    }[lacking]
    lines = (folder / SAID).read_text("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return (
        f"network {errand.name!r} cannot be measured: the process that did it {ended} "
        f"while {doing}{f' ({last[:200]})' if last else ''}: give workers more memory, "
        "or plan without measuring"
    )
