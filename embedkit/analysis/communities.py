"""Communities of the neighbor graph by Leiden, and how good a partition is."""

from __future__ import annotations

from typing import Any, Literal, overload

import graspologic_native
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import xarray as xr

from embedkit.analysis.frame import (
    check_variables,
    in_one_task,
    labelled,
    provenance,
    whole,
)
from embedkit.analysis.graph import adjacency, to_matrix
from embedkit.analysis.planned import planned
from embedkit.errors import InputError
from embedkit.planning.analysis_models import COMMUNITIES
from embedkit.planning.analysis_plan import AnalysisPlan

Labels = npt.NDArray[np.int64]

_CYCLES = 2  # of moving, refining and aggregating; a third gains < 0.1 % of modularity


@overload
def communities(
    graph: xr.Dataset,
    *,
    resolution: float = 1.0,
    seed: int = 0,
    memory_limit: int | str | None = None,
    plan_only: Literal[False] = False,
) -> xr.DataArray: ...


@overload
def communities(
    graph: xr.Dataset,
    *,
    resolution: float = 1.0,
    seed: int = 0,
    memory_limit: int | str | None = None,
    plan_only: Literal[True],
) -> AnalysisPlan: ...


def communities(
    graph: xr.Dataset,
    *,
    resolution: float = 1.0,
    seed: int = 0,
    memory_limit: int | str | None = None,
    plan_only: bool = False,
) -> xr.DataArray | AnalysisPlan:
    """Partition the neighbor graph into communities by the Leiden algorithm.

    Parameters
    ----------
    graph : Dataset, dims (image, neighbor)
        What `neighbor_graph` returned.
    resolution : float, default 1.0
        Larger gives more, smaller communities; above 0.
    seed : int, default 0
        Equal seeds give equal communities; 0 to 2^63 - 1.
    memory_limit : int or str, optional
        What a process may take, such as ``"4GB"``. By default half of what the smallest
        worker has, or half of what is free in this process.
    plan_only : bool, default False
        Return the plan and run nothing.

    Returns
    -------
    DataArray ``community`` of int64, dims (image,)
        0 is the largest; equally large ones in the order of their first image. An image
        without any neighbor, because it could not be read, has -1. Lazy, one task, which
        holds the whole graph. With `plan_only` an `AnalysisPlan` instead.

    Raises
    ------
    InputError
        For a resolution that is not positive, a seed out of range, or not a graph.
    PlanError
        When it cannot be done within `memory_limit`, before anything is computed.

    References
    ----------
    Traag, Waltman, van Eck (2019), From Louvain to Leiden, algorithm A.2, maximising
    the modularity of Reichardt, Bornholdt (2006), equation 15.
    """
    check_variables(graph, asked="communities", names=("indices", "weight"))
    if not 0 < resolution < float("inf"):
        raise InputError(
            f"communities got resolution={resolution}; choose one above 0."
        )
    seed = whole(seed, asked="communities", name="seed")
    if not 0 <= seed < 2**63:
        raise InputError(f"communities got seed={seed}; choose 0 to 2^63 - 1.")
    n_images, width = graph["indices"].shape
    plan = planned(
        COMMUNITIES, n_images=n_images, width=width, memory_limit=memory_limit
    )
    if plan_only:
        return plan
    (community,) = in_one_task(
        leiden,
        graph["indices"].data,
        graph["weight"].data,
        like=[((graph.sizes["image"],), np.int64)],
        resolution=float(resolution),
        seed=seed,
    )
    attrs = provenance(graph, resolution=float(resolution), seed=seed)
    return labelled(graph, {"community": (("image",), community)}, attrs={})[
        "community"
    ].assign_attrs(attrs)


