"""The one file that calls umap-learn: neighbor lists to weights, weights to a map.

Only its two kernels are used, on the neighbors that embedkit found. Importing umap
compiles for seconds, so this file is imported inside of tasks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.utils import check_random_state

from embedkit.analysis.numba_lock import one_at_a_time
from embedkit.quiet import quiet

# Parametric UMAP, which needs Tensorflow, is not used.
with quiet(ImportWarning, message="Tensorflow not installed"):
    from umap import umap_


def fuzzy_union(
    indices: npt.NDArray[np.int64], distances: npt.NDArray[np.float32]
) -> sp.csr_array:
    """Turn neighbor lists into UMAP's symmetric membership strengths.

    Parameters
    ----------
    indices : ndarray of int64, shape (N, K)
        Neighbors of each row, nearest first, itself not among them, K >= 1; -1 for none,
        only at the end of a row that has at least one.
    distances : ndarray of float32, shape (N, K)
        Non-negative; anything where `indices` is -1. A missing neighbor counts as one at
        the distance of the last when the bandwidth of its row is chosen.

    Returns
    -------
    csr_array of float32, shape (N, N)
        Strengths in (0, 1], symmetric. UMAP counts the row itself as its first neighbor,
        so this is its graph for ``n_neighbors=K+1``.

    References
    ----------
    McInnes, Healy, Melville (2018), UMAP, section 3.1, algorithms 2 and 3.
    """
    rows = len(indices)
    itself = np.arange(rows)[:, None]
    last = np.nanmax(np.where(indices < 0, np.nan, distances), axis=1, keepdims=True)
    filled = np.where(indices < 0, last, distances)
    with one_at_a_time:
        graph, _, _ = umap_.fuzzy_simplicial_set(
            np.zeros((rows, 1), np.float32),  # only its length is used
            n_neighbors=indices.shape[1] + 1,
            random_state=None,  # nothing is random once neighbors are given
            metric="euclidean",
            knn_indices=np.concatenate([itself, indices], axis=1),
            knn_dists=np.concatenate(
                [np.zeros((rows, 1)), filled], axis=1, dtype=np.float32
            ),
        )
    return sp.csr_array(graph, dtype=np.float32)


def spread_out(
    graph: sp.csr_array,
    *,
    start: npt.NDArray[np.float32],
    min_dist: float,
    spread: float,
    n_epochs: int | None,
    seed: int,
) -> npt.NDArray[np.float32]:
    """Optimise a map by UMAP's stochastic gradient descent, on one thread.

    Parameters
    ----------
    graph : csr_array, shape (N, N)
        Symmetric strengths with at least one edge.
    start : ndarray of float32, shape (N, 2)
        Initial map, no two rows equal.
    min_dist, spread : float
        Shape of the curve that turns distance in the map into membership.
    n_epochs : int or None
        Passes over the edges; None for 500 up to 10 000 rows, else 200.
    seed : int
        Equal seeds give equal bytes.

    Returns
    -------
    ndarray of float32, shape (N, 2)

    References
    ----------
    McInnes, Healy, Melville (2018), UMAP, section 3.2, algorithm 5.
    """
    a, b = umap_.find_ab_params(spread, min_dist)
    options: dict[str, Any] = {
        "densmap": False,
        "densmap_kwds": {},
        "output_dens": False,
    }
    with one_at_a_time:
        layout, _ = umap_.simplicial_set_embedding(
            None,  # the data matter only to initialisations that are not used
            sp.csr_matrix(graph),
            n_components=2,
            initial_alpha=1.0,
            a=a,
            b=b,
            gamma=1.0,
            negative_sample_rate=5,
            n_epochs=n_epochs,
            init=start,
            random_state=check_random_state(seed),
            metric="euclidean",
            metric_kwds={},
            parallel=False,
            **options,
        )
    return np.asarray(layout, np.float32)
