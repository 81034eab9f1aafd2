"""Exact nearest neighbors of every image, out of core, with a proof."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, overload

import dask.config
import numpy as np
import numpy.typing as npt
import xarray as xr

from embedkit.analysis.approximate import approximate
from embedkit.analysis.exact_knn import search
from embedkit.analysis.frame import check_rows, labelled, provenance, whole
from embedkit.analysis.machine import machine_for
from embedkit.analysis.pair_distances import Metric
from embedkit.analysis.recall import EXACT
from embedkit.analysis.score_bounds import MOST_FEATURES
from embedkit.analysis.spool import Spool, spool
from embedkit.errors import InputError
from embedkit.planning.near import NearPlan, plan_near
from embedkit.planning.neighbors import NeighborsPlan, plan_neighbors

_METHOD = "1"  # of the files in scratch: another one does not go on with them


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
) -> NeighborsPlan | NearPlan: ...


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
) -> xr.Dataset | NeighborsPlan | NearPlan:
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
        Share of the neighbors to find. Below 1, and where the exact search takes long,
        the cheapest of three ways is taken (inverted lists, a graph of neighbors of
        neighbors, the exact search), and what it finds is measured on sampled rows; see
        `embedkit.analysis.approximate.approximate`.
    scratch : str or Path, optional
        Folder for files, which all workers reach under this name. It is kept: the same
        call goes on with what an interrupted one has finished. By default a temporary
        one of this machine.
    memory_limit : int or str, optional
        What a process may take, such as ``"4GB"``. By default half of what the smallest
        worker has, or half of what is free in this process.
    plan_only : bool, default False
        Return the plan and run nothing.

    Returns
    -------
    Dataset, dims (image, neighbor)
        In memory. ``indices`` int64, row numbers in `x`, nearest first, -1 for none;
        ``distances`` float32, NaN for none; ``certified`` bool (image), True where
        products in float32 were proof, False where the row was searched again in float64,
        equally exactly, or has no neighbors. Equal distances (in float64) are ordered by
        row number. Neighbors and distances depend on the rows alone: not on chunks,
        workers, tiles or `memory_limit`. With `plan_only` a `NeighborsPlan` or a `NearPlan`
        instead. With `recall` below 1 the attributes hold ``exact``, ``recall`` and its
        95 % interval ``recall_low`` to ``recall_high``, and where it was not exact,
        ``certified`` are the rows whose neighbors are proven all the same.

    Raises
    ------
    InputError
        For wrong dimensions or dtype, `n_neighbors` that is not a whole number from 1 to
        N-1 (or N, for queries), or files that a worker cannot see.
    PlanError
        When the search cannot be done within `memory_limit`.
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
    size = {
        "n_images": x.sizes["image"],
        "n_queries": 0 if queries is None else queries.sizes["image"],
        "features": x.shape[1],
        "n_neighbors": n_neighbors,
        "itemsize": x.dtype.itemsize,
    }
    machine = machine_for(memory_limit)
    if recall < 1.0:
        near = plan_near(
            **size,
            recall=recall,
            machine=machine,
            symmetric=metric != "inner_product",
        )
        if near is not None:
            if plan_only:
                return near
            measured = approximate(
                x,
                queries=queries,
                n_neighbors=n_neighbors,
                metric=metric,
                recall=recall,
                way=near,
                scratch=scratch,
            )
            if measured is not None:
                return measured
    plan = plan_neighbors(**size, machine=machine)
    if plan_only:
        return plan
    with _folder(scratch) as folder:
        rows = spool(x, folder)
        asked = None if queries is None else spool(queries, folder)
        key = _key(rows, asked, n_neighbors, metric, plan)
        found = search(
            rows,
            queries=asked,
            k=n_neighbors,
            metric=metric,
            plan=plan,
            folder=folder / f"neighbors-{key}",
        )
    attrs = provenance(
        x,
        n_neighbors=n_neighbors,
        metric=metric,
        exact=True,
        **(EXACT.attrs() | {"recall_asked": recall} if recall < 1.0 else {}),
        certified=float(found["sure"].mean()),
        threads=plan.threads,
        tile_rows=plan.tile_rows,
        projected_mem=plan.projected_mem,
    )
    return labelled(x if queries is None else queries, _columns(found), attrs=attrs)


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


@contextmanager
def _folder(scratch: str | Path | None) -> Iterator[Path]:
    """Give a folder: the one that was asked for, or one that is removed at the end."""
    if scratch is not None:
        yield Path(scratch).absolute()
        return
    place = dask.config.get("temporary-directory", None)
    with tempfile.TemporaryDirectory(prefix="embedkit-", dir=place) as folder:
        yield Path(folder)


def _key(
    rows: Spool,
    queries: Spool | None,
    n_neighbors: int,
    metric: Metric,
    plan: NeighborsPlan,
) -> str:
    """Name what decides the bytes of the files of a search."""
    parts = (_METHOD, rows.digest, queries.digest if queries else "", n_neighbors)
    tiles = (metric, plan.tile_rows, plan.band_rows, plan.sample_rows)
    return hashlib.blake2b(repr((parts, tiles)).encode(), digest_size=8).hexdigest()


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
