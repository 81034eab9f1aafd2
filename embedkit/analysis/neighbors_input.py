"""What `neighbors` takes, and what it says to anything else."""

from __future__ import annotations

import xarray as xr

from embedkit.analysis.exact.score_bounds import MOST_FEATURES
from embedkit.analysis.frame import check_rows, whole
from embedkit.errors import InputError


def check_asked(
    x: xr.DataArray,
    queries: xr.DataArray | None,
    n_neighbors: int,
    *,
    metric: str,
    recall: float,
) -> int:
    """Refuse what cannot be searched.

    Parameters
    ----------
    x, queries, n_neighbors, metric, recall
        As `embedkit.neighbors` takes them.

    Returns
    -------
    int
        Neighbors per image, a whole number.

    Raises
    ------
    InputError
        With what to pass instead.
    """
    check_rows(x, asked="neighbors", dims=("feature", "axis"))
    if queries is not None:
        _check_queries(x, queries)
    n_neighbors = whole(n_neighbors, asked="neighbors", name="n_neighbors")
    _check_count(n_neighbors, x.sizes["image"], others=queries is None)
    _check_metric(metric)
    _check_recall(recall)
    _check_features(x.shape[1])
    return n_neighbors


def _check_queries(x: xr.DataArray, queries: xr.DataArray) -> None:
    check_rows(queries, asked="neighbors", dims=("feature", "axis"))
    if not queries.sizes["image"]:
        raise InputError("neighbors got queries without any image; give one or more.")
    if queries.shape[1] != x.shape[1]:
        raise InputError(
            f"neighbors got queries of {queries.shape[1]} features for rows of "
            f"{x.shape[1]}; pass rows of the same layer of the same network."
        )


def _check_features(features: int) -> None:
    if not 1 <= features <= MOST_FEATURES:
        raise InputError(
            f"neighbors got rows of {features} features; choose a layer or a pool of 1 to "
            f"{MOST_FEATURES}."
        )


def _check_count(n_neighbors: int, n_images: int, *, others: bool) -> None:
    most = n_images - others
    if not 1 <= n_neighbors <= most:
        there = "other images" if others else "images"
        raise InputError(
            f"neighbors got n_neighbors={n_neighbors} for {n_images} images; "
            f"choose 1 to {most}, the number of {there}."
        )


def _check_metric(metric: str) -> None:
    known = ("euclidean", "cosine", "inner_product")
    if metric not in known:
        raise InputError(f"neighbors got metric={metric!r}; choose one of {known}.")


def _check_recall(recall: float) -> None:
    if not 0.0 < recall <= 1.0:
        raise InputError(
            f"neighbors got recall={recall!r}; choose a share above 0, or 1.0 for all."
        )
