"""The points that a neighbor graph is grown on: distinct ones, and which rows they are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from embedkit.analysis.faiss_adapter import Float32s
from embedkit.analysis.ivf_space import Space, parts
from embedkit.analysis.merge import Ids
from embedkit.analysis.spool import Spool

_BLOCK = 2**22  # entries lifted together: 32 MiB of float64


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Rows as points of the common space, each point once.

    Attributes
    ----------
    values : ndarray of float32, shape (P, F)
    of_row : ndarray of int64, shape (M,)
        Point of each row that was given.
    members : ndarray of int64, shape (P, at most k + 1)
        The first row numbers of each point, ascending, -1 behind the last. Nobody needs
        more: `k` equal rows of lower number come first, even without the query.
    """

    values: Float32s
    of_row: Ids
    members: Ids


def points_of(spool: Spool, rows: Ids, *, space: Space, k: int) -> Points:
    """Lift rows into the common space and drop the copies.

    A crowd of copies would fill the lists of all around it, and neighbors of neighbors
    would lead nowhere else.

    Parameters
    ----------
    spool : Spool
        Rows on disk, shape (N, F).
    rows : ndarray of int64, shape (M,)
        Which of them, ascending; finite.
    space : Space
        Of a metric under which rows are their own queries.
    k : int
        Neighbors that are wanted.
    """
    values = np.empty((len(rows), spool.shape[1]), np.float32)
    first: dict[bytes, int] = {}
    of_row = np.empty(len(rows), np.int64)
    for part in parts(*values.shape, entries=_BLOCK):
        lifted = space.points(spool.take(rows[part])).astype(np.float32)
        lifted += np.float32(0.0)  # -0.0 is 0.0
        for at, point in enumerate(lifted, part.start):
            print_ = hashlib.blake2b(point.tobytes(), digest_size=16).digest()
            number = first.setdefault(print_, len(first))
            of_row[at] = number
            values[number] = point  # never behind `at`
    return Points(values[: len(first)], of_row, _members(rows, of_row, len(first), k))


def _members(rows: Ids, of_row: Ids, count: int, k: int) -> Ids:
    sizes = np.bincount(of_row, minlength=count)
    members = np.full((count, min(k + 1, int(sizes.max(initial=0)))), -1, np.int64)
    order = np.argsort(of_row, kind="stable")
    starts = np.cumsum(sizes) - sizes
    place = np.arange(len(rows)) - starts[of_row[order]]  # of each row in its group
    kept = place <= k
    members[of_row[order][kept], place[kept]] = rows[order[kept]]
    return members
