"""The distance of a pair of rows in float64: of these two alone, whatever is around."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Metric: TypeAlias = Literal["euclidean", "cosine", "inner_product"]
Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Float64s: TypeAlias = npt.NDArray[np.float64]


def lift(rows: Floats, metric: Metric, *, out: Float64s | None = None) -> Float64s:
    """Convert to float64; under cosine also to unit length, zero rows staying zero.

    Parameters
    ----------
    rows : ndarray, shape (M, F), floating
        Finite.
    metric : {"euclidean", "cosine", "inner_product"}
        Of the search.
    out : ndarray of float64, shape (M, F), optional
        Where the copy goes: memory that is used again costs no page faults.

    Returns
    -------
    ndarray of float64, shape (M, F)
        A copy, in C order: sums along a row do not depend on the rows around.
    """
    lifted = np.empty(rows.shape) if out is None else out
    lifted[...] = rows
    if metric == "cosine":
        # By the peak first: the square of 1e-200 or 1e200 is not a float64.
        # The peak of what was given is the same number, and sooner found.
        _divide(lifted, _peak(rows))
        _divide(lifted, _length(lifted))
    return lifted


def pair_distances(
    first: Float64s, second: Float64s, metric: Metric, *, out: Float64s | None = None
) -> Float64s:
    """Measure pairs of lifted rows.

    Parameters
    ----------
    first, second : ndarray of float64, shape (..., F)
        What `lift` returned, one pair a row; one row may stand for several, as usual for
        arrays of size 1. The order within a pair does not matter.
    metric : {"euclidean", "cosine", "inner_product"}
        ``|q-y|``; ``1 - cos(q, y)``, where a zero row has cosine 0 to everything; or
        ``-q·y``, which orders like a distance but is none.
    out : ndarray of float64, shape (..., F), in C order, optional
        Memory to work in, which may be that of `second`.

    Returns
    -------
    ndarray of float64, shape (...)
        Infinite where the squares do not fit into a float64.
    """
    with np.errstate(over="ignore"):
        if metric == "inner_product":
            return np.asarray(-np.sum(np.multiply(first, second, out=out), axis=-1))
        defined = _any(first) & _any(second) if metric == "cosine" else None
        gap = np.subtract(first, second, out=out)
        squared: Float64s = np.sum(np.multiply(gap, gap, out=gap), axis=-1)  # (...)
    if defined is None:
        return np.asarray(np.sqrt(squared))
    # 1 - cos = |u-v|²/2 for unit rows: exactly 0 for copies, where 1 - u·v is noise.
    return np.where(defined, squared / 2, 1.0)


def _divide(rows: Float64s, sizes: Float64s) -> None:
    rows /= np.where(sizes > 0, sizes, 1)  # (M, F) by (M, 1)


def _any(rows: Float64s) -> npt.NDArray[np.bool_]:
    found = rows[..., :1].any(axis=-1)  # (...), where most rows are done
    return np.asarray(found if found.all() else rows.any(axis=-1))


def _peak(rows: Floats) -> Float64s:
    peak = np.abs(rows).max(axis=1, keepdims=True, initial=0)  # (M, 1)
    return np.asarray(peak, np.float64)


def _length(rows: Float64s) -> Float64s:
    return np.asarray(np.sqrt(np.sum(rows * rows, axis=1, keepdims=True)))  # (M, 1)
