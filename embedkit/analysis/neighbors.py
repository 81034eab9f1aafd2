"""Exact nearest neighbors of every image, lazily."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal, cast

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.delayed import delayed

from embedkit.analysis import exact_knn
from embedkit.analysis.frame import (
    check_rows,
    in_one_task,
    labelled,
    provenance,
    whole,
)
from embedkit.errors import InputError

_ROWS_PER_TASK = 4096  # for arrays in memory; Dask arrays bring their own chunks


def neighbors(
    x: xr.DataArray,
    *,
    n_neighbors: int = 15,
    metric: Literal["euclidean", "cosine", "inner_product"] = "euclidean",
) -> xr.Dataset:
    """Find the nearest neighbors of every image, exactly.

    Parameters
    ----------
    x : DataArray, dims (image, feature), floating
        One row per image, in memory or Dask-backed. A row with a NaN or an infinity has
        no neighbors and is nobody's neighbor.
    n_neighbors : int, default 15
        Neighbors per image, itself not counted.
    metric : {"euclidean", "cosine", "inner_product"}, default "euclidean"
        Euclidean distance; one minus the cosine, where a zero row has cosine 0 to every
        row; or minus the inner product, which orders like a distance but is none.

    Returns
    -------
    Dataset, dims (image, neighbor)
        ``indices`` int64, row numbers in `x`, nearest first, -1 for none; ``distances``
        float32, NaN for none. Equal distances (in float64) are ordered by row number.
        Lazy, one task per chunk of images; the values do not depend on the chunks.
        Each task holds all rows of `x` at once, so they must fit into the memory of every
        worker; the tasks of one worker share them.

    Raises
    ------
    InputError
        For wrong dimensions or dtype, or `n_neighbors` that is not a whole
        number from 1 to N-1.

    See Also
    --------
    embedkit.neighbor_graph : The weighted graph of these neighbors.
    """
    check_rows(x, asked="neighbors", dims=("feature", "axis"))
    n_neighbors = whole(n_neighbors, asked="neighbors", name="n_neighbors")
    _check_count(n_neighbors, x.sizes["image"])
    _check_metric(metric)
    database = delayed(np.asarray)(x.data)
    blocks = [
        in_one_task(
            neighbors_of_rows,
            database,
            like=[
                ((stop - start, n_neighbors), np.int64),
                ((stop - start, n_neighbors), np.float32),
            ],
            start=start,
            stop=stop,
            n_neighbors=n_neighbors,
            metric=metric,
        )
        for start, stop in pairwise(_edges(x))
    ]
    join = cast("Callable[..., da.Array]", da.concatenate)
    indices, distances = (join(column) for column in zip(*blocks, strict=True))
    return labelled(
        x,
        {
            "indices": (("image", "neighbor"), indices),
            "distances": (("image", "neighbor"), distances),
        },
        attrs=provenance(x, n_neighbors=n_neighbors, metric=metric, exact=True),
    )


def neighbors_of_rows(
    database: npt.NDArray[Any],
    *,
    start: int,
    stop: int,
    n_neighbors: int,
    metric: exact_knn.Metric,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Search the whole database for its rows `start` to `stop`.

    Parameters
    ----------
    database : ndarray, shape (N, F), floating
        One row per image.
    start, stop : int
        The rows to search for.
    n_neighbors, metric
        As in `neighbors`.

    Returns
    -------
    indices : ndarray of int64, shape (stop - start, n_neighbors)
    distances : ndarray of float32, shape (stop - start, n_neighbors)
    """
    distances, indices = exact_knn.search(
        database[start:stop],
        database,
        query_ids=np.arange(start, stop),
        k=n_neighbors,
        metric=metric,
    )
    with np.errstate(over="ignore"):  # beyond 3e38 a float32 distance is infinite
        return indices, distances.astype(np.float32)


def _edges(x: xr.DataArray) -> list[int]:
    """First row of each task's chunk, and the number of rows."""
    rows = x.sizes["image"]
    if x.chunks is None:
        return [*range(0, rows, _ROWS_PER_TASK), rows]
    return [0, *np.cumsum(x.chunksizes["image"]).tolist()]


def _check_count(n_neighbors: int, n_images: int) -> None:
    if not 1 <= n_neighbors < n_images:
        raise InputError(
            f"neighbors got n_neighbors={n_neighbors} for {n_images} images; "
            f"choose 1 to {n_images - 1}, the number of other images."
        )


def _check_metric(metric: str) -> None:
    known = ("euclidean", "cosine", "inner_product")
    if metric not in known:
        raise InputError(f"neighbors got metric={metric!r}; choose one of {known}.")
