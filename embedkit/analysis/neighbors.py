"""Exact nearest neighbors of every image, out of core, with a proof."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt
import xarray as xr

from embedkit.analysis.exact_knn import search
from embedkit.analysis.frame import check_rows, labelled, provenance, whole
from embedkit.analysis.ivf_search import approximate
from embedkit.analysis.pair_distances import Metric
from embedkit.analysis.recall import EXACT, MOST_CHECKED, provable
from embedkit.analysis.score_bounds import MOST_FEATURES
from embedkit.analysis.scratch import (
    alone_in,
    keep_layout,
    kept_layout,
    scratch_folder,
)
from embedkit.analysis.spool import Spool, spool
from embedkit.analysis.threads import machine
from embedkit.errors import InputError
from embedkit.planning.neighbors import Layout, NeighborsPlan, plan_neighbors

_METHOD = "2"  # of the files in scratch: another one does not go on with them


@overload
def neighbors(
    x: xr.DataArray,
    *,
    queries: xr.DataArray | None = None,
    n_neighbors: int = 15,
    metric: Metric = "euclidean",
    recall: float = 1.0,
    scratch: str | Path | None = None,
    memory_limit: int | str | None = None,
    plan_only: Literal[False] = False,
) -> xr.Dataset: ...


@overload
def neighbors(
    x: xr.DataArray,
    *,
    queries: xr.DataArray | None = None,
    n_neighbors: int = 15,
    metric: Metric = "euclidean",
    recall: float = 1.0,
    scratch: str | Path | None = None,
    memory_limit: int | str | None = None,
    plan_only: Literal[True],
) -> NeighborsPlan: ...


def neighbors(
    x: xr.DataArray,
    *,
    queries: xr.DataArray | None = None,
    n_neighbors: int = 15,
    metric: Metric = "euclidean",
    recall: float = 1.0,
    scratch: str | Path | None = None,
    memory_limit: int | str | None = None,
    plan_only: bool = False,
) -> xr.Dataset | NeighborsPlan:
    """Find the nearest neighbors of every image, now: exactly, or with a measured recall.

    Rows go through a file, so they need not fit into memory. The work is done by Dask
    tasks: on the active cluster, else in this process. Where a worker sees an NVIDIA GPU,
    the products of a large search are done there (not with an empty CUDA_VISIBLE_DEVICES).

    Parameters
    ----------
    x : DataArray, dims (image, feature), floating
        One row per image, in memory or lazy. A row with a NaN or an infinity has no
        neighbors and is nobody's neighbor.
    queries : DataArray, dims (image, feature), optional
        Other rows, to search for among those of `x`; else every row of `x` among all
        others.
    n_neighbors : int, default 15
        Neighbors per image, itself not counted.
    metric : {"euclidean", "cosine", "inner_product"}, default "euclidean"
        Euclidean distance; one minus the cosine, where a zero row has cosine 0 to every
        row; or minus the inner product, which orders like a distance but is none.
    recall : float, default 1.0
        Share of the neighbors to find. Below 1 only the nearest of many lists of rows are
        searched, and what that finds is measured on sampled rows; see
        `embedkit.analysis.ivf_search.approximate`. A share so near to 1 that no such
        check can show it (above .9992 of many rows) is searched for exactly.
    scratch : str or Path, optional
        Folder for files, which all workers reach under this name. It is kept: the same
        call goes on with what an interrupted one has finished, also with other workers,
        in the tiles that one had chosen. By default a temporary one of this machine.
    memory_limit : int or str, optional
        For the exact search. What a process may take, such as ``"4GB"``. By default half of what the smallest
        worker has, or half of what is free in this process.
    plan_only : bool, default False
        Return the plan of the exact search and run nothing.

    Returns
    -------
    Dataset, dims (image, neighbor)
        In memory. ``indices`` int64, row numbers in `x`, nearest first, -1 for none;
        ``distances`` float32, NaN for none; ``certified`` bool (image), True where
        products in float32 were proof, False where the row was searched again in float64,
        equally exactly, or has no neighbors. Equal distances (in float64) are ordered by
        row number. Neighbors and distances depend on the rows alone: not on chunks,
        workers, tiles or `memory_limit`. With `plan_only` a `NeighborsPlan` instead. With
        `recall` below 1 the attributes hold ``recall`` with its 95 % interval
        ``recall_low`` to ``recall_high``, and ``certified`` are the rows that no list
        left out can hold a neighbor of.

    Raises
    ------
    InputError
        For wrong dimensions or dtype, `n_neighbors` that is not a whole number from 1 to
        N-1 (or N, for queries), files that a worker cannot see, or a search of the same
        in `scratch` that another process is doing now.
    PlanError
        When the search, or what is left of one that had begun with larger tiles, cannot be
        done within `memory_limit`.
    RecallNotReached
        When the lower end of the interval stays below `recall`.

    References
    ----------
    Higham (2002), Accuracy and Stability of Numerical Algorithms, section 3.1.

    See Also
    --------
    embedkit.neighbor_graph : The weighted graph of these neighbors.
    """
    check_rows(x, asked="neighbors", dims=("feature", "axis"))
    if queries is not None:
        _check_queries(x, queries)
    n_neighbors = whole(n_neighbors, asked="neighbors", name="n_neighbors")
    _check_count(n_neighbors, x.sizes["image"], others=queries is None)
    _check_metric(metric)
    _check_recall(recall)
    _check_features(x.shape[1])
    rows_asked = (x if queries is None else queries).sizes["image"]
    if recall < 1.0 and provable(recall, population=rows_asked):
        _check_exact_only(memory_limit, plan_only=plan_only)
        return approximate(
            x,
            queries=queries,
            n_neighbors=n_neighbors,
            metric=metric,
            recall=recall,
            scratch=scratch,
        )
    plan = _plan(x, queries, n_neighbors, memory_limit)
    if plan_only:
        return plan
    with scratch_folder(scratch) as folder:
        rows = spool(x, folder)
        asked = None if queries is None else spool(queries, folder)
        place = folder / f"neighbors-{_key(rows, asked, n_neighbors, metric)}"
        with alone_in(place):
            if begun := kept_layout(place):
                plan = _plan(x, queries, n_neighbors, memory_limit, begun)
            keep_layout(place, plan.layout)
            found = search(
                rows,
                queries=asked,
                k=n_neighbors,
                metric=metric,
                plan=plan,
                folder=place,
            )
    attrs = provenance(
        x,
        n_neighbors=n_neighbors,
        metric=metric,
        exact=True,
        certified=float(found["sure"].mean()),
        threads=plan.threads,
        tile_rows=plan.tile_rows,
        projected_mem=plan.projected_mem,
        **({} if recall == 1.0 else _exact_after_all(recall)),
    )
    return labelled(x if queries is None else queries, _columns(found), attrs=attrs)


def _exact_after_all(recall: float) -> dict[str, Any]:
    """Say why a search is exact that was asked for less."""
    why = f"recall {recall} is more than a check of {MOST_CHECKED} rows can show"
    return {"recall_asked": recall, **EXACT.attrs(), "exact_because": why}


def _columns(found: npt.NDArray[Any]) -> dict[str, tuple[tuple[str, ...], Any]]:
    """Return the variables of the result."""
    with np.errstate(over="ignore"):  # beyond 3e38 a float32 distance is infinite
        near = found["near"].astype(np.float32)
    near[found["ids"] < 0] = np.nan
    dims = ("image", "neighbor")
    return {
        "indices": (dims, np.ascontiguousarray(found["ids"])),
        "distances": (dims, near),
        "certified": (("image",), np.ascontiguousarray(found["sure"])),
    }


def _plan(
    x: xr.DataArray,
    queries: xr.DataArray | None,
    n_neighbors: int,
    memory_limit: int | str | None,
    layout: Layout | None = None,
) -> NeighborsPlan:
    return plan_neighbors(
        n_images=x.sizes["image"],
        n_queries=0 if queries is None else queries.sizes["image"],
        features=x.shape[1],
        n_neighbors=n_neighbors,
        itemsize=x.dtype.itemsize,
        machine=machine(memory_limit),
        layout=layout,
    )


def _key(rows: Spool, queries: Spool | None, n_neighbors: int, metric: Metric) -> str:
    """Name what was asked for, whoever does it; tiles are written down beside the files."""
    among = queries.digest if queries else ""
    parts = (_METHOD, rows.digest, among, n_neighbors, metric)
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


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


def _check_exact_only(memory_limit: int | str | None, *, plan_only: bool) -> None:
    if memory_limit is not None or plan_only:
        raise InputError(
            "neighbors got memory_limit= or plan_only= with a recall below 1; they are for "
            "the exact search: leave them out, or choose recall=1.0."
        )
