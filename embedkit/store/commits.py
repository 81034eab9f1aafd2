"""Commit records: one small JSON file per finished block.

A record is the last thing a task writes and the first thing it looks for, so a block
either counts whole or not at all. Records lie in ``_embedkit/commits/<thousand>/`` of
the store, a thousand to a folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedkit.files import whole_file

PRIVATE = "_embedkit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What is known of one finished block.

    Parameters
    ----------
    block : int
        Its number.
    identity : str
        Identity of the store it was computed for.
    start, stop : int
        Its rows, half open.
    failures : mapping of str to str
        Image id to reason, for the images that could not be read.
    crc32 : mapping of str to int
        Checksum of every layer's bytes, C order, before compression.
    seconds : mapping of str to float
        ``prepare`` (decode and transform, waiting for it), ``forward``, ``write``,
        ``total``: wall-clock seconds in the task.
    device : str
        Where the forward ran, for instance ``cpu``.
    """

    block: int
    identity: str
    start: int
    stop: int
    failures: Mapping[str, str]
    crc32: Mapping[str, int]
    seconds: Mapping[str, float]
    device: str


def commit_path(store: str | Path, block: int) -> Path:
    """Return where the record of `block` lies."""
    return Path(store, PRIVATE, "commits", str(block // 1000), f"{block}.json")


def write_commit(store: str | Path, commit: Commit) -> None:
    """Write the record so that it is there whole, on disk, or not at all."""
    path = commit_path(store, commit.block)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(json.dumps(asdict(commit), sort_keys=True).encode())


def read_commit(store: str | Path, block: int, *, identity: str) -> Commit | None:
    """Return the record of `block`, or None where it is not validly committed.

    A record that cannot be parsed or belongs to another identity does not count: the
    block is computed again.
    """
    try:
        found: dict[str, Any] = json.loads(commit_path(store, block).read_bytes())
        commit = Commit(**found)
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None
    return commit if (commit.identity, commit.block) == (identity, block) else None


def read_commits(
    store: str | Path, n_blocks: int, *, identity: str
) -> dict[int, Commit]:
    """Return every valid record by block number, in order."""
    folders = Path(store, PRIVATE, "commits")
    numbers = sorted(
        int(file.stem)
        for file in folders.glob("*/*.json")
        if file.stem.isdigit() and int(file.stem) < n_blocks
    )
    found = ((each, read_commit(store, each, identity=identity)) for each in numbers)
    return {number: commit for number, commit in found if commit is not None}
