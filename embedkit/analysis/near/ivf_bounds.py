"""Which answers of a search through inverted lists are proven to be exact."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merge import Float64s, Ids

Float32s: TypeAlias = npt.NDArray[np.float32]


def squared_floor(points: Float32s, centroids: Float32s, best: Float32s) -> Float64s:
    """Bound from below the squared distance to every centroid that was not the nearest.

    Float32 expands |p-c|² into |p|² + |c|² - 2 p·c. Each of the three is a sum of F
    products, and |p||c| <= (|p|² + |c|²)/2: together off by 2 gamma(F) (|p|² + |c|²).
    Additions and rounding p to float32 cost less than 16 terms more; the last summand
    covers products below 2^-126, which may be flushed to zero.

    Parameters
    ----------
    points, centroids : ndarray of float32, shapes (n, F) and (L, F)
        Of a size that no square overflows.
    best : ndarray of float32, shape (n,)
        Least squared distance as float32 found it.

    Returns
    -------
    ndarray of float64, shape (n,)

    References
    ----------
    Higham (2002), Accuracy and Stability of Numerical Algorithms, lemma 3.1 and (3.5).
    """
    terms = points.shape[1] + 16
    share = terms * 2.0**-24
    norms = _squares(points) + _squares(centroids).max()
    error = 2 * share / (1 - share) * norms + terms * 2.0**-124
    return np.asarray(best.astype(np.float64) - error)


def _squares(rows: Float32s) -> Float64s:
    return np.asarray(np.einsum("nf,nf->n", rows, rows, dtype=np.float64))


def proven(
    queries: Float64s,
    furthest: Float64s,
    *,
    own: Ids,
    centroids: Float64s,
    skipped: Ids,
    radii: Float64s,
    gaps: Float64s,
) -> npt.NDArray[np.bool_]:
    """Tell for which queries no row of a list that was not searched can be nearer.

    A row y of the list around c is at least ``|q-c| - radius`` away. It is also nearer to
    c than to any other centroid o (squared, up to the `gaps` that rounding left), so it
    lies beyond the plane between both, at ``(|q-c|² - |q-o|² - gap) / (2 |c-o|)`` of q.

    Parameters
    ----------
    queries : ndarray of float64, shape (Q, F)
        Points of the common space.
    furthest : ndarray of float64, shape (Q,)
        Distance to the last neighbor that was found, NaN where neighbors are missing.
    own : ndarray of int64, shape (Q,)
        A list near each query, whose centroid is o.
    centroids : ndarray of float64, shape (L, F)
    skipped : ndarray of int64, shape (S,)
        Lists that hold rows and were not searched.
    radii, gaps : ndarray of float64, shape (L,)
        As in `ivf_lists.Lists`.

    Returns
    -------
    ndarray of bool, shape (Q,)

    References
    ----------
    Hjaltason, Samet (2003), Index-driven similarity search in metric spaces, sections 4.1
    (ball) and 4.2 (generalised hyperplane).
    """
    if not len(skipped):
        return np.ones(len(queries), bool)
    others, near = centroids[skipped], centroids[own]  # (S, F), (Q, F)
    lengths = np.einsum("lf,lf->l", others, others)
    size = np.einsum("qf,qf->q", queries, queries)
    home = np.einsum("qf,qf->q", near, near)
    # Every squared distance below is off by less than this.
    terms = 8 * (queries.shape[1] + 16) * 2.0**-53
    slack = terms * max(size.max() + lengths.max(), home.max() + lengths.max())
    squared = size[:, None] + lengths - 2 * queries @ others.T  # (Q, S)
    between = home[:, None] + lengths - 2 * near @ others.T  # (Q, S)
    to_home = np.einsum("qf,qf->q", queries - near, queries - near)
    ball = np.sqrt(np.maximum(squared - slack, 0))
    ball -= np.sqrt(radii[skipped] ** 2 + slack)
    rise = squared - to_home[:, None] - gaps[skipped] - 2 * slack
    plane = np.maximum(rise, 0) / (2 * np.sqrt(np.maximum(between, 0) + slack))
    floor = np.maximum(ball, plane).min(axis=1)
    with np.errstate(invalid="ignore"):  # NaN: fewer neighbors than asked for
        return np.asarray(floor > np.sqrt(furthest**2 + slack) * (1 + 2.0**-40))
