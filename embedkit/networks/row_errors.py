"""How far rows of numbers are from what they should be."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def row_errors(
    found: NDArray[np.float32], expected: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return by how much rows differ, relative to each row's largest magnitude.

    Parameters
    ----------
    found, expected : ndarray of float32, shape (B, ...)
        Of the same shape.

    Returns
    -------
    (B,) array of float64
        The largest difference of a row over the largest finite magnitude that it should
        have; the difference itself for a row of zeros. Infinite where only one of two
        numbers is NaN or infinite.

    Examples
    --------
    >>> import numpy as np
    >>> row_errors(np.float32([[1, 4], [0, 3]]), np.float32([[2, 4], [0, 0]])).tolist()
    [0.25, 3.0]
    """
    shape = len(expected), math.prod(expected.shape[1:])  # also where there is no row
    wide, true = (each.reshape(shape).astype(np.float64) for each in (found, expected))
    same = (wide == true) | (np.isnan(wide) & np.isnan(true))
    with np.errstate(invalid="ignore"):
        gaps = np.where(same, 0.0, np.abs(wide - true))
    gaps = np.where(np.isnan(gaps), np.inf, gaps).max(axis=1, initial=0.0)
    finite = np.where(np.isfinite(true), np.abs(true), 0.0)
    scale = finite.max(axis=1, initial=0.0)
    errors: NDArray[np.float64] = gaps / np.where(scale > 0.0, scale, 1.0)
    return errors


def largest_error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the largest of `row_errors`; 0 where there is no row."""
    return float(row_errors(found, expected).max(initial=0.0))
