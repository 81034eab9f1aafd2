"""The neighbor graph: symmetric weights on the edges that neighbor lists carry."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, overload

import dask.array as da
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import xarray as xr
from dask.base import compute

from embedkit.analysis.frame import check_variables, in_one_task, labelled, provenance
from embedkit.analysis.planned import planned
from embedkit.errors import InputError
from embedkit.planning.analysis_models import NEIGHBOR_GRAPH, NEIGHBOR_WEIGHTS
from embedkit.planning.analysis_plan import AnalysisPlan

Kernel: TypeAlias = Literal["umap", "binary", "similarity"]
Indices: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.floating[Any]]

# Which metrics a kernel can weigh: UMAP needs distances, a similarity must be bounded.
_METRICS: dict[str, tuple[str, ...]] = {
    "umap": ("euclidean", "cosine"),
    "binary": ("euclidean", "cosine", "inner_product"),
    "similarity": ("cosine",),
}


@overload
def neighbor_graph(
    nn: xr.Dataset,
    *,
    kernel: Kernel = "umap",
    memory_limit: int | str | None = None,
    plan_only: Literal[False] = False,
) -> xr.Dataset: ...


@overload
def neighbor_graph(
    nn: xr.Dataset,
    *,
    kernel: Kernel = "umap",
    memory_limit: int | str | None = None,
    plan_only: Literal[True],
) -> AnalysisPlan: ...


def neighbor_graph(
    nn: xr.Dataset,
    *,
    kernel: Kernel = "umap",
    memory_limit: int | str | None = None,
    plan_only: bool = False,
) -> xr.Dataset | AnalysisPlan:
    """Weigh the edges between neighbors, symmetrically.

    Two images are joined if either is among the neighbors of the other.

    Parameters
    ----------
    nn : Dataset, dims (image, neighbor)
        What `neighbors` returned.
    kernel : {"umap", "binary", "similarity"}, default "umap"
        Membership strength of the fuzzy union, after a bandwidth of its own for each
        image; 1; or the cosine, 0 where it is negative.
    memory_limit : int or str, optional
        What a process may take, such as ``"4GB"``. By default half of what the smallest
        worker has, or half of what is free in this process.
    plan_only : bool, default False
        Return the plan and run nothing.

    Returns
    -------
    Dataset, dims (image, neighbor)
        ``indices`` int64 as in `nn`; ``weight`` float32, the weight of the undirected
        edge {i, indices[i, slot]}, at every slot that carries it: an edge that both
        images list stands twice. 0 where there is no neighbor. Lazy: with
        ``kernel="umap"`` one task, which holds all lists; else some rows a task.
        With `plan_only` an `AnalysisPlan` instead.

    Raises
    ------
    InputError
        If `nn` lacks a variable, or was made with a metric that `kernel` cannot weigh.
    PlanError
        When it cannot be done within `memory_limit`, before anything is computed.

    References
    ----------
    McInnes, Healy, Melville (2018), UMAP, section 3.1.

    See Also
    --------
    embedkit.adjacency : The same graph as a sparse matrix.
    """
    check_variables(nn, asked="neighbor_graph", names=("indices", "distances"))
    _check_kernel(kernel, nn.attrs.get("metric", "euclidean"))
    plan = _plan(nn, kernel, memory_limit)
    if plan_only:
        return plan
    weight = _weights(nn, kernel, rows=plan.rows_per_task)
    dims = ("image", "neighbor")
    return labelled(
        nn,
        {"indices": (dims, nn["indices"].data), "weight": (dims, weight)},
        attrs=provenance(nn, kernel=kernel),
    )


def _plan(
    nn: xr.Dataset, kernel: Kernel, memory_limit: int | str | None
) -> AnalysisPlan:
    n_images, width = nn["indices"].shape
    return planned(
        NEIGHBOR_GRAPH if kernel == "umap" else NEIGHBOR_WEIGHTS,
        n_images=n_images,
        width=width,
        memory_limit=memory_limit,
    )


def _weights(nn: xr.Dataset, kernel: Kernel, *, rows: int) -> da.Array:
    """Weigh all slots lazily: each by itself, or all together for UMAP."""
    arrays = nn["indices"], nn["distances"]
    if kernel == "umap":
        like = [(nn["indices"].shape, np.float32)]
        data = (each.data for each in arrays)
        return in_one_task(slot_weights, *data, like=like, kernel=kernel)[0]
    cut = (each.chunk(image=rows, neighbor=-1).data for each in arrays)
    weighed: da.Array = da.map_blocks(
        _weights_of, *cut, dtype=np.float32, kernel=kernel
    )
    return weighed


def _weights_of(indices: Indices, distances: Floats, *, kernel: Kernel) -> Floats:
    return slot_weights(indices, distances, kernel=kernel)[0]


def adjacency(graph: xr.Dataset) -> sp.csr_array:
    """Compute the graph as a sparse matrix.

    Parameters
    ----------
    graph : Dataset, dims (image, neighbor)
        What `neighbor_graph` returned.

    Returns
    -------
    csr_array of float32, shape (N, N)
        Symmetric, zero diagonal, no stored zeros, sorted column numbers.

    Raises
    ------
    InputError
        If `graph` lacks a variable.
    """
    check_variables(graph, asked="adjacency", names=("indices", "weight"))
    indices, weight = compute(graph["indices"].data, graph["weight"].data)
    return to_matrix(np.asarray(indices), np.asarray(weight))


def to_matrix(indices: Indices, weight: Floats) -> sp.csr_array:
    """Assemble the symmetric matrix from weights at neighbor slots.

    Parameters
    ----------
    indices : ndarray of int64, shape (N, K)
        Neighbors, -1 for none.
    weight : ndarray, shape (N, K), floating
        Weight of the undirected edge of each slot.

    Returns
    -------
    csr_array of float32, shape (N, N)
    """
    rows, slots = np.nonzero((indices >= 0) & (weight > 0))
    entries = weight[rows, slots].astype(np.float32), (rows, indices[rows, slots])
    half = sp.csr_array(entries, shape=(len(indices), len(indices)))
    whole = sp.csr_array(half.maximum(half.T))  # both slots of an edge hold one weight
    whole.sort_indices()
    return whole


def slot_weights(
    indices: Indices, distances: Floats, *, kernel: Kernel
) -> tuple[Floats]:
    """Weigh every neighbor slot.

    Parameters
    ----------
    indices : ndarray of int64, shape (N, K)
        Neighbors, -1 for none.
    distances : ndarray, shape (N, K), floating
        Their distances, NaN for none.
    kernel : {"umap", "binary", "similarity"}
        As in `neighbor_graph`.

    Returns
    -------
    tuple of one ndarray of float32, shape (N, K)
    """
    present = indices >= 0
    if kernel == "umap":
        weight = (
            _umap_weights(indices, distances)
            if present.any()
            else np.zeros(present.shape)
        )
    elif kernel == "binary":
        weight = np.ones(present.shape)
    else:
        weight = np.maximum(0, 1 - distances)
    return (np.where(present, weight, 0).astype(np.float32),)


def _umap_weights(indices: Indices, distances: Floats) -> Floats:
    """Look up, at each slot, the fuzzy union over the rows that have neighbors."""
    from embedkit.analysis import (
        umap_adapter,  # imports umap: seconds, only in the task
    )

    present = indices >= 0
    rows = np.flatnonzero(present.any(axis=1))
    width = int(present.sum(axis=1).max())  # fewer than K where few images are readable
    number = np.full(len(indices) + 1, -1)  # its last entry answers for index -1
    number[rows] = np.arange(len(rows))
    near = number[indices[rows, :width]]  # (R, width), rows renumbered without gaps
    union = umap_adapter.fuzzy_union(near, distances[rows, :width].astype(np.float32))
    weight = np.zeros(indices.shape, np.float32)
    at, slot = np.nonzero(near >= 0)
    weight[rows[at], slot] = union[at, near[at, slot]]
    return weight


def _check_kernel(kernel: str, metric: str) -> None:
    if kernel not in _METRICS:
        raise InputError(
            f"neighbor_graph got kernel={kernel!r}; choose one of {tuple(_METRICS)}."
        )
    if metric not in _METRICS[kernel]:
        raise InputError(
            f"neighbor_graph got kernel={kernel!r} for neighbors by metric={metric!r}; "
            f"search with metric={' or '.join(map(repr, _METRICS[kernel]))}, or weigh "
            "with kernel='binary'."
        )
