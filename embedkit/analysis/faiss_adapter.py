"""FAISS behind a few functions, with its traps closed."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

Float32s = npt.NDArray[np.float32]


def nearest_centroid(
    points: Float32s, centroids: Float32s
) -> tuple[npt.NDArray[np.int64], Float32s]:
    """Return the number of the nearest centroid of each point, and the squared distance.

    Parameters
    ----------
    points : ndarray of float32, shape (n, F)
    centroids : ndarray of float32, shape (L, F)

    Returns
    -------
    numbers : ndarray of int64, shape (n,)
    squared : ndarray of float32, shape (n,)
        By expansion in float32; `float32_bounds` says how far off it can be.
    """
    squared, numbers = faiss.knn(points, centroids, 1)
    return numbers[:, 0], squared[:, 0]
