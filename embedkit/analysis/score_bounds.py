"""How far scores of a matrix product can be off, and what follows from them for certain.

Write the *key* of a pair for ``|A-B|²/2`` (Euclidean and cosine, the latter on unit rows)
or ``-A·B`` (inner product), with the rows scaled by one power of two so that no length
exceeds 2, and for the first two shifted by one common vector. Ordering by the key is
ordering by the distance. The score of a pair is one product of rounded, extended rows

    (a, 1, -h(a)) · (b, -h(b), 1) = a·b - h(a) - h(b),    h(a) = (1/2 - share) |a|²

(or ``h(a) = -share |a|²`` for the inner product), in exact arithmetic ``-key`` plus
``share (|a|² + |b|²)``. The share is chosen so that rounding cannot use it up. With
n = |a|² + |b|² and the unit roundoff u of the product's type:

* the sum of F + 2 products errs by gamma(F+2) times the sum of their magnitudes, which is
  at most |a||b| + |h(a)| + |h(b)| <= n (Higham, lemma 3.1, any order of summation, with
  or without fused operations);
* rounding h to the type: u n / 2; rounding the rows: 2 u n (1 + u);
* shifting in float64, and the final distance in float64, which is what the result is
  ordered by, with its square root: gamma(F+8) n in float64.

So ``share = gamma(F+16)`` in the type, plus the same in float64, gives for every pair

    -key - slack  <=  score  <=  -key + 2 share n + slack,

where the slack is for what underflows: F + 2 products and as many sums below the smallest
normal number; entries of rows below it, times a length of at most 2; and squares in the
float64 distance, whose rows are not scaled. Nothing overflows, by the scaling.

Hence, if `need` pairs of a row have scores of at least w, the `need`-th smallest key is
at most ``-w + 2 share n + slack``, and a pair among the `need` nearest scores at least

    w - margin,    margin = 2 share (|a|² + max |b|²) + 2 slack.

References
----------
Higham (2002), Accuracy and Stability of Numerical Algorithms, lemma 3.1 and (3.5).
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from embedkit.analysis.pair_distances import Metric

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Float64s: TypeAlias = npt.NDArray[np.float64]
Kind: TypeAlias = Literal["f4", "f8"]

MOST_FEATURES = 2**20  # up to here the share of float32 is small: below 0.07
_MOST_SCALE = 400  # so that squares that underflow unscaled stay below the slack


def error_share(features: int, kind: Kind) -> float:
    """Return the share of |a|² + |b|² that no rounding error exceeds.

    Parameters
    ----------
    features : int
        Length F of the rows, at most `MOST_FEATURES`.
    kind : {"f4", "f8"}
        Type of the product.

    Returns
    -------
    float
    """
    terms = features + 16
    return _gamma(terms, 2.0**-24 if kind == "f4" else 2.0**-53) + _gamma(
        terms, 2.0**-53
    )


def slack(features: int, kind: Kind, exponent: int) -> float:
    """Return what underflow can take from a score.

    Parameters
    ----------
    features : int
        Length F of the rows.
    kind : {"f4", "f8"}
        Type of the product.
    exponent : int
        The rows were scaled by two to this power.

    Returns
    -------
    float
    """
    smallest = -120 if kind == "f4" else -1016  # 64 times the smallest normal number
    return (features + 16) * (2.0**smallest + 2.0 ** (2 * exponent - 1020))


def scale_exponent(peak: float, features: int) -> int:
    """Return the power of two that brings all rows, less their mean, to a length up to 1.

    Parameters
    ----------
    peak : float
        Largest magnitude of an entry.
    features : int
        Length F of the rows.

    Returns
    -------
    int
        Scaling by it is exact, but for entries that are nothing beside the peak.
    """
    if not peak:
        return 0
    _, exponent = math.frexp(peak)  # peak < 2^exponent
    return min(-exponent - 1 - math.ceil(math.log2(max(features, 1)) / 2), _MOST_SCALE)


def extended(rows: Floats, metric: Metric, kind: Kind) -> Floats:
    """Append what makes a product of two extended rows a score.

    Parameters
    ----------
    rows : ndarray of float64, shape (M, F)
        Lifted, scaled and shifted.
    metric : {"euclidean", "cosine", "inner_product"}
        Of the search.
    kind : {"f4", "f8"}
        Type of the product.

    Returns
    -------
    ndarray of `kind`, shape (M, F + 2)
        ``(b, -h(b), 1)``, the right one of a product.
    """
    features = rows.shape[1]
    out = np.empty((len(rows), features + 2), kind)
    out[:, :features] = rows
    weight = error_share(features, kind) - _half(metric)
    out[:, -2] = weight * squares(out[:, :features])
    out[:, -1] = 1
    return out


def left(right: Floats) -> Floats:
    """Return the left rows of a product, ``(a, 1, -h(a))``, from the right ones."""
    turned = right.copy()
    turned[:, [-2, -1]] = right[:, [-1, -2]]
    return turned


def margins(
    rows: Floats, metric: Metric, kind: Kind, *, reach: float, exponent: int
) -> Float64s:
    """Return how far below the worst of `need` scores a nearest pair may score.

    Parameters
    ----------
    rows : ndarray of `kind`, shape (M, F + 2)
        Extended, the right ones.
    metric : {"euclidean", "cosine", "inner_product"}
        Of the search.
    kind : {"f4", "f8"}
        Type of the product.
    reach : float
        Largest squared length of a database row.
    exponent : int
        The rows were scaled by two to this power.

    Returns
    -------
    ndarray of float64, shape (M,)
    """
    features = rows.shape[1] - 2
    share = error_share(features, kind)
    # off by u, relatively, which the terms of the share cover as well
    sizes = rows[:, -2].astype(np.float64) / (share - _half(metric))
    return 2 * (share * (sizes + reach) + slack(features, kind, exponent))


def _half(metric: Metric) -> float:
    return 0.0 if metric == "inner_product" else 0.5


def squares(rows: Floats) -> Float64s:
    """Squared length of each row, summed in float64 without a float64 copy."""
    return np.asarray(np.einsum("nf,nf->n", rows, rows, dtype=np.float64))


def _gamma(n: int, unit: float) -> float:
    """Bound the relative error of a sum of `n` rounded products, in any order."""
    return n * unit / (1 - n * unit)
