"""Recall with an interval: how much of the exact answer an approximate search returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from embedkit.analysis.merge import Float64s, Ids

MOST_CHECKED = 5000
"""Rows whose exact neighbors an approximate search looks up to measure itself, at most."""

_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Recall:
    """A measured recall and its 95 % interval.

    Attributes
    ----------
    value : float
        Mean over the sampled rows, from 0 to 1.
    low, high : float
        The interval.
    n_rows : int
        How many rows were sampled.
    """

    value: float
    low: float
    high: float
    n_rows: int

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"

    def attrs(self) -> dict[str, Any]:
        """Return plain values for the attributes of a result."""
        return {
            "recall": self.value,
            "recall_low": self.low,
            "recall_high": self.high,
            "n_truth": self.n_rows,
        }


EXACT = Recall(value=1.0, low=1.0, high=1.0, n_rows=0)


def estimate(
    shares: npt.ArrayLike,
    *,
    population: int,
    level: float = _LEVEL,
    change: npt.ArrayLike = 0.0,
) -> Recall:
    """Estimate the mean share over a population from a sample of its rows.

    The neighbors of one row are found or missed together, so rows are counted and not
    neighbors: the variance between rows says how many independent trials they are worth,
    never fewer than their number. One row that missed half is added to the variance,
    because a few misses say little about how they clump. Near 1, where recalls are, the
    interval of Clopper and Pearson keeps its level; Wilson's falls a little below, and
    the symmetric one far.

    Parameters
    ----------
    shares : array_like of float, shape (n,)
        Share of the exact neighbors that each sampled row found, drawn without
        replacement.
    population : int
        Rows that the sample stands for.
    level : float, default 0.95
        How often the interval has to hold the truth.
    change : array_like of float, shape (n,), optional
        What is added to the shares for something that was not measured itself, with the
        scatter that it brings: the interval gets as much wider.

    Returns
    -------
    Recall
        Exact, with an empty interval, where all rows were sampled.

    References
    ----------
    Clopper, Pearson (1934), The use of confidence or fiducial limits illustrated in the
    case of the binomial.
    Wilson (1927), Probable inference, the law of succession, and statistical inference.
    Kish (1965), Survey Sampling, section 5.4 (design effect).
    """
    measured = np.asarray(shares, np.float64)
    found = measured + np.asarray(change, np.float64)
    if not population:
        return EXACT
    n, p = len(found), float(np.clip(found.mean(), 0, 1))
    if n >= population:
        return Recall(value=p, low=p, high=p, n_rows=n)
    spread = float(found.var()) + 0.25 / n
    least = n * min(1.0, (float(measured.var()) + 0.25 / n) / spread)
    trials = max(least, n * p * (1 - p) / spread) * (population - 1) / (population - n)
    hits, tail = trials * p, (1 - level) / 2
    low = betaincinv(hits, trials - hits + 1, tail) if hits else 0.0
    high = betaincinv(hits + 1, trials - hits, 1 - tail) if hits < trials else 1.0
    return Recall(value=p, low=float(low), high=float(high), n_rows=n)


def provable(recall: float, *, population: int) -> bool:
    """Tell whether a check of `MOST_CHECKED` rows without one miss would show a recall.

    Parameters
    ----------
    recall : float
        What was asked for.
    population : int
        Rows that are searched for.

    Returns
    -------
    bool
        False where nothing but the exact search can keep what it promises.
    """
    perfect = np.ones(min(MOST_CHECKED, population))
    return estimate(perfect, population=population).low >= recall


def found_shares(ids: Ids, truth: Ids) -> Float64s:
    """Return for each row the share of its true neighbors that were found.

    Parameters
    ----------
    ids, truth : ndarray of int64, shape (n, k)
        Row numbers, -1 for none, each at most once a row.

    Returns
    -------
    ndarray of float64, shape (n,)
        1 where there is nothing to find.
    """
    hit = (truth[:, :, None] == ids[:, None, :]).any(axis=2) & (truth >= 0)  # (n, k)
    wanted = (truth >= 0).sum(axis=1)
    return np.where(wanted > 0, hit.sum(axis=1) / np.maximum(wanted, 1), 1.0)


def near_shares(distances: Float64s, truth: Float64s, *, slack: float) -> Float64s:
    """Return for each row the share of answers that are as near as the true ones.

    Parameters
    ----------
    distances, truth : ndarray of float64, shape (n, k)
        What was found and the exact ones, ascending, NaN for none.
    slack : float
        How much further than the last true neighbor still counts, relative to it.

    Returns
    -------
    ndarray of float64, shape (n,)
        1 where there is nothing to find. Equal distances are equally good answers, so
        copies of a row cannot be missed for one another.
    """
    wanted = (~np.isnan(truth)).sum(axis=1)
    last = np.fmax.reduce(truth, axis=1)  # (n,)
    reach = last + slack * np.abs(last)
    near = (distances <= reach[:, None]).sum(axis=1)
    share = np.minimum(near, wanted) / np.maximum(wanted, 1)
    return np.where(wanted > 0, share, 1.0)


def spread_sample(rows: Ids, count: int, *, rng: np.random.Generator) -> Ids:
    """Draw rows from all over: one from each of `count` equal stretches.

    Parameters
    ----------
    rows : ndarray of int64, shape (N,)
        What to draw from, in its order: of data sorted by class every class gets its
        part.
    count : int
        How many; all if there are no more.
    rng : numpy.random.Generator
        Where the position within each stretch comes from.

    Returns
    -------
    ndarray of int64, shape (min(count, N),)
        Distinct, in the order of `rows`.
    """
    count = min(count, len(rows))
    edges = np.arange(count + 1) * len(rows) // max(1, count)
    within = (rng.random(count) * np.diff(edges)).astype(np.int64)
    return np.asarray(rows[edges[:-1] + within])
