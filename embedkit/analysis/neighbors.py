"""Exact nearest neighbors of every image, out of core, with a proof."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt
import xarray as xr

from embedkit.analysis.exact.knn import search
from embedkit.analysis.exact.scratch import (
    alone_in,
    keep_layout,
    kept_layout,
    scratch_folder,
)
from embedkit.analysis.frame import labelled, provenance
from embedkit.analysis.near.cheapest import approximate
from embedkit.analysis.neighbors_input import check_asked
from embedkit.analysis.pair_distances import Metric
from embedkit.analysis.recall import EXACT, MOST_CHECKED, provable
from embedkit.analysis.spool import Spool, spool
from embedkit.analysis.threads import machine
from embedkit.planning.near import NearPlan, plan_near
from embedkit.planning.neighbors import (
    Layout,
    Machine,
    NeighborsPlan,
    plan_neighbors,
)

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
        `embedkit.analysis.near.cheapest.approximate`. A share so near to 1 that no such
        check can show it (above .9992 of many rows) is searched for exactly.
    scratch : str or Path, optional
        Folder for files, which all workers reach under this name. It is kept: the same
        call goes on with what an interrupted one has finished, also with other workers,
        in the tiles that one had chosen. By default a temporary one of this machine.
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
    n_neighbors = check_asked(x, queries, n_neighbors, metric=metric, recall=recall)
    asked = _Asked(x, queries, n_neighbors, metric, recall, machine(memory_limit))
    near = asked.near_plan()
    plan = near or asked.plan()
    if plan_only:
        return plan
    found = None if near is None else asked.nearly(near, scratch)
    return asked.exactly(scratch) if found is None else found


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """One call, checked."""

    x: xr.DataArray
    queries: xr.DataArray | None
    n_neighbors: int
    metric: Metric
    recall: float
    machine: Machine

    @property
    def size(self) -> dict[str, int]:
        """What plans need to know."""
        return {
            "n_images": self.x.sizes["image"],
            "n_queries": 0 if self.queries is None else self.queries.sizes["image"],
            "features": self.x.shape[1],
            "n_neighbors": self.n_neighbors,
            "itemsize": self.x.dtype.itemsize,
        }

    @property
    def provable(self) -> bool:
        """Whether a search for less than all can show what it found."""
        like = self.x if self.queries is None else self.queries
        rows = like.sizes["image"]
        return self.recall < 1.0 and provable(self.recall, population=rows)

    def plan(self, layout: Layout | None = None) -> NeighborsPlan:
        """Plan the exact search, in tiles that were begun with if there are any."""
        return plan_neighbors(**self.size, machine=self.machine, layout=layout)

    def near_plan(self) -> NearPlan | None:
        """Plan a search for less than all, if that can be shown and be cheaper."""
        if not self.provable:
            return None
        return plan_near(
            **self.size,
            recall=self.recall,
            machine=self.machine,
            symmetric=self.metric != "inner_product",
        )

    def nearly(self, plan: NearPlan, scratch: str | Path | None) -> xr.Dataset | None:
        """Search for less than all; None where it turns out that all take less."""
        return approximate(
            self.x,
            queries=self.queries,
            n_neighbors=self.n_neighbors,
            metric=self.metric,
            recall=self.recall,
            way=plan,
            scratch=scratch,
        )

    def exactly(self, scratch: str | Path | None) -> xr.Dataset:
        """Search for all."""
        with scratch_folder(scratch) as folder:
            rows = spool(self.x, folder)
            queries = None if self.queries is None else spool(self.queries, folder)
            key = _key(rows, queries, self.n_neighbors, self.metric)
            place = folder / f"neighbors-{key}"
            with alone_in(place):
                plan = self.plan(kept_layout(place))
                keep_layout(place, plan.layout)
                found = search(
                    rows,
                    queries=queries,
                    k=self.n_neighbors,
                    metric=self.metric,
                    plan=plan,
                    folder=place,
                )
        return self._labelled(found, plan)

    def _labelled(self, found: npt.NDArray[Any], plan: NeighborsPlan) -> xr.Dataset:
        attrs = provenance(
            self.x,
            n_neighbors=self.n_neighbors,
            metric=self.metric,
            exact=True,
            certified=float(found["sure"].mean()),
            threads=plan.threads,
            tile_rows=plan.tile_rows,
            projected_mem=plan.projected_mem,
            **({} if self.recall == 1.0 else self._exact_after_all()),
        )
        like = self.x if self.queries is None else self.queries
        return labelled(like, _columns(found), attrs=attrs)

    def _exact_after_all(self) -> dict[str, Any]:
        """Say why a search is exact that was asked for less."""
        why = (
            "it takes no longer"
            if self.provable
            else f"recall {self.recall} is more than a check of {MOST_CHECKED} rows can show"
        )
        return {"recall_asked": self.recall, **EXACT.attrs(), "exact_because": why}


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


def _key(rows: Spool, queries: Spool | None, n_neighbors: int, metric: Metric) -> str:
    """Name what was asked for, whoever does it; tiles are written down beside the files."""
    among = queries.digest if queries else ""
    parts = (_METHOD, rows.digest, among, n_neighbors, metric)
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()