def leiden(
    indices: Labels,
    weight: npt.NDArray[np.floating[Any]],
    *,
    resolution: float,
    seed: int,
) -> tuple[Labels]:
    """Partition the graph given by weights at neighbor slots.

    Parameters
    ----------
    indices : ndarray of int64, shape (N, K)
        Neighbors, -1 for none.
    weight : ndarray, shape (N, K), floating
        Weight of the undirected edge of each slot.
    resolution, seed
        As in `communities`.

    Returns
    -------
    tuple of one ndarray of int64, shape (N,)
    """
    matrix = to_matrix(indices, weight)
    found = np.arange(len(indices))
    if matrix.nnz:  # the library panics on a graph without edges
        _, of_node = graspologic_native.leiden_csr(
            matrix.indptr.astype(np.int64),
            matrix.indices.astype(np.int32),
            matrix.data.astype(np.float64),
            len(indices),
            resolution=resolution,
            iterations=_CYCLES,
            seed=seed,
        )
        found = np.array(
            [of_node[node] for node in range(len(indices))], dtype=np.int64
        )
    return (largest_first(found, known=np.any(indices >= 0, axis=1)),)


def largest_first(labels: Labels, *, known: npt.NDArray[np.bool_]) -> Labels:
    """Renumber labels by decreasing size, ties by first row; -1 where not `known`.

    Parameters
    ----------
    labels : ndarray of int64, shape (N,)
        Any numbering.
    known : ndarray of bool, shape (N,)
        Which rows count.

    Returns
    -------
    ndarray of int64, shape (N,)
    """
    _, first, codes, sizes = np.unique(
        labels[known], return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.empty(len(first), np.int64)
    rank[np.lexsort((first, -sizes))] = np.arange(len(first))
    renumbered = np.full(len(labels), -1, np.int64)
    renumbered[known] = rank[codes]
    return renumbered


def modularity(
    graph: xr.Dataset,
    community: xr.DataArray | npt.NDArray[Any],
    *,
    resolution: float = 1.0,
) -> float:
    r"""Compute the modularity of a partition of the neighbor graph.

    .. math:: Q = \sum_c \left[ \frac{L_c}{m} - \gamma \left(\frac{k_c}{2m}\right)^2 \right]

    with :math:`m` the weight of all edges, :math:`L_c` of those inside of community
    :math:`c`, and :math:`k_c` the sum of the degrees of its images.

    Parameters
    ----------
    graph : Dataset, dims (image, neighbor)
        What `neighbor_graph` returned.
    community : DataArray or array of int, shape (N,)
        Label of each image. Images labelled -1 count as a community of one each.
    resolution : float, default 1.0
        The factor :math:`\gamma`.

    Returns
    -------
    float
        At most 1; NaN for a graph without edges.

    Raises
    ------
    InputError
        If there is not one label for each image.

    References
    ----------
    Newman (2004), Analysis of weighted networks, equation 4; Reichardt, Bornholdt
    (2006), equation 15, for the resolution.
    """
    labels = np.asarray(community)
    if labels.shape != (graph.sizes["image"],):
        raise InputError(
            f"modularity got labels of shape {labels.shape} for "
            f"{graph.sizes['image']} images; pass one label for each image."
        )
    return matrix_modularity(adjacency(graph), labels, resolution=resolution)


def matrix_modularity(
    matrix: sp.csr_array, labels: Labels, *, resolution: float
) -> float:
    """Compute the modularity of `labels` on a symmetric matrix with zero diagonal.

    Parameters
    ----------
    matrix : csr_array, shape (N, N)
        Edge weights.
    labels : ndarray of int, shape (N,)
        Communities; -1 for none.
    resolution : float
        Factor of the expected weight.

    Returns
    -------
    float
    """
    alone = labels < 0
    codes = np.where(alone, labels.max(initial=-1) + np.cumsum(alone), labels)
    _, codes = np.unique(codes, return_inverse=True)
    edges = matrix.tocoo()
    weight = edges.data.astype(np.float64)
    if not weight.size:
        return float("nan")
    inside = weight[codes[edges.row] == codes[edges.col]].sum()  # 2 L, all communities
    degree = np.bincount(codes[edges.row], weights=weight)  # k_c
    total = weight.sum()  # 2 m
    return float(inside / total - resolution * np.square(degree / total).sum())
