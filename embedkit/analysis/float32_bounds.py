"""How far float32 scores can be off: what no row that FAISS left out can be nearer than.

Written for FAISS's BLAS path, the less exact one; the direct sum of (q-y)² errs less.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Float64s: TypeAlias = npt.NDArray[np.float64]

_FLT_MAX = float(np.finfo(np.float32).max)


def squared_floor(ask: Floats, base: Floats, last: Floats) -> Float64s:
    """Bound |q-y|² from below for rows that FAISS left out.

    With a, b the centred float32 rows, each of the three terms of the expansion is a sum
    of F products, and |a||b| <= (|a|² + |b|²)/2: together gamma(F) 2 (|a|² + |b|²). The
    final additions and rounding the rows to float32 cost 8 u (|a|² + |b|²) more, which 16
    additional terms cover twice. The last summand is for 4 F products below 2^-126, which
    may be flushed to zero; rounding rows to multiples of 2^-149 is negligible beside it.

    A row whose score overflows is left out whatever its distance, and the scores of the
    others show nothing of it. So there is a certificate only if no intermediate result
    can overflow for any row: exactly they are at most 2 (|a|² + |b|²), and rounding does
    not double that (gamma < 1 up to 8 million features).

    Parameters
    ----------
    ask, base : ndarray of float32, shapes (Q, F) and (N, F)
        Queries and database as FAISS saw them, centred alike.
    last : ndarray of float32, shape (Q,)
        Worst score among the rows that FAISS returned for each query.

    Returns
    -------
    ndarray of float64, shape (Q,)
        NaN where nothing is certain.
    """
    terms = ask.shape[1] + 16
    norms = _squares(ask) + _squares(base).max()  # (Q,)
    error = 2 * _gamma(terms, 2.0**-24) * norms + terms * 2.0**-124
    with np.errstate(invalid="ignore"):  # both may be infinite
        floor = last.astype(np.float64) - error
    return np.where(np.isfinite(floor) & (4 * norms < _FLT_MAX), floor, np.nan)


def inner_product_floor(
    base: Floats, last: Floats, queries: Floats, center: Float64s
) -> Float64s:
    """Bound -q·y from below for rows that FAISS left out, where q·y = q·(y-c) + q·c.

    One float32 sum of F products, plus the same in float64 for the part that centring
    took out and for the final distances. Rounding q and y-c to float32 is relative, which
    16 additional terms cover, down to 2^-126, and below that off by at most 2^-150 in each
    of F entries: sqrt(F) 2^-149 (|q| + |y-c|) covers both rows. Lengths of queries are
    those before rounding, which leaves nothing of the smallest.

    As in `squared_floor`, no partial sum may overflow: exactly they are at most |q||y-c|,
    and rounding does not double that. Nor may an entry of q by itself.

    Parameters
    ----------
    base : ndarray of float32, shape (N, F)
        The centred database as FAISS saw it.
    last : ndarray of float32, shape (Q,)
        Worst score among the rows that FAISS returned for each query.
    queries : ndarray, shape (Q, F), floating
        The queries before rounding.
    center : ndarray of float64, shape (F,)
        The mean c that was taken from the database alone.

    Returns
    -------
    ndarray of float64, shape (Q,)
        NaN where nothing is certain.
    """
    features = queries.shape[1]
    terms = features + 16
    with np.errstate(over="ignore", invalid="ignore"):  # infinite lengths: not safe
        length = np.sqrt(_squares(np.asarray(queries, np.float64)))  # (Q,)
        reach = np.sqrt(_squares(base).max())
        error = _gamma(terms, 2.0**-24) * length * reach + terms * 2.0**-125
        error += np.sqrt(features) * 2.0**-149 * (length + reach)
        error += 4 * _gamma(terms, 2.0**-53) * length * (reach + np.linalg.norm(center))
        offset = np.asarray(queries, np.float64) @ center
        safe = (2 * length * reach < _FLT_MAX) & (length < _FLT_MAX)
        floor = -last.astype(np.float64) - offset - error
    return np.where(np.isfinite(floor) & safe, floor, np.nan)


def _gamma(n: int, unit: float) -> float:
    """Bound the relative error of a sum of `n` rounded products, in any order.

    References
    ----------
    Higham (2002), Accuracy and Stability of Numerical Algorithms, lemma 3.1 and (3.5).
    """
    return n * unit / (1 - n * unit) if n * unit < 1 else float("inf")


def _squares(rows: Floats) -> Float64s:
    """Squared length of each row, summed in float64 without a float64 copy."""
    return np.asarray(np.einsum("nf,nf->n", rows, rows, dtype=np.float64))
