"""The distance of a pair of rows in float64: of these two alone, whatever is around."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Metric: TypeAlias = Literal["euclidean", "cosine", "inner_product"]
Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Float64s: TypeAlias = npt.NDArray[np.float64]


def lift(rows: Floats, metric: Metric) -> Float64s:
    """Convert to float64; under cosine also to unit length, zero rows staying zero.

    Parameters
    ----------
    rows : ndarray, shape (M, F), floating
        Finite.
    metric : {"euclidean", "cosine", "inner_product"}
        Of the search.

    Returns
    -------
    ndarray of float64, shape (M, F)
        A copy, in C order: sums along a row do not depend on the rows around.
    """
    lifted = np.array(rows, dtype=np.float64, order="C")
    if metric == "cosine":
        # By the peak first: the square of 1e-200 or 1e200 is not a float64.
        for size in (_peak, _length):
            scale = size(lifted)
            lifted /= np.where(scale > 0, scale, 1)
    return lifted


def pair_distances(first: Float64s, second: Float64s, metric: Metric) -> Float64s:
    """Measure pairs of lifted rows.

    Parameters
    ----------
    first, second : ndarray of float64, shape (M, F)
        What `lift` returned, one pair a row. The order within a pair does not matter.
    metric : {"euclidean", "cosine", "inner_product"}
        ``|q-y|``; ``1 - cos(q, y)``, where a zero row has cosine 0 to everything; or
        ``-q·y``, which orders like a distance but is none.

    Returns
    -------
    ndarray of float64, shape (M,)
        Infinite where the squares do not fit into a float64.
    """
    with np.errstate(over="ignore"):
        if metric == "inner_product":
            return np.asarray(-np.sum(first * second, axis=1))
        gap = first - second
        gap *= gap
        squared: Float64s = np.sum(gap, axis=1)  # (M,)
    if metric == "euclidean":
        return np.asarray(np.sqrt(squared))
    # 1 - cos = |u-v|²/2 for unit rows: exactly 0 for copies, where 1 - u·v is noise.
    defined = first.any(axis=1) & second.any(axis=1)
    return np.where(defined, squared / 2, 1.0)


def _peak(rows: Float64s) -> Float64s:
    return np.asarray(np.abs(rows).max(axis=1, keepdims=True, initial=0.0))  # (M, 1)


def _length(rows: Float64s) -> Float64s:
    return np.asarray(np.sqrt(np.sum(rows * rows, axis=1, keepdims=True)))  # (M, 1)
