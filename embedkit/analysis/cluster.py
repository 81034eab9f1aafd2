"""Density clusters of the images, with noise and outlier scores."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt
import xarray as xr

from embedkit.analysis.frame import (
    check_rows,
    in_one_task,
    labelled,
    provenance,
    whole,
)
from embedkit.analysis.planned import planned
from embedkit.analysis.rows import float64_rows, usable_rows
from embedkit.errors import InputError
from embedkit.planning.analysis_models import CLUSTER
from embedkit.planning.analysis_plan import AnalysisPlan


@overload
def cluster(
    x: xr.DataArray,
    *,
    neighbors: xr.Dataset | None = None,
    min_cluster_size: int = 15,
    min_samples: int | None = None,
    metric: Literal["euclidean", "cosine"] | None = None,
    memory_limit: int | str | None = None,
    plan_only: Literal[False] = False,
) -> xr.Dataset: ...


@overload
def cluster(
    x: xr.DataArray,
    *,
    neighbors: xr.Dataset | None = None,
    min_cluster_size: int = 15,
    min_samples: int | None = None,
    metric: Literal["euclidean", "cosine"] | None = None,
    memory_limit: int | str | None = None,
    plan_only: Literal[True],
) -> AnalysisPlan: ...


def cluster(
    x: xr.DataArray,
    *,
    neighbors: xr.Dataset | None = None,
    min_cluster_size: int = 15,
    min_samples: int | None = None,
    metric: Literal["euclidean", "cosine"] | None = None,
    memory_limit: int | str | None = None,
    plan_only: bool = False,
) -> xr.Dataset | AnalysisPlan:
    """Find clusters of images by HDBSCAN*, with exact distances.

    Parameters
    ----------
    x : DataArray, dims (image, feature) or (image, axis), floating
        One row per image, or a map. Rows with a NaN or an infinity are left out.
    neighbors : Dataset, optional
        What `neighbors` returned for the same images; decides the metric.
    min_cluster_size : int, default 15
        Fewest images of a cluster, at least 2.
    min_samples : int, optional
        Neighbors that define the density at an image; `min_cluster_size` by default.
        More calls more images noise.
    metric : {"euclidean", "cosine"}, optional
        That of `neighbors`, else Euclidean. Cosine clusters the rows at unit length by
        their Euclidean distance, which orders pairs of nonzero rows in the same way. A
        zero row stays at zero: at 1 from the others, nearer than orthogonal ones, though
        its cosine to all of them is 0 as well; and zero rows are copies of each other.
    memory_limit : int or str, optional
        What a process may take, such as ``"4GB"``. By default half of what the smallest
        worker has, or half of what is free in this process.
    plan_only : bool, default False
        Return the plan and run nothing.

    Returns
    -------
    Dataset, dims (image,)
        ``label`` int64, -1 for noise and for rows left out; ``probability`` float32, the
        strength of membership, 0 for those; ``outlier_score`` float32, GLOSH, near 1 for
        outliers, NaN for rows left out. A coordinate ``label`` of `x` is carried on as
        ``image_label``. Lazy, one task, which holds all rows of `x` in float64. With
        `plan_only` an `AnalysisPlan` instead.

    Raises
    ------
    InputError
        For parameters out of range, or `neighbors` of other images or another metric.
    PlanError
        When it cannot be done within `memory_limit`, before anything is computed.

    References
    ----------
    Campello, Moulavi, Zimek, Sander (2015), Hierarchical density estimates for data
    clustering, visualization, and outlier detection, sections 3 and 6.
    """
    check_rows(x, asked="cluster", dims=("feature", "axis"))
    min_cluster_size = whole(min_cluster_size, asked="cluster", name="min_cluster_size")
    if min_samples is not None:
        min_samples = whole(min_samples, asked="cluster", name="min_samples")
    if min_cluster_size < 2 or (min_samples is not None and min_samples < 1):
        raise InputError(
            f"cluster got min_cluster_size={min_cluster_size}, min_samples={min_samples}; "
            "choose min_cluster_size >= 2 and min_samples >= 1."
        )
    if neighbors is not None:
        _check_same_images(x, neighbors)
    parameters: dict[str, Any] = {
        "metric": _choose_metric(metric, neighbors),
        "min_cluster_size": min_cluster_size,
        "min_samples": min_samples or min_cluster_size,
    }
    plan = planned(
        CLUSTER,
        n_images=x.sizes["image"],
        width=x.shape[1],
        itemsize=x.dtype.itemsize,
        memory_limit=memory_limit,
    )
    if plan_only:
        return plan
    rows = (x.sizes["image"],)
    results = in_one_task(
        density_clusters,
        x.data,
        like=[(rows, np.int64), (rows, np.float32), (rows, np.float32)],
        **parameters,
    )
    names = ("label", "probability", "outlier_score")
    return labelled(
        x,
        {name: (("image",), data) for name, data in zip(names, results, strict=True)},
        attrs=provenance(x, **parameters),
    )


def density_clusters(
    x: npt.NDArray[np.floating[Any]],
    *,
    metric: str,
    min_cluster_size: int,
    min_samples: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Cluster the finite rows of `x`.

    Parameters
    ----------
    x : ndarray, shape (N, F), floating
        One row per image.
    metric, min_cluster_size, min_samples
        As in `cluster`.

    Returns
    -------
    label : ndarray of int64, shape (N,)
    probability, outlier_score : ndarray of float32, shape (N,)
    """
    from embedkit.analysis import hdbscan_adapter  # a slow import: only in the task

    label = np.full(len(x), -1, np.int64)
    probability = np.zeros(len(x), np.float32)
    outlier = np.full(len(x), np.nan, np.float32)
    kept = np.flatnonzero(usable_rows(x))
    if len(kept) < 2:  # nothing to compare with: noise, and no outlier
        outlier[kept] = 0
        return label, probability, outlier
    rows = float64_rows(x, kept)
    if metric == "cosine":
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        rows /= np.where(length > 0, length, 1)
    label[kept], probability[kept], outlier[kept] = hdbscan_adapter.fit(
        rows, min_cluster_size=min_cluster_size, min_samples=min_samples
    )
    return label, probability, outlier


