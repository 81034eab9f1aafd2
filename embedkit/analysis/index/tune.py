"""How hard a search has to try for a recall, and the recall that it then has."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from embedkit.analysis.index.plan import SETS
from embedkit.analysis.index.search import Effort, Searcher
from embedkit.analysis.merge import Float64s, Ids
from embedkit.analysis.recall import Recall, estimate, near_shares
from embedkit.analysis.spool import Spool
from embedkit.errors import RecallNotReached

_MARGINS = (0.97, 0.999)
"""Levels when tuning, so that the check passes at its own: first with little to spare,
because effort costs every later search, then with what the check itself leaves open
besides, which is almost surely."""

_HARDER = 9  # steps of the ladder, which make about twice the effort

_TIE = 1e-6  # how much further than the last true neighbor is as good
_OUTSIDE = 2**62  # queries that the sample stands for: any number


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """An effort, and what rows got with it that were not used to find it.

    Attributes
    ----------
    effort : Effort
    check : ndarray of int64, shape (m,)
        Places of these rows among those left out, ascending.
    shares : ndarray of float64, shape (m,)
        What each of them found.
    recall : Recall
    speed : float
        Queries a second.
    """

    effort: Effort
    check: Ids
    shares: Float64s
    recall: Recall
    speed: float


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

    def tuned(self) -> Tuned:
        """Return the effort, and how rows that tuning did not use went.

        Where even the last of these rows say that it is not enough, they say so again of
        twice the effort, and so on: steps so large hardly depend on which rows are asked.

        Raises
        ------
        RecallNotReached
            When the most effort leaves the lower end of the interval too low.
        """
        every = np.arange(len(self.aside))
        sets = [every[start::SETS] for start in range(SETS)]
        known = sets[0]
        for number, check in enumerate(sets[1:], start=1):
            spare = len(check) if number > 1 else None
            effort = self._least(known, _MARGINS[number - 1], spare=spare)
            found = self._checked(effort, check)
            if found.recall.low >= self.recall:
                return found
            if number + 1 < len(sets):
                known = np.concatenate([known, check])
        for harder in self._harder(effort):
            found = self._checked(harder, sets[-1])
            if found.recall.low >= self.recall:
                break
        else:
            self._refuse(found.recall)
        return found

    def grown(self, tuned: Tuned, sizes: tuple[int, int, int]) -> Tuned:
        """Return what `tuned` becomes once the index has all its rows.

        An index finds less the more rows it has, and a row that is in it cannot ask for
        others: in a graph it stands beside them. So what the check lost from fewer rows to
        more is carried on to all, over the logarithm of their number.

        Parameters
        ----------
        tuned : Tuned
            Of the index with fewer rows; `searcher` and `truth` here are of more.
        sizes : tuple of int
            Rows in the index then, now, and in the end, when the check is in it too.

        Returns
        -------
        Tuned
            With more effort, where the recall asks for it.

        Raises
        ------
        RecallNotReached
        """
        before, now, final = (float(np.log(size)) for size in sizes)
        ahead = (final - now) / max(now - before, 1e-12)
        shares, speed = self._timed(tuned.effort, tuned.check)
        change = ahead * (shares - tuned.shares)
        recall = estimate(shares, population=_OUTSIDE, change=change)
        found = replace(tuned, recall=recall, shares=shares, speed=speed)
        steps = iter(self.ladder[self.ladder.index(tuned.effort) + 1 :])
        while found.recall.low < self.recall:
            effort = next(steps, None)
            if effort is None:
                self._refuse(found.recall)
            shares, speed = self._timed(effort, tuned.check)
            sure = estimate(
                shares, population=_OUTSIDE, change=change, level=_MARGINS[-1]
            )
            recall = estimate(shares, population=_OUTSIDE, change=change)
            if sure.low >= self.recall or effort == self.ladder[-1]:
                found = Tuned(effort, tuned.check, shares, recall, speed)
        return found

    def _refuse(self, found: Recall) -> NoReturn:
        error = RecallNotReached(
            f"build_index was asked for recall={self.recall} and reached {found} (95 % of "
            f"{found.n_rows} rows) with the most effort; ask for less, give more rows or "
            "memory, or use neighbors, which is exact."
        )
        error.recall = (found.value, found.low, found.high)
        raise error

    def _harder(self, effort: Effort) -> list[Effort]:
        """Return efforts beyond one, each about twice the one before, and the most."""
        at = self.ladder.index(effort) + _HARDER
        return [*self.ladder[at : len(self.ladder) - 1 : _HARDER], self.ladder[-1]]

    def _least(self, known: Ids, level: float, *, spare: int | None) -> Effort:
        """Return the least effort that leaves the check a margin on the known rows.

        Parameters
        ----------
        known : ndarray of int64
            Rows to tune on.
        level : float
            At which they have to reach the recall.
        spare : int, optional
            Rows of a check whose own interval is to be left room for.
        """

        def enough(step: int) -> bool:
            shares = self._shares(self.ladder[step], known)
            low = estimate(shares, population=_OUTSIDE, level=level).low
            if spare is not None:
                usual = estimate(shares, population=_OUTSIDE)
                low -= (usual.value - usual.low) * np.sqrt(len(known) / spare)
            return bool(low >= self.recall)

        return self.ladder[_first(enough, len(self.ladder))]

    def _checked(self, effort: Effort, check: Ids) -> Tuned:
        shares, speed = self._timed(effort, check)
        recall = estimate(shares, population=_OUTSIDE)
        return Tuned(effort, check, shares, recall, speed)

    def _timed(self, effort: Effort, check: Ids) -> tuple[Float64s, float]:
        began = time.perf_counter()
        shares = self._shares(effort, check)
        return shares, len(check) / (time.perf_counter() - began)

    def _shares(self, effort: Effort, some: Ids) -> Float64s:
        some = np.sort(some)
        near, _ = self.searcher.answer(
            self.spool.take(self.aside[some]),
            np.full(len(some), -1),
            k=self.k,
            effort=effort,
        )
        return near_shares(near, self.truth[some], slack=_TIE)


def _first(enough: Callable[[int], bool], count: int) -> int:
    """Return the first step that is enough, or the last, by halving."""
    low, high = 0, count - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
