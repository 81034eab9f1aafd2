"""Questions to a search index: candidates of FAISS, measured in float64, joined."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from dask.system import CPU_COUNT

from embedkit.analysis import faiss_adapter
from embedkit.analysis.index.rows import Rows
from embedkit.analysis.ivf_space import Floats, Space
from embedkit.analysis.merge import Float64s, Ids, merge_nearest, nothing_found
from embedkit.analysis.rows import usable_rows
from embedkit.analysis.subset_search import ranked, search_subset

BATCH = 1024  # queries answered together


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard a search tries.

    Attributes
    ----------
    breadth : int
        Lists to probe, or the breadth of the search in a graph.
    spare : int
        Candidates beyond `k` that are measured in float64.
    """

    breadth: int = 1
    spare: int = 2


@dataclass(frozen=True, slots=True, eq=False)
class Searcher:
    """All that answers need; with paths as `parts` small enough to be sent to tasks.

    Attributes
    ----------
    parts : tuple of FAISS index or Path
        Disjoint rows under their numbers; a path is opened with its lists left on disk.
        None at all: every row is compared exactly.
    space : Space
        In which FAISS measures.
    rows : Rows
    alive : ndarray of bool, shape (N,)
        Rows that were not removed and are finite.
    zeros : ndarray of int64
        All-zero rows under cosine, which no part holds.
    threads : int
        To measure distances with.
    """

    parts: tuple[Any, ...]
    space: Space
    rows: Rows
    alive: npt.NDArray[np.bool_]
    zeros: Ids
    threads: int = CPU_COUNT

    def answer(
        self, queries: Floats, query_ids: Ids, *, k: int, effort: Effort
    ) -> tuple[Float64s, Ids]:
        """Return the nearest rows of each query, itself left out.

        Parameters
        ----------
        queries : ndarray, shape (Q, F), floating
        query_ids : ndarray of int64, shape (Q,)
            Row number of each query, -1 for others.
        k : int
        effort : Effort

        Returns
        -------
        distances : ndarray of float64, shape (Q, k)
            NaN for none: fewer rows, or a query that is not finite.
        ids : ndarray of int64, shape (Q, k)
            -1 for none; equal distances by row number.
        """
        near, ids = nothing_found(len(queries), k)
        wanted = np.flatnonzero(usable_rows(queries))
        some = [wanted[at : at + BATCH] for at in range(0, len(wanted), BATCH)]
        for part in self.parts:  # one after the other: of files few are open
            index = _opened(part) if isinstance(part, Path) else part
            for rows in some:
                best, asked = (near[rows], ids[rows]), queries[rows]
                found = self._near(index, best, asked, query_ids[rows], effort)
                near[rows], ids[rows] = found
                self.rows.let_go()
        for rows in some:
            if self.parts:
                best = near[rows], ids[rows]
                found = self._beside(best, queries[rows], query_ids[rows])
            else:
                found = self._exact(queries[rows], query_ids[rows], k)
            near[rows], ids[rows] = found
        return near, ids

    def _exact(self, queries: Floats, query_ids: Ids, k: int) -> tuple[Float64s, Ids]:
        ids = np.flatnonzero(self.alive)
        if not len(ids):
            return nothing_found(len(queries), k)
        places = np.full(len(self.alive) + 1, -1)
        places[ids] = np.arange(len(ids))
        near, found = search_subset(
            queries,
            self.rows.take(ids),
            query_places=places[query_ids],
            k=k,
            space=self.space,
        )
        return near, np.where(found >= 0, ids[found], -1)

    def _near(
        self,
        index: Any,
        best: tuple[Float64s, Ids],
        queries: Floats,
        query_ids: Ids,
        effort: Effort,
    ) -> tuple[Float64s, Ids]:
        """Join an answer with what one part finds."""
        points = self.space.queries(queries).astype(np.float32)
        itself = bool((query_ids >= 0).any())
        fetch = best[0].shape[1] + effort.spare + itself
        _, ids = faiss_adapter.search(index, points, k=fetch, effort=effort.breadth)
        return self._joined(best, queries, query_ids, ids)

    def _beside(
        self, best: tuple[Float64s, Ids], queries: Floats, query_ids: Ids
    ) -> tuple[Float64s, Ids]:
        """Join an answer with rows that no part holds, or that only numbers order."""
        k = best[0].shape[1]
        if len(self.zeros):
            first = self.zeros[: k + 1]
            tail = np.broadcast_to(first, (len(queries), len(first)))
            best = self._joined(best, queries, query_ids, tail)
        if self.space.metric != "euclidean":
            alike = np.flatnonzero(~queries.any(axis=1))
            first = np.flatnonzero(self.alive)[: k + 1]
            for row in alike:  # at one distance of everything: row numbers decide
                one = slice(row, row + 1)
                found = nothing_found(1, k)
                best[0][one], best[1][one] = self._joined(
                    found, queries[one], query_ids[one], first[None]
                )
        return best

    def _joined(
        self,
        best: tuple[Float64s, Ids],
        queries: Floats,
        query_ids: Ids,
        candidates: Ids,
    ) -> tuple[Float64s, Ids]:
        ids = np.where(candidates == query_ids[:, None], -1, candidates)
        k, metric = best[0].shape[1], self.space.metric
        found = ranked(
            queries, self.rows.take, ids, k=k, metric=metric, threads=self.threads
        )
        if not (best[1] >= 0).any():  # the first part: nothing to join with
            return found
        return merge_nearest(best, found, k=k)


@lru_cache(maxsize=4)
def _opened(path: Path) -> Any:
    """Open a file and keep it: its name says its content, its pages count as memory."""
    return faiss_adapter.read(path, mapped=True)
