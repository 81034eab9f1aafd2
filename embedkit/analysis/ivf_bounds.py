"""Which answers of a search through inverted lists are proven to be exact."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merge import Float64s, Ids


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
