"""Rows of images as plain arrays: which can be used, which labels are missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

_BLOCK = 2**22  # entries looked at together, so that the mask stays at 4 MiB


def usable_rows(x: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Tell which rows hold finite numbers only.

    The row of an unreadable image is all NaN; a row where float16 overflowed holds an
    infinity. Neither has a distance to anything.

    Parameters
    ----------
    x : ndarray, shape (N, F), floating
        One row per image.

    Returns
    -------
    ndarray of bool, shape (N,)
        True where every entry is finite.
    """
    height = max(1, _BLOCK // max(1, x.shape[1]))
    starts = range(0, len(x), height)
    masks = [np.isfinite(x[start : start + height]).all(axis=1) for start in starts]
    return np.concatenate([np.empty(0, bool), *masks])


def float64_rows(
    x: npt.NDArray[np.floating[Any]], kept: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Take some rows in float64, without a copy of them as they are.

    Parameters
    ----------
    x : ndarray, shape (N, F), floating
        One row per image.
    kept : ndarray of int64, shape (n,)
        Which rows.

    Returns
    -------
    ndarray of float64, shape (n, F)
        Always a copy.
    """
    rows = np.empty((len(kept), x.shape[1]))
    height = max(1, _BLOCK // max(1, x.shape[1]))
    for start in range(0, len(kept), height):
        rows[start : start + height] = x[kept[start : start + height]]
    return rows


def missing(values: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Tell which labels are missing: None, NaN, NaT, NA, or an empty string.

    Parameters
    ----------
    values : array_like, shape (N,)
        Labels of any type.

    Returns
    -------
    ndarray of bool, shape (N,)
        True where there is no label.
    """
    column = pd.Series(np.asarray(values)).astype(object)
    return np.asarray(column.isna() | (column == ""), dtype=bool)
