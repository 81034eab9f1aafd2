"""How far scores of a matrix product can be off, and what follows from them for certain.

Write the *key* of a pair for ``|A-B|²/2`` (Euclidean and cosine, the latter on unit rows)
or ``-A·B`` (inner product), with the rows scaled by one power of two so that no length
exceeds 1, and for the first two shifted by one common vector. Ordering by the key is
ordering by the distance. The *extent* ``n`` of a pair is what its rounding errors are in
proportion to: ``|A|² + |B|²``, or ``|A||B|`` for the inner product. It is one of the pair
alone: a single row of great length makes no other pair uncertain.

The score of a pair is one product of rounded, extended rows,

    (a, 1, -h(a)) · (b, -h(b), 1) = a·b - h(a) - h(b),    h(a) = (1/2 - share) |a|²
    (a, m(a), m(a)) · (b, m(b), m(b)) = a·b + 2 m(a) m(b),    m(a) = sqrt(share / 2) |a|

for the inner product, hence in exact arithmetic about ``-key + share n``. The share is
chosen so that rounding cannot use it up. With the unit roundoff u of the product's type,
v = 2^-53 that of float64, and gamma(k) = k u / (1 - k u) as in Higham, or with v in
gamma_v, these errors add up, each a multiple of n:

* the sum of F + 2 products errs by gamma(F+2) times the sum of their magnitudes, which is
  at most (1 + share) n, in any order of summation, fused or not (lemma 3.1 and (3.5));
* shifting, 2v, and rounding, u, change each entry relatively, hence the key by at most
  2 (u + 2v) n (1 + 2u);
* h is a sum of squares in float64, times a number, rounded: u/2 + gamma_v(F+3)/2;
  2 m(a) m(b) is off by share (2u + gamma_v(F+5)), which is less;
* the distance in float64, which is what the result is ordered by: gamma_v(F+6), which
  its square root halves and rounds.

Together that is less than ``gamma(F+8) (1 + share) + gamma_v(2F+20)``. With

    g = gamma(F+16) + gamma_v(3F+48)    and    share = g / (1 - g) = g (1 + share)

each pair has, and some units are to spare for what is computed from the extents,

    -key - slack  <=  score  <=  -key + 2 share n + slack,

where the slack is for what underflows, be it gradually or to zero: products and sums
below the smallest normal number w of the type, 2F + 3 of them; entries below it, in
float64 also those that the scaling brings there, times a length of at most 1; h below it;
and products in the float64 distance, which is of rows that are not scaled: F times
2^-1022 times the square of the scale. A length is not computed from a square that may
underflow. Nothing overflows: in scores by the scaling, in distances because longer rows
than `MOST_LENGTH` are refused.

Hence, if `need` pairs of a row have ``score - 2 share n`` of at least t, their keys are
at most ``slack - t``, so that the `need` nearest have keys of at most that, and each of
them has a score of at least ``t - 2 slack``, whatever its own extent. `Margins` are the
parts of ``2 share n + 2 slack``; the other bound of the score, ``score - 2 share n``, is
a product as well: with `lowered` right rows, whose column has the other sign of share.

References
----------
Higham (2002), Accuracy and Stability of Numerical Algorithms, sections 2.1 and 3.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from embedkit.analysis.pair_distances import Metric

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Float64s: TypeAlias = npt.NDArray[np.float64]
Kind: TypeAlias = Literal["f4", "f8"]

MOST_FEATURES = 2**20  # up to here the share of float32 is small: below 0.08
MOST_LENGTH = 2.0**510  # twice that has a square in float64
_MOST_SCALE = 480  # beyond, what squares lose unscaled would be no slack any more


@dataclass(frozen=True, slots=True)
class Margins:
    """How uncertain the scores of some rows are: ``base + rate * size`` of the other row.

    Parameters
    ----------
    base : ndarray of float64, shape (M,)
        Whatever the other row is.
    rate : ndarray of float64, shape (M,)
        Per `sizes` of the other row.
    """

    base: Float64s
    rate: Float64s

    def part(self, start: int, stop: int) -> Margins:
        """Return those of some of the rows."""
        return Margins(self.base[start:stop], self.rate[start:stop])


def error_share(features: int, kind: Kind) -> float:
    """Return the share of the extent of a pair that no rounding error exceeds.

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
    unit = 2.0**-24 if kind == "f4" else 2.0**-53
    all_errors = _gamma(features + 16, unit) + _gamma(3 * features + 48, 2.0**-53)
    return all_errors / (1 - all_errors)


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
    """Return the power of two that brings all rows, less a center, to a length up to 1.

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


def extended(rows: Float64s, metric: Metric, kind: Kind) -> Floats:
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
        ``(b, -h(b), 1)`` or ``(b, m(b), m(b))``, the right one of a product.
    """
    features = rows.shape[1]
    share = error_share(features, kind)
    out = np.empty((len(rows), features + 2), kind)
    out[:, :features] = rows
    if metric == "inner_product":
        out[:, -2:] = math.sqrt(share / 2) * _lengths(rows)[:, None]
    else:
        out[:, -2] = (share - 0.5) * squares(out[:, :features])
        out[:, -1] = 1
    return out


