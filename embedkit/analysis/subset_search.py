"""Exact neighbors among rows in memory: FAISS proposes, float64 decides, a bound proves.

FAISS expands |q-y|² in float32, which loses near copies when norms are large. So points
are centred on their own mean, more candidates than needed are fetched, all of them are
measured again in float64, and a query is done only if no row outside of its candidates
can be as near as its last neighbor. Every other query is compared with all rows directly.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from embedkit.analysis import faiss_adapter
from embedkit.analysis.ivf_space import Space, parts
from embedkit.analysis.merge import Float64s, Ids, merge_nearest, nothing_found
from embedkit.analysis.near.ivf_bounds import squared_floor
from embedkit.analysis.pair_distances import Floats, Metric, lift, pair_distances
from embedkit.analysis.rows import usable_rows

_SPARE = 16  # candidates beyond k + k/2: groups of near copies are rarely larger
_PAIRS = 2**17  # float64 entries measured together: 1 MiB, which stays in the cache


def search_subset(
    queries: Floats, rows: Floats, *, query_places: Ids, k: int, space: Space
) -> tuple[Float64s, Ids]:
    """Find the `k` nearest rows of each query, itself excluded.

    Parameters
    ----------
    queries : ndarray, shape (Q, F), floating
    rows : ndarray, shape (N, F), floating
        A row with a NaN or an infinity is nobody's neighbor.
    query_places : ndarray of int64, shape (Q,)
        Where each query stands among `rows`, -1 if it does not.
    k : int
    space : Space
        With the metric; its mean and scale should suit the rows.

    Returns
    -------
    distances : ndarray of float64, shape (Q, k)
        Ascending; NaN where fewer than `k` rows exist or the query is not finite.
    places : ndarray of int64, shape (Q, k)
        -1 where `distances` is NaN. Equal distances: lower place first.
    """
    near, places = nothing_found(len(queries), k)
    kept = without_crowds(rows, np.flatnonzero(usable_rows(rows)), k=k)
    wanted = np.flatnonzero(usable_rows(queries))
    if len(kept) and len(wanted):
        found = _finite(queries[wanted], rows, kept, query_places[wanted], k, space)
        near[wanted], places[wanted] = found
    return near, places


def _finite(
    queries: Floats, rows: Floats, kept: Ids, query_places: Ids, k: int, space: Space
) -> tuple[Float64s, Ids]:
    """Search with finite queries among the places `kept`."""
    null = ~queries.any(axis=1)
    # at one distance of all rows, where their numbers decide
    alike = null if space.metric != "euclidean" else np.zeros_like(null)
    listed, zeros = kept, kept[:0]
    if space.metric == "cosine":
        blank = ~rows[kept].any(axis=1)
        listed, zeros = kept[~blank], kept[blank][: k + 1]
    candidates, floor = _candidates(queries, rows, listed, k, space)
    tail = np.broadcast_to(zeros, (len(queries), len(zeros)))
    candidates = np.concatenate([candidates, tail], axis=1)
    candidates[candidates == query_places[:, None]] = -1
    metric = space.metric
    near, found = ranked(queries, lambda at: rows[at], candidates, k=k, metric=metric)
    for row in np.flatnonzero(alike):
        first = kept[kept != query_places[row]][None, :k]
        one = queries[row][None]
        got = ranked(one, lambda at: rows[at], first, k=k, metric=metric)
        near[row], found[row] = got[0][0], got[1][0]
    furthest = space.radii(queries, near[:, -1])
    with np.errstate(invalid="ignore"):  # NaN: fewer neighbors than asked for
        sure = alike | (floor > furthest**2 * (1 + 2.0**-40)) | (floor == np.inf)
    unsure = np.flatnonzero(~sure)
    if len(unsure):
        near[unsure], found[unsure] = _directly(
            queries[unsure], rows, kept, query_places[unsure], k, metric
        )
    return near, found


def _candidates(
    queries: Floats, rows: Floats, listed: Ids, k: int, space: Space
) -> tuple[Ids, Float64s]:
    """Fetch more than `k` near places, with a floor under the squares of the rest."""
    fetch = min(len(listed), k + 1 + k // 2 + _SPARE)
    if not fetch:
        return np.empty((len(queries), 0), np.int64), np.full(len(queries), np.inf)
    points, middle = _centred(rows, listed, space)
    ask = (space.queries(queries) - middle).astype(np.float32)
    squared, at = faiss_adapter.nearest(ask, points, k=fetch)
    floor = squared_floor(ask, points, squared[:, -1])
    # Lifting to the common space and the last distance are off by float64 roundings.
    reach = max(float(np.abs(ask).max()), float(np.abs(points).max()))
    floor = floor - 2.0**-40 * reach**2 * ask.shape[1]
    if fetch == len(listed):
        floor = np.full(len(queries), np.inf)
    return listed[at], floor


def _centred(
    rows: Floats, listed: Ids, space: Space
) -> tuple[npt.NDArray[np.float32], Float64s]:
    """Return rows as float32 points around their mean, and the mean."""
    width = len(space.center) + (space.metric == "inner_product")
    middle = np.zeros(width)
    cuts = list(parts(len(listed), width))
    for cut in cuts:
        middle += space.points(rows[listed[cut]]).sum(axis=0)
    middle /= len(listed)
    out = np.empty((len(listed), width), np.float32)
    for cut in cuts:
        out[cut] = space.points(rows[listed[cut]]) - middle
    return out, middle


def ranked(
    queries: Floats,
    take: Callable[[Ids], Floats],
    candidates: Ids,
    *,
    k: int,
    metric: Metric,
    threads: int = 1,
) -> tuple[Float64s, Ids]:
    """Measure candidates in float64, order them by (distance, number), cut to `k`.

    Parameters
    ----------
    queries : ndarray, shape (Q, F), floating
    take : callable
        From row numbers (M,) to rows (M, F).
    candidates : ndarray of int64, shape (Q, C)
        Row numbers, -1 for none.
    k : int
    metric : {"euclidean", "cosine", "inner_product"}
    threads : int, default 1
        To measure with.

    Returns
    -------
    distances : ndarray of float64, shape (Q, k)
        NaN for none.
    ids : ndarray of int64, shape (Q, k)
        -1 for none.
    """
    near = np.full(candidates.shape, np.nan)
    wanted = np.flatnonzero((candidates >= 0).any(axis=1))
    count, width = candidates.shape[1], queries.shape[1]
    height = max(1, _PAIRS // max(1, count * width))

    def fill(starts: range) -> None:
        scratch = np.empty((height * count, width))
        for start in starts:
            some = wanted[start : start + height]  # (q,)
            ids = candidates[some]  # (q, C)
            # where there is none, one that is there: it is not looked at
            ids = np.where(ids >= 0, ids, ids.max(axis=1, keepdims=True))
            others = lift(take(ids.ravel()), metric, out=scratch[: ids.size])
            others = others.reshape(*ids.shape, width)  # (q, C, F)
            asked = lift(queries[some], metric)[:, None]  # (q, 1, F)
            near[some] = pair_distances(asked, others, metric, out=others)

    starts = range(0, len(wanted), height)
    hands = min(threads, len(starts))
    if hands > 1:
        with ThreadPoolExecutor(hands) as pool:
            list(pool.map(fill, [starts[hand::hands] for hand in range(hands)]))
    else:
        fill(starts)
    # what does not fit into a float64 is no distance
    some = (candidates >= 0) & np.isfinite(near)
    answer = np.where(some, near, np.nan), np.where(some, candidates, -1)
    return merge_nearest(answer, nothing_found(len(queries), 0), k=k)


def _directly(
    queries: Floats, rows: Floats, kept: Ids, query_places: Ids, k: int, metric: Metric
) -> tuple[Float64s, Ids]:
    """Compare queries with all rows; equal ones once, with one neighbor to spare."""
    near, found = nothing_found(len(queries), k)
    distinct, group = np.unique(queries, axis=0, return_inverse=True)
    for number, query in enumerate(distinct):
        members = np.flatnonzero(group == number)
        best = nothing_found(1, k + 1)
        for cut in parts(len(kept), rows.shape[1], entries=_PAIRS):
            some = ranked(
                query[None],
                lambda at: rows[at],
                kept[cut][None],
                k=k + 1,
                metric=metric,
            )
            best = merge_nearest(best, some, k=k + 1)
        itself = best[1] == query_places[members, None]  # (M, k + 1)
        left = np.argsort(itself, axis=1, kind="stable")[:, :k]
        near[members], found[members] = best[0][0, left], best[1][0, left]
    return near, found


def without_crowds(rows: Floats, usable: Ids, *, k: int) -> Ids:
    """Leave out copies of rows that stand more than `k` times before them.

    Nobody needs them: whatever the distance, `k` equal rows of lower number come first,
    even without the query. Left in, a few hundred black frames would fill the candidates
    of all queries around and take their proofs.

    Parameters
    ----------
    rows : ndarray, shape (N, F), floating
    usable : ndarray of int64
        Places to look at, ascending.
    k : int

    Returns
    -------
    ndarray of int64
        Those of `usable` that are left.
    """
    if len(usable) <= k + 1:
        return usable
    prints = np.concatenate(
        [_prints(rows[usable[cut]]) for cut in parts(len(usable), rows.shape[1])]
    )
    order = np.argsort(prints, kind="stable")
    cuts = np.flatnonzero(np.diff(prints[order])) + 1
    edges = np.concatenate([[0], cuts, [len(usable)]])
    kept = np.ones(len(usable), bool)
    for crowd in np.flatnonzero(np.diff(edges) > k + 1):
        members = order[edges[crowd] : edges[crowd + 1]]  # ascending
        same = (rows[usable[members]] == rows[usable[members[0]]]).all(axis=1)
        kept[members[same][k + 1 :]] = False
    return np.asarray(usable[kept])


def _prints(rows: Floats) -> npt.NDArray[np.float64]:
    """Mix each row into a number: equal rows get equal ones, others hardly."""
    weights = np.random.default_rng(0).standard_normal(rows.shape[1])
    # Not by BLAS, whose sums depend on where a row stands.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.einsum("nf,f->n", rows.astype(np.float64), weights))
