"""The nearest rows of a layer to a few vectors, chunk by chunk and exactly.

Every chunk is searched in a Dask task of its own, which returns its few best rows. The
distance of a pair of rows depends on nothing else, so the chunks do not show.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import compute
from dask.delayed import delayed

from embedkit.analysis.ivf_space import space_of
from embedkit.analysis.merge import merge_nearest, nothing_found
from embedkit.analysis.pair_distances import Metric
from embedkit.analysis.subset_search import search_subset

Ranked = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]


def nearest(
    x: xr.DataArray,
    vectors: npt.NDArray[np.floating[Any]],
    *,
    own: npt.NDArray[np.int64],
    k: int,
    metric: Metric,
    mask: npt.NDArray[np.bool_] | None = None,
) -> Ranked:
    """Find the `k` nearest rows of a layer for each vector.

    Parameters
    ----------
    x : DataArray, dims (image, feature), Dask-backed
        The layer. Rows with a NaN or an infinity are never found.
    vectors : ndarray, shape (Q, F), floating
        What to search for.
    own : ndarray of int64, shape (Q,)
        The row that each of them is, which it does not find; -1 for none.
    k : int
        Rows per vector.
    metric : {"euclidean", "cosine", "inner_product"}
        As for `embedkit.neighbors`.
    mask : ndarray of bool, shape (N,), optional
        Which rows are searched. Chunks without any are not read.

    Returns
    -------
    distances : ndarray of float64, shape (Q, k)
        Ascending, NaN where there are fewer.
    rows : ndarray of int64, shape (Q, k)
        -1 where `distances` is NaN. Equal distances: lower row first.
    """
    edges = [0, *np.cumsum(x.chunksizes["image"]).tolist()]
    given = delayed(vectors)
    starts, parts = [], []
    for block, (start, stop) in zip(
        x.data.to_delayed().ravel(), pairwise(edges), strict=True
    ):
        kept = None if mask is None else np.flatnonzero(mask[start:stop])
        if kept is None or len(kept):
            task = delayed(best_of_block)
            local = own - start
            found = task(block, given, own=local, kept=kept, k=k, metric=metric)
            starts.append(start)
            parts.append(found)
    best = nothing_found(len(vectors), k)
    for start, (distances, rows) in zip(starts, compute(*parts), strict=True):
        found = distances, np.where(rows < 0, -1, rows + start)
        best = merge_nearest(best, found, k=k)
    return best


def best_of_block(
    block: npt.NDArray[Any],
    vectors: npt.NDArray[np.floating[Any]],
    *,
    own: npt.NDArray[np.int64],
    kept: npt.NDArray[np.int64] | None,
    k: int,
    metric: Metric,
) -> Ranked:
    """Search the rows `kept` of one chunk; rows are counted from its first one."""
    rows = block if kept is None else block[kept]
    places = own
    if kept is not None:
        at = np.searchsorted(kept, own)
        there = np.append(kept, -2)[at] == own  # own may be -1, or of another chunk
        places = np.where(there, at, -1)
    space = space_of(rows, metric=metric)
    distances, found = search_subset(
        vectors, rows, query_places=places, k=k, space=space
    )
    return distances, found if kept is None else np.where(found < 0, -1, kept[found])