def _choose_metric(metric: str | None, neighbors: xr.Dataset | None) -> str:
    """Reconcile the metric that was asked for with the one of the neighbors."""
    given = None if neighbors is None else neighbors.attrs.get("metric")
    if metric is not None and given is not None and metric != given:
        raise InputError(
            f"cluster got metric={metric!r} and neighbors by metric={given!r}; "
            "leave metric out, or search neighbors again with it."
        )
    chosen = metric or given or "euclidean"
    if chosen not in ("euclidean", "cosine"):
        raise InputError(
            f"cluster got metric={chosen!r}; choose 'euclidean' or 'cosine', "
            "because density needs a distance."
        )
    return chosen


def _check_same_images(x: xr.DataArray, neighbors: xr.Dataset) -> None:
    """Raise if sizes differ, or ids that are in memory: nothing is computed to compare."""
    here, there = x.sizes["image"], neighbors.sizes.get("image")
    if here != there:
        raise InputError(
            f"cluster got {here} images and neighbors of {there}; "
            "search neighbors of this very array."
        )
    if "image" not in x.coords or "image" not in neighbors.coords:
        return
    ours, theirs = x.coords["image"], neighbors.coords["image"]
    if ours.chunks is not None or theirs.chunks is not None:
        return
    differ = np.flatnonzero(ours.values != theirs.values)
    if differ.size:
        row = differ[0]
        raise InputError(
            f"cluster got neighbors of other images: row {row} is {str(ours.values[row])!r} "
            f"here and {str(theirs.values[row])!r} there; search neighbors of this very array."
        )
