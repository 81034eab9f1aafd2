"""Candidates measured in float64, ordered by (distance, row number), cut to `k`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from embedkit.analysis.exact.search_rows import Side, loaded
from embedkit.analysis.pair_distances import Metric, lift, pair_distances
from embedkit.analysis.spool import Spool

Float64s: TypeAlias = npt.NDArray[np.float64]
Ids: TypeAlias = npt.NDArray[np.int64]

_FETCH = 2**24  # entries of candidates read together: each row serves many queries
_BLOCK = 2**17  # float64 entries of pairs measured together: 1 MiB stays in the cache


def near_dtype(k: int) -> np.dtype[Any]:
    """Return the type of a finished row.

    Parameters
    ----------
    k : int
        Neighbors.

    Returns
    -------
    dtype
        ``ids``, int64, -1 for none; ``near``, float64, infinite for none; ``sure``, bool,
        whether the product in float32 was proof.
    """
    return np.dtype([("ids", "<i8", (k,)), ("near", "<f8", (k,)), ("sure", "?")])


def nothing(rows: int, k: int) -> npt.NDArray[Any]:
    """Return finished rows without neighbors, shape (rows,)."""
    out = np.empty(rows, near_dtype(k))
    out["ids"], out["near"], out["sure"] = -1, np.inf, False
    return out


def ranked(
    ask: Side,
    base: Side,
    ask_ids: Ids,
    *,
    row: npt.NDArray[np.intp],
    ids: Ids,
    k: int,
    alone: bool,
) -> npt.NDArray[Any]:
    """Rank the candidates of some queries.

    Parameters
    ----------
    ask, base : Side
        Where queries and candidates are.
    ask_ids : ndarray of int64, shape (M,)
        Row numbers of the queries, ascending.
    row : ndarray of intp, shape (P,)
        Which query a candidate belongs to, ascending.
    ids : ndarray of int64, shape (P,)
        Row number of each candidate.
    k : int
        Neighbors to keep.
    alone : bool
        Both sides are the same rows: a query is not its own neighbor.

    Returns
    -------
    ndarray of `near_dtype`, shape (M,)
    """
    out = nothing(len(ask_ids), k)
    out["sure"] = True
    row, ids = _with_zeros(row, ids, _zeros(base), len(ask_ids))
    for first, last in _blocks(row, len(ask_ids), ask.spool.shape[1]):
        start, stop = np.searchsorted(row, [first, last])
        here, there = row[start:stop] - first, ids[start:stop]
        near = _measured(ask, base, ask_ids[first:last], here, there)
        if alone:
            near[there == ask_ids[first:last][here]] = np.inf
        _place(out[first:last], here, there, near)
    return out


def _with_zeros(
    row: npt.NDArray[np.intp], ids: Ids, zeros: Ids, queries: int
) -> tuple[npt.NDArray[np.intp], Ids]:
    """Add the first zero rows to the candidates of all: under cosine all are at 1 of them."""
    if not len(zeros):
        return row, ids
    row = np.concatenate([row, np.repeat(np.arange(queries), len(zeros))])
    ids = np.concatenate([ids, np.tile(zeros, queries)])
    order = np.argsort(row, kind="stable")
    return row[order], ids[order]


def _zeros(base: Side) -> Ids:
    return loaded(Path(base.folder) / "zeros.npy")


def _blocks(
    row: npt.NDArray[np.intp], queries: int, features: int
) -> Iterator[tuple[int, int]]:
    """Cut the queries so that a block of pairs fits into memory."""
    pairs = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=queries))])
    first = 0
    while first < queries:
        limit = pairs[first] + max(1, _FETCH // features)
        last = int(np.searchsorted(pairs, limit, side="right")) - 1
        last = min(max(last, first + 1), queries)
        yield first, last
        first = last


def _measured(
    ask: Side, base: Side, ask_ids: Ids, row: npt.NDArray[np.intp], ids: Ids
) -> Float64s:
    """Measure each pair by itself; each row is read once."""
    queries = lift(ask.spool.take(ask_ids), ask.metric)
    distinct, at = np.unique(ids, return_inverse=True)
    others = base.spool.take(distinct)
    height = max(1, _BLOCK // ask.spool.shape[1])
    near = np.empty(len(ids))
    for start in range(0, len(ids), height):
        part = slice(start, start + height)
        lifted = lift(others[at[part]], ask.metric)
        near[part] = pair_distances(queries[row[part]], lifted, ask.metric)
    return near


def _place(
    out: npt.NDArray[Any], row: npt.NDArray[np.intp], ids: Ids, near: Float64s
) -> None:
    """Write the first `k` of each query by (distance, row number)."""
    found = np.flatnonzero(np.isfinite(near))
    order = found[np.lexsort((ids[found], near[found], row[found]))]
    count = np.bincount(row[order], minlength=len(out))
    rank = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
    kept = rank < out["ids"].shape[1]
    order, rank = order[kept], rank[kept]
    out["ids"][row[order], rank] = ids[order]
    out["near"][row[order], rank] = near[order]


def ranked_directly(
    ask: Side, base: Side, ask_id: int, *, k: int, alone: bool
) -> npt.NDArray[Any]:
    """Measure one query against every kept row: where no product can tell them apart.

    Returns
    -------
    ndarray of `near_dtype`, shape (1,)
        Not sure.
    """
    out = nothing(1, k)
    query = np.array([ask_id])
    height = max(1, _BLOCK // ask.spool.shape[1])
    best = np.empty(0, np.int64)
    for start in range(0, base.size, height):
        ids = base.ids(start, min(start + height, base.size))
        ids = np.unique(np.concatenate([best, ids]))
        row = np.zeros(len(ids), np.intp)
        out = ranked(ask, base, query, row=row, ids=ids, k=k, alone=alone)
        best = out["ids"][0][out["ids"][0] >= 0]
        best = np.setdiff1d(best, _zeros(base))  # which `ranked` adds every time
    out["sure"] = False
    return out


def copies_of(
    first: npt.NDArray[Any], *, ids: Ids, itself: Float64s
) -> npt.NDArray[Any]:
    """Return the neighbors of copies: those of their first, and that one itself.

    Parameters
    ----------
    first : ndarray of `near_dtype`, shape (D,)
        Finished row of the first of the crowd, for each copy.
    ids : ndarray of int64, shape (D,)
        Row number of that first.
    itself : ndarray of float64, shape (D,)
        Its distance to a copy.

    Returns
    -------
    ndarray of `near_dtype`, shape (D,)
    """
    out = first.copy()
    near = np.concatenate([first["near"], itself[:, None]], axis=1)
    every = np.concatenate([first["ids"], ids[:, None]], axis=1)
    order = np.lexsort((every, near), axis=-1)[:, :-1]
    out["near"] = np.take_along_axis(near, order, axis=1)
    out["ids"] = np.take_along_axis(every, order, axis=1)
    return out


def self_distances(spool: Spool, ids: Ids, metric: Metric) -> Float64s:
    """Measure rows against their own copies, shape (M,)."""
    if metric != "inner_product":
        return np.zeros(len(ids))
    distinct, at = np.unique(ids, return_inverse=True)
    rows = lift(spool.take(distinct), metric)
    return pair_distances(rows, rows, metric)[at]
