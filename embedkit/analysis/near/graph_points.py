"""The points that a neighbor graph is grown on: distinct ones, and which rows they are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from embedkit.analysis.faiss_adapter import Float32s
from embedkit.analysis.ivf_space import Space, parts
from embedkit.analysis.merge import Float64s, Ids
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
    prints = np.empty(len(rows))
    weights = np.random.default_rng(0).standard_normal(spool.shape[1])
    for part in parts(*values.shape, entries=_BLOCK):
        values[part] = space.points(spool.take(rows[part]))
        values[part] += np.float32(0.0)  # -0.0 is 0.0
        # not by BLAS, whose sums depend on where a row stands
        prints[part] = np.einsum("nf,f->n", values[part].astype(np.float64), weights)
    leader = _leaders(values, prints)
    distinct = np.flatnonzero(leader == np.arange(len(rows)))
    of_row = np.searchsorted(distinct, leader)
    if len(distinct) < len(rows):
        values = values[distinct]
    return Points(values, of_row, _members(rows, of_row, len(distinct), k))


def _leaders(values: Float32s, prints: Float64s) -> Ids:
    """Return the place of the first row that is equal to each row."""
    leader = np.arange(len(values))
    order = np.argsort(prints, kind="stable")
    same = np.diff(prints[order]) == 0
    suspects = np.concatenate([same, [False]]) | np.concatenate([[False], same])
    first: dict[bytes, int] = {}
    for at in np.sort(order[suspects[: len(order)]]).tolist():
        print_ = hashlib.blake2b(values[at].tobytes(), digest_size=16).digest()
        leader[at] = first.setdefault(print_, at)
    return leader


def _members(rows: Ids, of_row: Ids, count: int, k: int) -> Ids:
    sizes = np.bincount(of_row, minlength=count)
    members = np.full((count, min(k + 1, int(sizes.max(initial=0)))), -1, np.int64)
    order = np.argsort(of_row, kind="stable")
    starts = np.cumsum(sizes) - sizes
    place = np.arange(len(rows)) - starts[of_row[order]]  # of each row in its group
    kept = place <= k
    members[of_row[order][kept], place[kept]] = rows[order[kept]]
    return members
