"""Initial places of the nodes of a graph."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import ArpackNoConvergence

from embedkit.analysis import layout
from embedkit.analysis.layout import initial_layout


def matrix_of(graph: nx.Graph) -> sp.csr_array:
    return sp.csr_array(nx.to_scipy_sparse_array(graph), dtype=np.float32)


@pytest.mark.parametrize("nodes", [12, 200])
def test_a_ring_becomes_a_ring(nodes: int) -> None:
    """The two slowest waves of a ring are a circle."""
    place = initial_layout(matrix_of(nx.cycle_graph(nodes)), seed=0)
    radius = np.linalg.norm(place - place.mean(axis=0), axis=1)
    assert radius.std() / radius.mean() < 0.02
    steps = np.linalg.norm(np.diff(place, axis=0), axis=1)
    assert steps.max() < 3 * 2 * np.pi * radius.mean() / nodes


def test_lanczos_and_dense_agree(monkeypatch) -> None:
    """Large components get the same plane by another way."""
    grid = nx.grid_2d_graph(12, 30)
    monkeypatch.setattr(layout, "_DENSE", 1000)
    dense = initial_layout(matrix_of(grid), seed=0)
    monkeypatch.setattr(layout, "_DENSE", 100)
    lanczos = initial_layout(matrix_of(grid), seed=0)
    for axis in range(2):
        assert abs(np.corrcoef(dense[:, axis], lanczos[:, axis])[0, 1]) > 0.999


def test_components_stand_apart() -> None:
    """The discs of twenty components of unequal size hardly overlap."""
    graphs = [nx.complete_graph(n) for n in range(4, 24)]
    place = initial_layout(matrix_of(nx.disjoint_union_all(graphs)), seed=0)
    labels = np.repeat(np.arange(20), np.arange(4, 24))
    centers = np.stack([place[labels == each].mean(axis=0) for each in range(20)])
    nearest = np.linalg.norm(place[:, None] - centers[None], axis=2).argmin(axis=1)
    assert (nearest == labels).mean() > 0.8
    largest = np.linalg.norm(centers, axis=1).argmin()
    assert largest == 19


@pytest.mark.parametrize("nodes", [1, 2, 3])
def test_single_nodes_and_pairs(nodes: int) -> None:
    """No eigenvector is needed, no two places are equal."""
    place = initial_layout(matrix_of(nx.path_graph(nodes)), seed=0)
    assert place.shape == (nodes, 2)
    assert place.dtype == np.float32
    assert len(np.unique(place, axis=0)) == nodes


def test_a_seed_fixes_all() -> None:
    """Equal seeds give equal bytes."""
    matrix = matrix_of(nx.connected_caveman_graph(80, 5))
    np.testing.assert_array_equal(
        initial_layout(matrix, seed=1), initial_layout(matrix, seed=1)
    )
    assert (initial_layout(matrix, seed=1) != initial_layout(matrix, seed=2)).any()


def test_without_eigenvectors_places_are_random(monkeypatch) -> None:
    """Where Lanczos does not converge, a seeded random plane is used."""

    def fail(*args, **kwargs):
        raise ArpackNoConvergence("no", np.empty(0), np.empty((0, 0)))

    monkeypatch.setattr(layout, "eigsh", fail)
    matrix = matrix_of(nx.cycle_graph(400))
    place = initial_layout(matrix, seed=0)
    assert np.isfinite(place).all()
    np.testing.assert_array_equal(place, initial_layout(matrix, seed=0))


def test_components_are_cut_from_blocks(monkeypatch) -> None:
    """Rows are picked by number a fixed number of times, however many components."""
    picked: list[object] = []
    get = sp.csr_array.__getitem__

    def spy(self, key):
        if any(not isinstance(part, slice) for part in key):
            picked.append(key)
        return get(self, key)

    monkeypatch.setattr(sp.csr_array, "__getitem__", spy)
    matrix = matrix_of(nx.disjoint_union_all([nx.complete_graph(5)] * 40))
    initial_layout(matrix, seed=0)
    assert 0 < len(picked) <= 2


def test_mixed_up_components_get_the_places_of_sorted_ones() -> None:
    """Nodes of several components in turn: the order decides nothing but the order."""
    graphs = [nx.lollipop_graph(4, tail) for tail in (5, 2, 8)]
    plain = matrix_of(nx.disjoint_union_all(graphs))
    share = np.concatenate([np.arange(n) / n for n in (9, 6, 12)])
    order = np.argsort(share, kind="stable")  # of a component, the order stays
    assert (np.diff(order) < 0).any()
    mixed = initial_layout(sp.csr_array(plain[order][:, order]), seed=0)
    np.testing.assert_allclose(mixed, initial_layout(plain, seed=0)[order], atol=0.02)
