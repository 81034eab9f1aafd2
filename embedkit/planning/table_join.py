"""How images come by what the table says of them: the whole of it, or chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from embedkit.planning.grid import BlockGrid
from embedkit.planning.units import told_bytes
from embedkit.planning.written import TABLE_ROWS

Join: TypeAlias = Literal["broadcast", "partitioned"]

BROADCAST_MOST: Final = 16 * 2**20
"""Bytes of the table that every worker may hold without a plan having to count them
(chosen; Vista, which keeps tables in the memory of its executors, allows 100 MB)."""


@dataclass(frozen=True, slots=True)
class JoinChoice:
    """How the table is joined, and why.

    Parameters
    ----------
    join : {"broadcast", "partitioned"}
        Every worker reads all of the table once and keeps it; or each task reads the
        chunks that its rows are in.
    why : str
        One sentence for people, with the numbers.
    """

    join: Join
    why: str


def choose_join(
    *, n_images: int, row_bytes: float, block: int, n_workers: int = 1
) -> JoinChoice:
    """Return how the columns that tasks need are joined to their images.

    Parameters
    ----------
    n_images : int
        Rows of the table.
    row_bytes : float
        Bytes of one row in memory, of those columns.
    block : int
        Rows of a task.
    n_workers : int, default 1
        Processes that the tasks are spread over.

    Returns
    -------
    JoinChoice
        What reads fewer rows in a worker, as long as it may hold the table. A chunk of
        the table is decoded whole for any row of it: with small blocks the same one is
        decoded again and again.

    References
    ----------
    S. Nakandala and A. Kumar, "Vista: Optimized System for Declarative Feature Transfer
    from Deep CNNs at Scale", SIGMOD 2020, section 4.3 (the choice between a shuffle and
    a broadcast join by the size of the table).
    """
    whole = n_images * row_bytes
    tasks = -(-len(BlockGrid(n_images=n_images, block=block)) // n_workers)
    chunk = min(TABLE_ROWS, n_images)
    apart = tasks * _chunks(block, n_images) * chunk
    table = f"a table of {told_bytes(whole)}"
    if whole > BROADCAST_MOST:
        why = f"{table} is more than the {told_bytes(BROADCAST_MOST)} a worker may hold"
        return JoinChoice("partitioned", why)
    if apart <= n_images:
        why = (
            f"chunk by chunk a worker reads {apart:,} rows of {table}, not {n_images:,}"
        )
        return JoinChoice("partitioned", why)
    why = f"a worker reads {n_images:,} rows of {table} once, not {apart:,} in parts"
    return JoinChoice("broadcast", why)


def _chunks(block: int, n_images: int) -> int:
    """Return the chunks of the table that a block's rows are in, at most."""
    return -(-min(block, n_images) // TABLE_ROWS)
