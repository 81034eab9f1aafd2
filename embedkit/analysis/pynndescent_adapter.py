"""The one file that calls pynndescent: points in memory to a graph of near neighbors.

Importing it compiles for seconds, so this file is imported inside of tasks.
"""

from __future__ import annotations

import numba
import numpy as np
from pynndescent import NNDescent

from embedkit.analysis.faiss_adapter import Float32s
from embedkit.analysis.merge import Ids
from embedkit.analysis.numba_lock import one_at_a_time


def descend(
    points: Float32s, *, width: int, seed: int, threads: int
) -> tuple[Ids, Float32s]:
    """Find near neighbors of every point by neighbors of neighbors.

    Parameters
    ----------
    points : ndarray of float32, shape (N, F)
        More than `width` of them, no two equal.
    width : int
        Neighbors per point. More of them cost more and find more of the nearest.
    seed : int
        Of the trees that it starts from. The same seed gives the same graph on the same
        number of threads.
    threads : int
        To work with.

    Returns
    -------
    indices : ndarray of int64, shape (N, width)
        Nearest first, the point itself not among them, -1 for none.
    distances : ndarray of float32, shape (N, width)
        Euclidean, infinite for none.

    References
    ----------
    Dong, Moses, Li (2011), Efficient k-nearest neighbor graph construction for generic
    similarity measures.
    """
    with one_at_a_time:
        before = numba.get_num_threads()
        try:
            made = NNDescent(
                points,
                metric="euclidean",
                n_neighbors=width + 1,  # the point itself is one
                random_state=seed,
                n_jobs=min(threads, before),
                compressed=True,  # keeps no trees
            )
        finally:
            numba.set_num_threads(before)
    indices, distances = made.neighbor_graph
    return _without_itself(indices.astype(np.int64), distances.astype(np.float32))


def _without_itself(indices: Ids, distances: Float32s) -> tuple[Ids, Float32s]:
    """Drop the point from its list; where it is not there, the last one."""
    distances = np.where(indices < 0, np.inf, distances)
    itself = indices == np.arange(len(indices))[:, None]
    order = np.argsort(itself, axis=1, kind="stable")[:, :-1]
    return (
        np.take_along_axis(indices, order, axis=1),
        np.take_along_axis(distances, order, axis=1),
    )
