"""What processes that measure are told, and where they put what they find."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import cloudpickle

from embedkit.errors import InputError
from embedkit.files.files import files_at
from embedkit.images.source import Source
from embedkit.networks.backends import Backend
from embedkit.networks.spool import Spooled
from embedkit.store.schema import LayerSpec

JOB = "job.pkl"
FOUND = "found.jsonl"
SAID = "said.txt"
"""Everything that the process, its libraries or a user's transform print."""

_UNFIT = (pickle.PicklingError, TypeError, AttributeError, ValueError, RuntimeError)
"""What pickling raises of objects that cannot be pickled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One network, and images to try it with in a process of its own.

    Parameters
    ----------
    network : Spooled
        Which network. Its file lies beside the job.
    layers : tuple of LayerSpec
        What is computed and stored.
    backend : str
        What executes it.
    source : Source
        Reads pixels.
    uris : tuple of str
        The images to measure with.
    place : str
        Where shards may be written, for `files_at`; the one who asks deletes it. Empty
        for the job's own folder.
    seconds : float
        After which only what cannot be left out is done.
    """

    network: Spooled
    layers: tuple[LayerSpec, ...]
    backend: Backend
    source: Source
    uris: tuple[str, ...]
    place: str
    seconds: float

    def pickled(self) -> bytes:
        """Return the job as bytes. Classes of a notebook travel by value.

        Raises
        ------
        InputError
            When the images cannot be sent to another process.
        """
        try:
            data: bytes = cloudpickle.dumps(self)
        except _UNFIT as error:
            message = (
                "images cannot be sent to the process that measures "
                f"({type(error).__name__}: {error}): give a dataset without open files, "
                "locks and connections"
            )
            raise InputError(message) from error
        return data

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the job in a folder."""
        found: Self = pickle.loads((folder / JOB).read_bytes())
        return replace(
            found,
            network=replace(found.network, url=files_at(folder).url),
            place=found.place or str(folder / "place"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeJob(Tried):
    """What is measured part by part.

    Parameters
    ----------
    batches : tuple of int
        Images per forward pass, in ascending order; the first two are always measured.
    threads : tuple of int
        How many of them are tried inside one forward pass; the first is 1.
    memory : int
        Bytes beyond which no larger batch is tried.
    """

    batches: tuple[int, ...]
    threads: tuple[int, ...]
    memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsalJob(Tried):
    """What is measured as a whole: blocks, by the code of a run.

    Parameters
    ----------
    batch, block, threads, decode_threads : int
        As in `embedkit.planning.costs.Layout`.
    inside : int
        Threads inside a forward pass.
    memory : int
        Bytes that all processes on the machine need that do this at once: where they are
        not free, none of them begins.
    """

    batch: int
    block: int
    threads: int
    decode_threads: int
    inside: int
    memory: int


class Findings:
    """What was found so far, line by line on disk: a process that dies has told it.

    Parameters
    ----------
    folder : Path
        That of the job.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FOUND

    def tell(self, name: str, value: Any) -> None:
        """Add a line: a name, and any value that JSON can hold."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([name, value]) + "\n")

    def read(self) -> dict[str, list[Any]]:
        """Return all values by name, in their order; a line that was cut off is none."""
        found: dict[str, list[Any]] = {}
        if not self._path.exists():
            return found
        for line in self._path.read_text("utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                name, value = json.loads(line)
                found.setdefault(name, []).append(value)
        return found