def left(right: Floats) -> Floats:
    """Return the left rows of a product, ``(a, 1, -h(a))``, from the right ones."""
    turned = right.copy()
    turned[:, [-2, -1]] = right[:, [-1, -2]]
    return turned


def lowered(right: Floats, metric: Metric, kind: Kind) -> Floats:
    """Return right rows whose scores are bounds from below: ``-key + base`` at most.

    Parameters
    ----------
    right : ndarray of `kind`, shape (M, F + 2)
        What `extended` returned.
    metric : {"euclidean", "cosine", "inner_product"}
    kind : {"f4", "f8"}

    Returns
    -------
    ndarray of `kind`, shape (M, F + 2)
        ``(b, -(1/2 + share) |b|², 1)`` or ``(b, -m(b), -m(b))``.
    """
    out = right.copy()
    if metric == "inner_product":
        out[:, -2:] *= -1
    else:
        share = error_share(right.shape[1] - 2, kind)
        out[:, -2] = right[:, -2].astype(np.float64) * (0.5 + share) / (0.5 - share)
    return out


def sizes(rows: Float64s, metric: Metric) -> Float64s:
    """Return what of each row the extents of its pairs are made.

    Parameters
    ----------
    rows : ndarray of float64, shape (M, F)
        Lifted, scaled and shifted, not rounded.
    metric : {"euclidean", "cosine", "inner_product"}

    Returns
    -------
    ndarray of float64, shape (M,)
        The squared length, or the length for the inner product.
    """
    return _lengths(rows) if metric == "inner_product" else squares(rows)


def margins(
    sizes: Float64s, metric: Metric, kind: Kind, *, features: int, exponent: int
) -> Margins:
    """Return how uncertain the scores of rows are.

    Parameters
    ----------
    sizes : ndarray of float64, shape (M,)
        Of the rows.
    metric : {"euclidean", "cosine", "inner_product"}
        Of the search.
    kind : {"f4", "f8"}
        Type of the product.
    features : int
        Length F of the rows.
    exponent : int
        The rows were scaled by two to this power.

    Returns
    -------
    Margins
    """
    share = 2 * error_share(features, kind)
    least = 2 * slack(features, kind, exponent)
    if metric == "inner_product":
        return Margins(np.full(len(sizes), least), share * sizes)
    return Margins(share * sizes + least, np.full(len(sizes), share))


def squares(rows: Floats) -> Float64s:
    """Squared length of each row, summed in float64 without a float64 copy."""
    return np.asarray(np.einsum("nf,nf->n", rows, rows, dtype=np.float64))


def _lengths(rows: Float64s) -> Float64s:
    """Length of each row, also where its square is no normal number."""
    _, exponents = np.frexp(np.abs(rows).max(axis=1, initial=0))  # (M,)
    scaled = np.ldexp(rows, -exponents[:, None])
    return np.asarray(np.ldexp(np.sqrt(squares(scaled)), exponents))


def _gamma(n: int, unit: float) -> float:
    """Bound the relative error of a sum of `n` rounded products, in any order."""
    return n * unit / (1 - n * unit)
