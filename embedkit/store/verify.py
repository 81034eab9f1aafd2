"""Proof of what a store holds: every block against the record that vouches for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pandas as pd
from dask.base import compute
from dask.delayed import delayed

from embedkit.files.files import Files, files_at
from embedkit.store import arrays
from embedkit.store.blocks import checksums
from embedkit.store.commits import Commit, read_commits
from embedkit.store.ids import digest
from embedkit.store.layout import read_schema
from embedkit.store.schema import Pass, StoreSchema

_WINDOW = 256
"""Blocks of one Dask graph: few enough to forget, enough to keep a cluster busy."""

_COLUMNS = ("network", "pass", "layer", "block", "start", "stop", "problem")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a check of a store found.

    Parameters
    ----------
    blocks : int
        Committed blocks that were checked, over all passes.
    pending : int
        Blocks that are not committed: no damage, but not there.
    nbytes : int
        Bytes that were checked, uncompressed.
    damage : DataFrame
        A row for every array of a block that is not what its record says: ``network``
        and ``pass``, ``layer`` (``content`` for the hashes of the image files, ``image`` for the
        ids), ``block``, its rows ``start`` and ``stop``, and the ``problem``.
    sampled : int
        Rows that were computed again.
    max_error : float
        Largest difference found in these, relative to the largest magnitude of the row.
    repaired : int
        Blocks that were computed again because they were damaged.
    """

    blocks: int
    pending: int
    nbytes: int
    damage: pd.DataFrame = field(compare=False)
    sampled: int = 0
    max_error: float = 0.0
    repaired: int = 0

    @property
    def ok(self) -> bool:
        """Whether everything that is committed is as it was written."""
        return self.damage.empty

    def __repr__(self) -> str:
        bad = self.damage[["pass", "block"]].drop_duplicates()
        good = "all as written" if self.blocks else "nothing to check"
        state = good if self.ok else f"{len(bad)} damaged"
        parts = [f"{self.blocks} blocks ({self.nbytes / 2**20:,.1f} MiB): {state}"]
        if self.pending:
            parts.append(f"{self.pending} not written yet")
        if self.sampled:
            parts.append(
                f"{self.sampled} rows computed again, largest relative difference "
                f"{self.max_error:.1e}"
            )
        if self.repaired:
            parts.append(f"{self.repaired} repaired")
        return "; ".join(parts)


def verify_bytes(files: Files, schema: StoreSchema) -> Verification:
    """Check every committed block of a store; see `Store.verify`."""
    commits = {
        one.identity: read_commits(files, one, schema.grid(one))
        for one in schema.passes
    }
    tasks = (
        delayed(check_block, pure=False)(files.url, commit.to_json())
        for known in commits.values()
        for commit in known.values()
    )
    rows = [
        {"network": one.network, "pass": one.key, **found}
        for one, found in _labelled(schema, _computed(tasks))
    ]
    checked = sum(len(known) for known in commits.values())
    return Verification(
        blocks=checked,
        pending=sum(len(schema.grid(one)) for one in schema.passes) - checked,
        nbytes=sum(
            (commit.stop - commit.start) * one.row_bytes
            for one in schema.passes
            for commit in commits[one.identity].values()
        ),
        damage=pd.DataFrame(rows, columns=list(_COLUMNS)),
    )


def _computed(tasks: Iterator[Any]) -> Iterator[dict[str, Any]]:
    while window := list(islice(tasks, _WINDOW)):
        for found in compute(*window):
            yield from found


def _labelled(
    schema: StoreSchema, found: Iterator[dict[str, Any]]
) -> Iterator[tuple[Pass, dict[str, Any]]]:
    for each in found:
        identity = each.pop("identity")
        yield schema.by_identity(identity), each


def check_block(url: str, record: bytes) -> list[dict[str, Any]]:
    """Compare one block with its record.

    Parameters
    ----------
    url : str
        The store.
    record : bytes
        The commit record, as written.

    Returns
    -------
    list of dict
        ``identity`` of the pass, ``layer``, ``block``, ``start``, ``stop`` and
        ``problem`` of every array that is damaged.
    """
    commit = Commit.from_json(record)
    files = files_at(url)
    schema = read_schema(files)
    one = schema.by_identity(commit.identity)
    grid = schema.grid(one)
    problems = {
        name: _problem(found, commit.crc32.get(name))
        for name, found in checksums(files, one, grid, commit.block)
    }
    problems["image"] = _ids_problem(files, commit)
    return [
        {
            "identity": commit.identity,
            "layer": name,
            "block": commit.block,
            "start": commit.start,
            "stop": commit.stop,
            "problem": problem,
        }
        for name, problem in problems.items()
        if problem
    ]


def _problem(found: int | str, recorded: int | None) -> str:
    if isinstance(found, str):
        return found
    return "" if found == recorded else "changed: its checksum is another"


def _ids_problem(files: Files, commit: Commit) -> str:
    damage: tuple[type[Exception], ...] = (*arrays.DAMAGE, *files.failures)
    try:
        ids = arrays.read_text(files, "image", rows=slice(commit.start, commit.stop))
    except damage as error:
        return f"unreadable ({type(error).__name__})"
    return "" if digest(ids) == commit.ids else "changed: other images stand there"
