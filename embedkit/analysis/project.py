"""The map: two coordinates per image that keep neighbors together."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt
import xarray as xr

from embedkit.analysis.frame import (
    check_variables,
    in_one_task,
    labelled,
    provenance,
    whole,
)
from embedkit.analysis.graph import to_matrix
from embedkit.analysis.layout import initial_layout
from embedkit.analysis.planned import planned
from embedkit.errors import InputError
from embedkit.planning.analysis_models import PROJECT
from embedkit.planning.analysis_plan import AnalysisPlan


@overload
def project(
    graph: xr.Dataset,
    *,
    min_dist: float = 0.1,
    spread: float = 1.0,
    n_epochs: int | None = None,
    seed: int = 0,
    memory_limit: int | str | None = None,
    plan_only: Literal[False] = False,
) -> xr.DataArray: ...


@overload
def project(
    graph: xr.Dataset,
    *,
    min_dist: float = 0.1,
    spread: float = 1.0,
    n_epochs: int | None = None,
    seed: int = 0,
    memory_limit: int | str | None = None,
    plan_only: Literal[True],
) -> AnalysisPlan: ...


def project(
    graph: xr.Dataset,
    *,
    min_dist: float = 0.1,
    spread: float = 1.0,
    n_epochs: int | None = None,
    seed: int = 0,
    memory_limit: int | str | None = None,
    plan_only: bool = False,
) -> xr.DataArray | AnalysisPlan:
    """Lay the neighbor graph out in the plane by UMAP.

    Parameters
    ----------
    graph : Dataset, dims (image, neighbor)
        What `neighbor_graph` returned.
    min_dist : float, default 0.1
        How near two images may come in the map, at most `spread`.
    spread : float, default 1.0
        Scale of the map.
    n_epochs : int, optional
        Passes over the edges; 500 up to 10 000 images, else 200.
    seed : int, default 0
        Equal seeds give equal maps, on one kind of processor; 0 to 2^32 - 1.
    memory_limit : int or str, optional
        What a process may take, such as ``"4GB"``. By default half of what the smallest
        worker has, or half of what is free in this process.
    plan_only : bool, default False
        Return the plan and run nothing.

    Returns
    -------
    DataArray ``map`` of float32, dims (image, axis)
        Coordinate ``axis`` is "x", "y". NaN for an image without neighbors, because it
        could not be read. Lazy, one task on one thread, which holds the whole graph.
        With `plan_only` an `AnalysisPlan` instead.

    Raises
    ------
    InputError
        For parameters out of range, or not a graph.
    PlanError
        When it cannot be done within `memory_limit`, before anything is computed.

    References
    ----------
    McInnes, Healy, Melville (2018), UMAP, section 3.2.
    """
    check_variables(graph, asked="project", names=("indices", "weight"))
    seed = whole(seed, asked="project", name="seed")
    if n_epochs is not None:
        n_epochs = whole(n_epochs, asked="project", name="n_epochs")
    _check_parameters(min_dist, spread, n_epochs, seed)
    n_images, width = graph["indices"].shape
    plan = planned(PROJECT, n_images=n_images, width=width, memory_limit=memory_limit)
    if plan_only:
        return plan
    parameters: dict[str, Any] = {
        "min_dist": float(min_dist),
        "spread": float(spread),
        "n_epochs": n_epochs,
        "seed": seed,
    }
    (places,) = in_one_task(
        lay_out,
        graph["indices"].data,
        graph["weight"].data,
        like=[((graph.sizes["image"], 2), np.float32)],
        **parameters,
    )
    result = labelled(graph, {"map": (("image", "axis"), places)}, attrs={})["map"]
    attrs = provenance(graph, **parameters)
    return result.assign_coords(axis=["x", "y"]).assign_attrs(attrs)


def lay_out(
    indices: npt.NDArray[np.int64],
    weight: npt.NDArray[np.floating[Any]],
    *,
    min_dist: float,
    spread: float,
    n_epochs: int | None,
    seed: int,
) -> tuple[npt.NDArray[np.float32]]:
    """Lay out the graph given by weights at neighbor slots.

    Parameters
    ----------
    indices : ndarray of int64, shape (N, K)
        Neighbors, -1 for none.
    weight : ndarray, shape (N, K), floating
        Weight of the undirected edge of each slot.
    min_dist, spread, n_epochs, seed
        As in `project`.

    Returns
    -------
    tuple of one ndarray of float32, shape (N, 2)
    """
    places = np.full((len(indices), 2), np.nan, np.float32)
    rows = np.flatnonzero((indices >= 0).any(axis=1))
    if not len(rows):
        return (places,)
    matrix = to_matrix(indices, weight)[rows][:, rows]
    places[rows] = initial_layout(matrix, seed=seed)
    if matrix.nnz and len(rows) > 2:  # two points need no optimiser
        from embedkit.analysis import umap_adapter  # imports umap: only in the task

        places[rows] = umap_adapter.spread_out(
            matrix,
            start=places[rows],
            min_dist=min_dist,
            spread=spread,
            n_epochs=n_epochs,
            seed=seed,
        )
    return (places,)


def _check_parameters(
    min_dist: float, spread: float, n_epochs: int | None, seed: int
) -> None:
    if not 0 <= min_dist <= spread or not spread > 0:
        raise InputError(
            f"project got min_dist={min_dist} and spread={spread}; "
            "choose 0 <= min_dist <= spread and spread > 0."
        )
    if n_epochs is not None and n_epochs < 1:
        raise InputError(f"project got n_epochs={n_epochs}; choose 1 or more, or None.")
    if not 0 <= seed < 2**32:
        raise InputError(f"project got seed={seed}; choose 0 to 2^32 - 1.")
