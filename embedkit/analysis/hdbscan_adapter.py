"""The one file that calls hdbscan. Its import is slow, so tasks import this file."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from embedkit.quiet import quiet

with quiet(SyntaxWarning):  # escapes in its docstrings, seen once when it is compiled
    import hdbscan

Floats: TypeAlias = npt.NDArray[np.float64]


def fit(
    rows: Floats, *, min_cluster_size: int, min_samples: int
) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """Run exact HDBSCAN* with Euclidean distances.

    Parameters
    ----------
    rows : ndarray of float64, shape (N, F)
        Finite rows, at least two.
    min_cluster_size : int
        Fewest rows of a cluster, at least 2.
    min_samples : int
        Neighbors that define the density at a row, at least 1; N-1 if there are fewer.

    Returns
    -------
    label : ndarray of int64, shape (N,)
        Cluster, -1 for noise.
    probability : ndarray of float64, shape (N,)
        Strength of membership, 0 to 1.
    outlier_score : ndarray of float64, shape (N,)
        GLOSH, 0 to 1.

    References
    ----------
    Campello, Moulavi, Zimek, Sander (2015), Hierarchical density estimates for data
    clustering, visualization, and outlier detection, sections 3 and 6.
    """
    model = hdbscan.HDBSCAN(
        min_cluster_size=min_cluster_size,
        min_samples=min_samples,
        approx_min_span_tree=False,  # the default may return another tree
        core_dist_n_jobs=1,  # a Dask worker must not start processes of its own
    ).fit(rows)
    # Where copies make the greatest density infinite, hdbscan divides infinity by itself
    # for every row of finite density: the limit is 1.
    outlier_score = np.nan_to_num(model.outlier_scores_, nan=1.0)
    return model.labels_, model.probabilities_, outlier_score
