"""Marks of blocks that are being computed: what is left of them tells who died where.

A task puts a mark down when it begins a block and takes it away when it ends, however it
ends, unless its process dies. Marks that stay therefore count deaths, whatever runs the
tasks: on a cluster, in the threads of a notebook, and over several runs.
"""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime

from embedkit.files.files import Files
from embedkit.store.commits import PRIVATE
from embedkit.store.schema import Pass

DEATHS = 3
"""Deaths after which a block is left alone for the rest of a run (distributed's own limit
for one task, ``distributed.scheduler.allowed-failures``)."""


ROOM = 0.6
"""The share of its memory up to which a worker does not die for want of it: what a plan
allows, far enough from where Dask stops a worker (0.8) and ends it (0.95)."""


def begin(files: Files, one: Pass, block: int, *, memory: float | None = None) -> str:
    """Mark a block as being computed, and return the mark's name.

    Parameters
    ----------
    files : Files
        The store.
    one : Pass
        The pass.
    block : int
        Which block.
    memory : float, optional
        The share of its memory that this process has needed for the blocks before, where
        there were any.
    """
    name = f"{_folder(one)}/{block}.{uuid.uuid4().hex[:12]}"
    mark = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "memory": memory,
    }
    files.write(name, json.dumps(mark).encode())
    return name


def end(files: Files, name: str) -> None:
    """Take a mark away. Where that fails, what failed before it matters more."""
    with suppress(*files.failures):
        files.delete(name)


def deaths(files: Files, one: Pass) -> dict[int, int]:
    """Return how many marks each block of a pass has; blocks without one are left out."""
    return dict(Counter(_block(name) for name in _marks(files, one)))


def deaths_in(files: Files, one: Pass, block: int) -> list[str]:
    """Return where and when processes died in a block, as text for people."""
    folder = _folder(one)
    marks = [name for name in _marks(files, one) if _block(name) == block]
    return [_told(files, f"{folder}/{name}") for name in marks]


def deaths_of_memory(files: Files, one: Pass, block: int) -> int:
    """Return how many processes may have died in a block because memory ran short.

    Not those that had needed little of theirs for such blocks before: these were sent
    away, or fell with their machine. Of those that had finished none nobody knows; the
    first of them does not count, so that after a single one the block is computed as
    before, to the same bytes.
    """
    folder = _folder(one)
    found = [
        _lacked_memory(files, f"{folder}/{name}")
        for name in _marks(files, one)
        if _block(name) == block
    ]
    return found.count(True) + max(0, found.count(None) - 1)


def _lacked_memory(files: Files, name: str) -> bool | None:
    """Return whether a process may have; None where its mark does not say."""
    try:
        memory = json.loads(files.read(name)).get("memory")
    except (OSError, ValueError, AttributeError):
        return None
    return memory > ROOM if isinstance(memory, int | float) else None


def forget(files: Files, one: Pass) -> None:
    """Delete all marks of a pass. Only the driver may call this."""
    files.delete_tree(_folder(one))


def _folder(one: Pass) -> str:
    return f"{PRIVATE}/attempts/{one.key}"


def _marks(files: Files, one: Pass) -> list[str]:
    """List the marks, but nothing that a file system has put beside them (``.nfs…``)."""
    names = files.names(_folder(one))
    return [name for name in names if name.partition(".")[0].isdecimal()]


def _block(name: str) -> int:
    return int(name.partition(".")[0])


def _told(files: Files, name: str) -> str:
    try:
        mark = json.loads(files.read(name))
        return f"process {mark['pid']} on {mark['host']} at {mark['since']}"
    except (OSError, ValueError, LookupError, TypeError):
        return "a process that left no name"
