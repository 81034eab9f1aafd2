"""What an approximate search returns: neighbors, and how many of the right ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merge import Float64s, Ids
from embedkit.analysis.pair_distances import Metric
from embedkit.analysis.recall import Recall
from embedkit.errors import RecallNotReached


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What is to be found.

    Attributes
    ----------
    k : int
        Neighbors per query.
    metric : {"euclidean", "cosine", "inner_product"}
    recall : float
        Share of the exact neighbors, below 1.
    seed : int
        Of everything that is drawn.
    """

    k: int
    metric: Metric
    recall: float
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Neighbors of every query, with their measured recall.

    Attributes
    ----------
    near : ndarray of float64, shape (Q, k)
        Distances, ascending, NaN for none.
    ids : ndarray of int64, shape (Q, k)
        Row numbers, -1 for none; equal distances by row number.
    certified : ndarray of bool, shape (Q,)
        Whether they are proven to be exact.
    recall : Recall
        On rows that no choice was made with.
    how : mapping of str to int
        What was chosen, for the attributes of the result.
    """

    near: Float64s
    ids: Ids
    certified: npt.NDArray[np.bool_]
    recall: Recall
    how: Mapping[str, int]


def check_reached(found: Found, asked: float, *, told: str) -> Found:
    """Return what was found, if its recall is what was asked for.

    Raises
    ------
    RecallNotReached
        When the lower end of the interval stays below `asked`.
    """
    measured = found.recall
    if measured.low >= asked:
        return found
    error = RecallNotReached(
        f"neighbors was asked for recall={asked} and reached {measured} (95 % of "
        f"{measured.n_rows} rows) with {told}; ask for less, or for recall=1.0, which is "
        "exact."
    )
    error.recall = (measured.value, measured.low, measured.high)
    raise error
