"""Exact nearest rows: FAISS proposes in float32, float64 decides, a bound certifies.

For all but small searches FAISS calls BLAS and expands |q-y|² into |q|² + |y|² - 2 q·y,
which loses near-duplicates when norms are large. So rows are centred first, more
candidates than needed are fetched, all of them are measured again in float64, and a query
counts as done only if no row outside of its candidates can be as near as its last
neighbor. Every other query is redone directly, equal ones together.

The result is a function of each pair of rows alone, hence of nothing else: not of the
tiling, the order of summation in BLAS, or the rows around.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import faiss
import numpy as np
import numpy.typing as npt

from embedkit.analysis.float32_bounds import inner_product_floor, squared_floor
from embedkit.analysis.rows import usable_rows

Metric: TypeAlias = Literal["euclidean", "cosine", "inner_product"]
Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Float64s: TypeAlias = npt.NDArray[np.float64]
Ids: TypeAlias = npt.NDArray[np.int64]

_BLOCK = 2**22  # float64 entries converted together: 32 MiB
_SPARE = 16  # candidates beyond k + k/2: groups of near copies are rarely larger


def search(
    queries: Floats, database: Floats, *, query_ids: Ids, k: int, metric: Metric
) -> tuple[Float64s, Ids]:
    """Find the `k` nearest rows of `database` for each query, itself excluded.

    Parameters
    ----------
    queries : ndarray, shape (Q, F), floating
        Rows to search for.
    database : ndarray, shape (N, F), floating
        Rows to search among. A row with a NaN or an infinity is nobody's neighbor.
    query_ids : ndarray of int64, shape (Q,)
        Row number of each query in `database`, -1 if it is not there. Excludes the query
        by number, since rounding does not always put it first.
    k : int
        Neighbors per query.
    metric : {"euclidean", "cosine", "inner_product"}
        ``|q-y|``; ``1 - cos(q, y)``, where a zero row has cosine 0 to everything; or
        ``-q·y``, which orders like a distance but is none.

    Returns
    -------
    distances : ndarray of float64, shape (Q, k)
        Ascending; NaN where fewer than `k` rows exist or the query is not finite.
    ids : ndarray of int64, shape (Q, k)
        Row numbers, -1 where `distances` is NaN. Equal distances: lower number first.

    References
    ----------
    Johnson, Douze, Jégou (2019), Billion-scale similarity search with GPUs, section 4.
    """
    distances = np.full((len(queries), k), np.nan)
    ids = np.full((len(queries), k), -1, dtype=np.int64)
    rows = _without_crowds(database, np.flatnonzero(usable_rows(database)), k)
    wanted = np.flatnonzero(usable_rows(queries))
    if len(rows) and len(wanted):
        queries, query_ids = queries[wanted], query_ids[wanted]
        near, found, floor = _propose(queries, database, rows, query_ids, k, metric)
        unsure = np.flatnonzero(~(floor > near[:, -1]) & (floor != np.inf))
        if len(unsure):
            near[unsure], found[unsure] = _redo(
                queries[unsure], database, rows, query_ids[unsure], k, metric
            )
        distances[wanted] = np.where(found >= 0, near, np.nan)
        ids[wanted] = found
    return distances, ids


def _propose(
    queries: Floats, database: Floats, rows: Ids, query_ids: Ids, k: int, metric: Metric
) -> tuple[Float64s, Ids, Float64s]:
    """Rank the candidates of FAISS; return also what no other row can be nearer than."""
    zeros = rows[:0]
    if (
        metric == "cosine"
    ):  # zero rows are at distance 1 of all: the first of them suffice
        null = _zero_rows(database, rows)
        rows, zeros = rows[~null], rows[null][: k + 1]
    candidates, floor = _candidates(queries, database, rows, k, metric)
    tail = np.broadcast_to(zeros, (len(queries), len(zeros)))
    candidates = np.concatenate([candidates, tail], axis=1)
    return *_rank(queries, database, candidates, query_ids, k, metric), floor


def _redo(
    queries: Floats, database: Floats, rows: Ids, query_ids: Ids, k: int, metric: Metric
) -> tuple[Float64s, Ids]:
    """Rank all rows for the queries without a certificate.

    Many may be equal, as dead units and black frames are: each distinct one is ranked
    once, one place further than `k` since some of its copies find themselves.
    """
    near = np.empty((len(queries), k))
    found = np.empty((len(queries), k), np.int64)
    # Under cosine a zero query is at distance 1 of all: their numbers decide.
    alike = ~queries.any(axis=1) if metric == "cosine" else np.zeros(len(queries), bool)
    first = np.broadcast_to(rows[: k + 1], (int(alike.sum()), len(rows[: k + 1])))
    if alike.any():
        near[alike], found[alike] = _rank(
            queries[alike], database, first, query_ids[alike], k, metric
        )
    others = np.flatnonzero(~alike)
    distinct, group = np.unique(queries[others], axis=0, return_inverse=True)
    for number, query in enumerate(distinct):
        members = others[group == number]
        ranked = _rank(query[None], database, rows[None], np.array([-1]), k + 1, metric)
        near[members], found[members] = _without_itself(*ranked, query_ids[members])
    return near, found


def _without_itself(near: Float64s, found: Ids, query_ids: Ids) -> tuple[Float64s, Ids]:
    """Leave each query out of one ranking (1, K+1) shared by all, else its last place."""
    itself = found == query_ids[:, None]  # (M, K+1)
    kept = np.argsort(itself, axis=1, kind="stable")[:, :-1]
    return near[0, kept], found[0, kept]


def _candidates(
    queries: Floats, database: Floats, rows: Ids, k: int, metric: Metric
) -> tuple[Ids, Float64s]:
    """Fetch more than `k` near rows in float32, with a floor under the distance of the rest."""
    fetch = min(len(rows), k + 1 + k // 2 + _SPARE)
    if not fetch:
        return np.empty((len(queries), 0), np.int64), np.full(len(queries), np.inf)
    center = _mean(database, rows, metric)  # (F,)
    shift = np.zeros_like(center) if metric == "inner_product" else center
    ask = _float32(queries, np.arange(len(queries)), shift, metric)  # (Q, F)
    base = _float32(database, rows, center, metric)  # (N, F)
    kind = faiss.METRIC_INNER_PRODUCT if metric == "inner_product" else faiss.METRIC_L2
    scores, places = faiss.knn(ask, base, fetch, metric=kind)  # (Q, fetch)
    if metric == "inner_product":
        floor = inner_product_floor(base, scores[:, -1], queries, center)
    else:
        floor = squared_floor(ask, base, scores[:, -1])
        floor = floor / 2 if metric == "cosine" else np.sqrt(np.maximum(floor, 0))
    if fetch == len(rows):
        floor = np.full(len(queries), np.inf)
    lost = (places < 0).any(axis=1) | np.isnan(floor)  # float32 overflowed
    return np.where(places < 0, -1, rows[places]), np.where(lost, -np.inf, floor)


def _rank(
    queries: Floats,
    database: Floats,
    candidates: Ids,
    query_ids: Ids,
    k: int,
    metric: Metric,
) -> tuple[Float64s, Ids]:
    """Order candidates by (distance in float64, row number) and cut to `k`."""
    distances = np.stack(
        [
            _distances(query, database, ids, metric)
            for query, ids in zip(queries, candidates, strict=False)
        ]
    )  # (Q, C)
    distances[(candidates < 0) | (candidates == query_ids[:, None])] = np.inf
    order = np.lexsort((candidates, distances), axis=-1)[:, :k]
    near = np.full((len(queries), k), np.inf)
    ids = np.full((len(queries), k), -1, dtype=np.int64)
    near[:, : order.shape[1]] = np.take_along_axis(distances, order, axis=1)
    ids[:, : order.shape[1]] = np.take_along_axis(candidates, order, axis=1)
    return near, np.where(np.isinf(near), -1, ids)


def _distances(query: Floats, database: Floats, ids: Ids, metric: Metric) -> Float64s:
    """Measure one query against the rows `ids`, each pair by itself."""
    origin = _lift(query[None], metric)  # (1, F)
    parts = [_pairs(origin, rows, metric) for _, rows in _lifted(database, ids, metric)]
    return np.concatenate([np.empty(0), *parts])


def _pairs(query: Float64s, rows: Float64s, metric: Metric) -> Float64s:
    """Measure one lifted query (1, F) against lifted rows (M, F)."""
    if metric == "inner_product":
        return np.asarray(-np.sum(rows * query, axis=1))
    gap = rows - query
    squared: Float64s = np.sum(gap * gap, axis=1)  # (M,)
    if metric == "euclidean":
        return np.asarray(np.sqrt(squared))
    # 1 - cos = |u-v|²/2 for unit rows: exactly 0 for copies, where 1 - u·v is noise.
    defined = query.any() & rows.any(axis=1)
    return np.where(defined, squared / 2, 1.0)


def _lift(rows: Floats, metric: Metric) -> Float64s:
    """Convert to float64; under cosine also to unit length, zero rows staying zero."""
    lifted = np.array(rows, dtype=np.float64, order="C")
    if metric == "cosine":
        # By the peak first: the square of 1e-200 or 1e200 is not a float64.
        for size in (_peak, _length):
            scale = size(lifted)
            lifted /= np.where(scale > 0, scale, 1)
    return lifted


def _peak(rows: Float64s) -> Float64s:
    return np.asarray(np.abs(rows).max(axis=1, keepdims=True, initial=0.0))  # (M, 1)


def _length(rows: Float64s) -> Float64s:
    return np.asarray(np.sqrt(np.sum(rows * rows, axis=1, keepdims=True)))  # (M, 1)


def _lifted(
    source: Floats, ids: Ids, metric: Metric
) -> Iterator[tuple[slice, Float64s]]:
    """Yield the rows `ids` of `source` lifted, a block at a time."""
    height = max(1, _BLOCK // max(1, source.shape[1]))
    for start in range(0, len(ids), height):
        part = slice(start, start + height)
        yield part, _lift(source[ids[part]], metric)


def _without_crowds(database: Floats, rows: Ids, k: int) -> Ids:
    """Leave out copies of rows that stand more than `k` times before them.

    Nobody needs them: whatever the distance, `k` equal rows of lower number come first,
    even without the query. Left in, a few hundred black frames would fill the candidates
    of all queries around and take their certificates.
    """
    prints = _fingerprints(database, rows)
    order = np.argsort(prints, kind="stable")
    cuts = np.flatnonzero(np.diff(prints[order])) + 1
    edges = np.concatenate([[0], cuts, [len(rows)]])
    kept = np.ones(len(rows), bool)
    for crowd in np.flatnonzero(np.diff(edges) > k + 1):
        members = order[edges[crowd] : edges[crowd + 1]]  # ascending
        pattern = np.asarray(database[rows[members[0]]], np.float64)
        same = np.empty(len(members), bool)
        for part, block in _lifted(database, rows[members], "euclidean"):
            same[part] = (block == pattern).all(axis=1)
        kept[members[same][k + 1 :]] = False
    return rows[kept]


def _fingerprints(database: Floats, rows: Ids) -> npt.NDArray[np.uint64]:
    """Mix the bits of each row into a number: equal rows get equal ones, others hardly."""
    weights = np.random.default_rng(0).integers(
        2**64, size=database.shape[1], dtype=np.uint64
    )
    prints = np.zeros(len(rows), np.uint64)
    for part, block in _lifted(database, rows, "euclidean"):
        bits = block.view(np.uint64)
        prints[part] = ((bits ^ (bits >> np.uint64(32))) * weights).sum(axis=1)
    return prints


def _zero_rows(database: Floats, rows: Ids) -> npt.NDArray[np.bool_]:
    """Tell which of `rows` are all zero."""
    null = np.empty(len(rows), bool)
    for part, block in _lifted(database, rows, "euclidean"):
        null[part] = ~block.any(axis=1)
    return null


def _mean(database: Floats, rows: Ids, metric: Metric) -> Float64s:
    """Average the lifted rows: centring shrinks the norms that bound the error."""
    total = np.zeros(database.shape[1])
    for _, block in _lifted(database, rows, metric):
        total += block.sum(axis=0)
    return total / len(rows)


def _float32(source: Floats, ids: Ids, shift: Float64s, metric: Metric) -> Floats:
    """Lift, shift in float64, then round once to float32, as FAISS needs it."""
    out = np.empty((len(ids), source.shape[1]), np.float32)
    with np.errstate(over="ignore"):  # an infinity withdraws the certificate
        for part, block in _lifted(source, ids, metric):
            out[part] = block - shift
    return out
