"""Top-k lists joined by (distance, row number), the order that all searches share."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Float64s: TypeAlias = npt.NDArray[np.float64]
Ids: TypeAlias = npt.NDArray[np.int64]


def nothing_found(rows: int, k: int) -> tuple[Float64s, Ids]:
    """Return the answer without neighbors.

    Returns
    -------
    distances : ndarray of float64, shape (rows, k), NaN
    ids : ndarray of int64, shape (rows, k), -1
    """
    return np.full((rows, k), np.nan), np.full((rows, k), -1, np.int64)


def merge_nearest(
    first: tuple[Float64s, Ids], second: tuple[Float64s, Ids], *, k: int
) -> tuple[Float64s, Ids]:
    """Join two answers about disjoint rows into the nearest `k` of both.

    Parameters
    ----------
    first, second : (distances, ids)
        ndarrays of float64 and int64, shapes (Q, A) and (Q, B); NaN and -1 for none.
    k : int
        Neighbors to keep.

    Returns
    -------
    distances : ndarray of float64, shape (Q, k)
        Ascending, NaN for none; equal ones by row number.
    ids : ndarray of int64, shape (Q, k)
    """
    near = np.concatenate([first[0], second[0]], axis=1)
    ids = np.concatenate([first[1], second[1]], axis=1)
    # lexsort puts NaN last, after infinity.
    order = np.lexsort((ids, near), axis=-1)[:, :k]
    distances, rows = nothing_found(len(near), k)
    distances[:, : order.shape[1]] = np.take_along_axis(near, order, axis=1)
    rows[:, : order.shape[1]] = np.take_along_axis(ids, order, axis=1)
    return distances, rows
