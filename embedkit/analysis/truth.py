"""Exact neighbors of sampled rows: what a search is tuned with, and measured by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedkit.analysis.ivf_space import Floats, Space, parts
from embedkit.analysis.merge import Float64s, Ids, merge_nearest, nothing_found
from embedkit.analysis.recall import MOST_CHECKED, Recall, estimate, spread_sample
from embedkit.analysis.share import run_shared
from embedkit.analysis.spool import Spool
from embedkit.analysis.subset_search import search_subset
from embedkit.planning.index import QUERY_ENTRIES, TRUTH_ENTRIES

_TASK = TRUTH_ENTRIES  # of rows: 32 MiB of float32, lifted piece by piece
_QUERIES = QUERY_ENTRIES  # of queries, which are lifted together
_MARGIN = 0.997  # level when tuning, so that the check passes at its own


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Sampled queries with their exact neighbors.

    Attributes
    ----------
    rows : ndarray of int64, shape (n,)
        Numbers of the queries.
    ids : ndarray of int64, shape (n, k)
        Their exact neighbors, -1 for none.
    """

    rows: Ids
    ids: Ids


class Truths:
    """Draws samples that were not drawn before, while there are rows left.

    Parameters
    ----------
    queries, database : Spool
        Shapes (Q, F) and (N, F).
    itself : bool
        Whether both are the same, each row excluded from its own answer.
    k : int
        Neighbors.
    space : Space
        With the metric.
    rows : ndarray of int64
        The queries that have an answer, ascending.
    folder : Path
        Where workers find the queries.
    """

    def __init__(
        self,
        queries: Spool,
        database: Spool,
        *,
        itself: bool,
        k: int,
        space: Space,
        rows: Ids,
        folder: Path,
    ) -> None:
        self._queries, self._database, self._itself = queries, database, itself
        self._k, self._space, self._folder = k, space, folder
        self._rows = self._left = rows

    def draw(
        self, count: int, *, recall: float, rng: np.random.Generator
    ) -> list[Truth]:
        """Return `count` samples with as many rows as tell `recall` from 1."""
        return self.draw_sizes([truth_rows(recall)] * count, rng=rng)

    def draw_sizes(self, sizes: list[int], *, rng: np.random.Generator) -> list[Truth]:
        """Return samples of so many rows, looked up together."""
        chosen = []
        for size in sizes:
            some = spread_sample(self._left, size, rng=rng)
            if not len(some):  # all are known: check on all of them
                some = spread_sample(self._rows, size, rng=rng)
            self._left = np.setdiff1d(self._left, some)
            chosen.append(some)
        rows = np.unique(np.concatenate(chosen))
        _, ids = true_neighbors(
            self._queries.take(rows),
            self._database,
            query_ids=rows if self._itself else np.full(len(rows), -1),
            k=self._k,
            space=self._space,
            folder=self._folder,
        )
        return [Truth(some, ids[np.searchsorted(rows, some)]) for some in chosen]

    def estimate(self, shares: Float64s, *, level: float = 0.95) -> Recall:
        """Return the recall that shares (n,) of a sample stand for."""
        return estimate(shares, population=len(self._rows), level=level)

    def enough(self, shares: Float64s, *, recall: float) -> bool:
        """Tell whether shares (n,) leave a later check a margin."""
        # So few rows may not be able to say more: then all they have to be right.
        perfect = self.estimate(np.ones(len(shares)), level=_MARGIN).low
        wanted = min(recall, perfect)
        return self.estimate(shares, level=_MARGIN).low >= wanted


def truth_rows(recall: float) -> int:
    """Say how many rows tell `recall` from 1: some tens of misses are to be expected."""
    return int(np.clip(round(10 / (1 - recall)), 500, MOST_CHECKED))


def true_neighbors(
    queries: Floats,
    spool: Spool,
    *,
    query_ids: Ids,
    k: int,
    space: Space,
    folder: Path,
    leave_out: Ids | None = None,
) -> tuple[Float64s, Ids]:
    """Search all rows of a file exactly, one task per block of them.

    Parameters
    ----------
    queries : ndarray, shape (Q, F), floating
    spool : Spool
        Rows to search among.
    query_ids : ndarray of int64, shape (Q,)
        Row number of each query, which is left out, or -1.
    k : int
    space : Space
        With the metric.
    folder : Path
        Where workers find the queries.
    leave_out : ndarray of int64, optional
        Rows that are nobody's neighbor.

    Returns
    -------
    distances : ndarray of float64, shape (Q, k)
    ids : ndarray of int64, shape (Q, k)
        As an exact search over all rows at once.
    """
    np.save(folder / "truth_queries.npy", queries)
    np.save(folder / "truth_ids.npy", query_ids)
    np.save(folder / "truth_without.npy", [] if leave_out is None else leave_out)
    tasks = [
        (spool, folder, part.start, part.stop, k, space)
        for part in parts(*spool.shape, entries=_TASK)
    ]
    best = nothing_found(len(queries), k)
    for _, found in run_shared(_in_block, tasks, name="exact truth"):
        best = merge_nearest(best, found, k=k)
    return best


def _in_block(
    spool: Spool, folder: Path, start: int, stop: int, k: int, space: Space
) -> tuple[Float64s, Ids]:
    rows = spool.block(start, stop)
    without = np.load(folder / "truth_without.npy").astype(np.int64)
    here = without[(without >= start) & (without < stop)]
    rows[here - start] = np.nan
    query_ids = np.load(folder / "truth_ids.npy")
    places = np.where((query_ids >= start) & (query_ids < stop), query_ids - start, -1)
    queries = np.load(folder / "truth_queries.npy", mmap_mode="r")
    near, ids = nothing_found(len(queries), k)
    for cut in parts(*queries.shape, entries=_QUERIES):
        asked = np.array(queries[cut])
        near[cut], ids[cut] = search_subset(
            asked, rows, query_places=places[cut], k=k, space=space
        )
    return near, np.where(ids >= 0, ids + start, -1)
