"""Where each image stands before UMAP moves it: spectral, one component at a time."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import ArpackError, eigsh

Float64s: TypeAlias = npt.NDArray[np.float64]

_DENSE = 256  # nodes up to which all eigenvectors are computed, faster than Lanczos
_WIDTH = 10.0  # of the whole map, the unit that UMAP's step sizes assume
_GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))  # Vogel (1979): turns that never line up


def initial_layout(graph: sp.csr_array, *, seed: int) -> npt.NDArray[np.float32]:
    """Place every node of a graph, connected or not.

    Each component is laid out by the eigenvectors of its normalised Laplacian, scaled to
    a disc with an area in proportion to its nodes, and the discs are set on a spiral,
    largest in the middle. UMAP's own rule for more than four components draws from
    NumPy's global state, which no seed of ours reaches.

    Parameters
    ----------
    graph : csr_array, shape (N, N)
        Symmetric weights.
    seed : int
        Seed of the noise that separates nodes of equal position.

    Returns
    -------
    ndarray of float32, shape (N, 2)
        Within about -5 to 5; no two rows equal.

    References
    ----------
    Belkin, Niyogi (2003), Laplacian eigenmaps, section 2, with the normalisation of
    Ng, Jordan, Weiss (2001), section 2.
    """
    rng = np.random.default_rng(seed)
    count, member = connected_components(graph, directed=False)
    order = np.argsort(-np.bincount(member, minlength=count), kind="stable")
    nodes = np.argsort(member, kind="stable")
    edges = np.concatenate([[0], np.cumsum(np.bincount(member))])  # (components + 1,)
    # Once for all: picking the nodes of one component costs as much as the whole graph.
    blocks = sp.csr_array(graph[nodes][:, nodes], dtype=np.float64)
    placed = np.empty((graph.shape[0], 2))  # in the order of `nodes`
    before = 0  # nodes placed so far: the area of the spiral up to here
    for turn, component in enumerate(order):
        part = slice(edges[component], edges[component + 1])
        size = part.stop - part.start
        center = np.sqrt(before + size / 2) if turn else 0.0
        angle = turn * _GOLDEN_ANGLE
        disc = np.sqrt(size) * _unit_disc(blocks[part, part], rng)
        placed[part] = disc + center * np.array([np.cos(angle), np.sin(angle)])
        before += size
    place = np.empty_like(placed)
    place[nodes] = placed
    place *= _WIDTH / 2 / max(np.abs(place).max(), 1.0)
    return (place + rng.normal(scale=1e-4 * _WIDTH, size=place.shape)).astype(
        np.float32
    )


def _unit_disc(graph: sp.csr_array, rng: np.random.Generator) -> Float64s:
    """Lay out one component within the unit disc: (C, 2)."""
    if graph.shape[0] == 1:
        return np.zeros((1, 2))
    if graph.shape[0] <= 3:  # no two informative eigenvectors
        return rng.uniform(-0.5, 0.5, size=(graph.shape[0], 2))
    vectors = _eigenvectors(graph, rng)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1).max())


def _eigenvectors(graph: sp.csr_array, rng: np.random.Generator) -> Float64s:
    """Return the second and third eigenvector of D^-1/2 A D^-1/2: (C, 2)."""
    scale = 1 / np.sqrt(np.asarray(graph.sum(axis=1)))
    normal = sp.diags_array(scale) @ graph @ sp.diags_array(scale)
    if graph.shape[0] <= _DENSE:
        vectors = np.linalg.eigh(normal.toarray())[1][:, [-2, -3]]
    else:
        try:  # the largest of A converge far sooner than the smallest of the Laplacian
            start = rng.normal(size=graph.shape[0])
            values, found = eigsh(normal, k=3, which="LA", v0=start, tol=1e-4)
            vectors = found[:, np.argsort(-values)[1:]]
        except (
            ArpackError
        ):  # eigenvalues too close to tell apart: any plane does as well
            return rng.uniform(-0.5, 0.5, size=(graph.shape[0], 2))
    peaks = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
    return np.asarray(
        vectors * np.sign(peaks)
    )  # the sign of an eigenvector is arbitrary
