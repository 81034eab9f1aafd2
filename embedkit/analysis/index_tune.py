"""How hard a search has to try for a recall, and the recall that it then has."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from embedkit.analysis.index_search import Effort, Searcher
from embedkit.analysis.merge import Float64s, Ids
from embedkit.analysis.recall import Recall, estimate, near_shares
from embedkit.analysis.spool import Spool
from embedkit.errors import RecallNotReached

SETS = 3  # one to tune on, two to check on
_MARGINS = (0.97, 0.999)
"""Levels when tuning, so that the check passes at its own: first with little to spare,
because effort costs every later search, then almost surely."""

_TIE = 1e-6  # how much further than the last true neighbor is as good
_OUTSIDE = 2**62  # queries that the sample stands for: any number


@dataclass(frozen=True, slots=True, eq=False)
class Tuner:
    """Finds the least effort that reaches a recall on rows with exact truth.

    Attributes
    ----------
    searcher : Searcher
    spool : Spool
    aside : ndarray of int64, shape (n,)
        Rows to ask for, none of them in the index.
    truth : ndarray of float64, shape (n, k)
        Distances of their exact neighbors.
    k : int
    recall : float
    ladder : list of Effort
        From least to most.
    """

    searcher: Searcher
    spool: Spool
    aside: Ids
    truth: Float64s
    k: int
    recall: float
    ladder: list[Effort]

    def tuned(self) -> tuple[Effort, Recall, float]:
        """Return the effort, the recall on rows that tuning did not use, and queries/s."""
        every = np.arange(len(self.aside))
        sets = [every[start::SETS] for start in range(SETS)]
        known = sets[0]
        for number, check in enumerate(sets[1:], start=1):
            effort = self._least(known, _MARGINS[number - 1])
            found, speed = self._check(effort, check)
            if found.low >= self.recall:
                return effort, found, speed
            if number + 1 < len(sets):
                known = np.concatenate([known, check])
        effort = self.ladder[-1]
        found, speed = self._check(effort, sets[-1])
        if found.low < self.recall:
            self._refuse(found)
        return effort, found, speed

    def _refuse(self, found: Recall) -> None:
        error = RecallNotReached(
            f"build_index was asked for recall={self.recall} and reached {found} (95 % of "
            f"{found.n_rows} rows) with the most effort; ask for less, give more rows or "
            "memory, or use neighbors, which is exact."
        )
        error.recall = (found.value, found.low, found.high)
        raise error

    def _least(self, known: Ids, level: float) -> Effort:
        """Return the least effort that leaves the check a margin on the known rows."""

        def enough(step: int) -> bool:
            shares = self._shares(self.ladder[step], known)
            return estimate(shares, population=_OUTSIDE, level=level).low >= self.recall

        return self.ladder[_first(enough, len(self.ladder))]

    def _check(self, effort: Effort, check: Ids) -> tuple[Recall, float]:
        began = time.perf_counter()
        shares = self._shares(effort, check)
        speed = len(check) / (time.perf_counter() - began)
        return estimate(shares, population=_OUTSIDE), speed

    def _shares(self, effort: Effort, some: Ids) -> Float64s:
        order = np.sort(some)
        near, _ = self.searcher.answer(
            self.spool.take(self.aside[order]),
            np.full(len(order), -1),
            k=self.k,
            effort=effort,
        )
        return near_shares(near, self.truth[order], slack=_TIE)


def _first(enough: Callable[[int], bool], count: int) -> int:
    """Return the first step that is enough, or the last, by halving."""
    low, high = 0, count - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
