"""Leiden communities and modularity, against networkx."""

from __future__ import annotations

import json

import networkx as nx
import numpy as np
import pytest
import xarray as xr
from scipy.sparse.csgraph import connected_components

from embedkit.analysis.agreement import adjusted_rand
from embedkit.analysis.communities import communities, largest_first, leiden, modularity
from embedkit.analysis.graph import adjacency, neighbor_graph
from embedkit.analysis.neighbors import neighbors
from embedkit.errors import InputError


@pytest.fixture
def graph(blobs, as_images) -> xr.Dataset:
    return neighbor_graph(neighbors(as_images(*blobs, chunk=100)))


@pytest.fixture
def loose(as_images) -> xr.Dataset:
    """One cloud without clusters: communities are many and arguable."""
    rows = np.random.default_rng(1).normal(size=(250, 5)).astype(np.float32)
    return neighbor_graph(neighbors(as_images(rows), n_neighbors=6))


def test_planted_partition_is_recovered(graph, blobs) -> None:
    """Five clusters give five communities; the unreadable image none."""
    community = communities(graph).compute()
    assert community.name == "community"
    assert community.dims == ("image",)
    assert community.dtype == np.int64
    kept = np.delete(np.arange(300), 7)
    assert adjusted_rand(community[kept], blobs[1][kept])[0] == 1.0
    assert community[7] == -1


def test_largest_comes_first(loose) -> None:
    """Numbers run without gaps from the largest to the smallest."""
    sizes = np.bincount(communities(loose).values)
    assert len(sizes) > 3
    assert (np.diff(sizes) <= 0).all()


def test_equal_seeds_equal_bytes(loose, client) -> None:
    """A seed fixes the result, on every scheduler; other seeds differ."""
    results = [
        communities(loose, seed=3).compute(scheduler=each)
        for each in ("sync", "threads", client)
    ]
    for other in results[1:]:
        xr.testing.assert_identical(results[0], other)
    others = [communities(loose, seed=seed).values for seed in range(5)]
    assert any((each != results[0].values).any() for each in others)


def test_resolution_refines(loose) -> None:
    """A higher resolution gives more communities."""
    counts = [
        communities(loose, resolution=each).values.max() for each in (0.2, 1.0, 5.0)
    ]
    assert counts == sorted(set(counts))


@pytest.mark.parametrize("resolution", [0.5, 1.0, 2.5])
def test_modularity_equals_networkx(loose, resolution) -> None:
    """Our formula agrees with networkx on Leiden's and on random labels."""
    network = nx.from_scipy_sparse_array(adjacency(loose).astype(np.float64))
    random = np.random.default_rng(0).integers(0, 9, 250)
    for labels in (communities(loose).values, random):
        sets = [
            set(np.flatnonzero(labels == each).tolist()) for each in np.unique(labels)
        ]
        expected = nx.algorithms.community.modularity(
            network, sets, resolution=resolution
        )
        assert modularity(loose, labels, resolution=resolution) == pytest.approx(
            expected, abs=1e-10
        )


def test_modularity_counts_noise_as_single_images(loose) -> None:
    """-1 is no community: each such image is one of its own."""
    labels = communities(loose).values
    labels[::7] = -1
    alone = labels.copy()
    alone[::7] = 1000 + np.arange(len(alone[::7]))
    assert modularity(loose, xr.DataArray(labels)) == modularity(loose, alone)


def test_leiden_beats_the_labels_of_chance(loose) -> None:
    """The partition found has a high modularity for this graph."""
    found = modularity(loose, communities(loose))
    best = max(modularity(loose, communities(loose, seed=seed)) for seed in range(5))
    assert found > 0.6
    assert found > 0.97 * best


def test_communities_are_connected(loose) -> None:
    """Leiden's guarantee: no community falls apart."""
    matrix = adjacency(loose)
    labels = communities(loose, resolution=0.3).values
    for each in np.unique(labels):
        rows = np.flatnonzero(labels == each)
        assert connected_components(matrix[rows][:, rows])[0] == 1


def test_an_image_without_weighty_edges_is_alone() -> None:
    """Readable but isolated gets its own community; unreadable gets -1."""
    indices = np.array([[1], [0], [0], [-1]])
    weight = np.array([[1.0], [1.0], [0.0], [0.0]], np.float32)
    np.testing.assert_array_equal(
        leiden(indices, weight, resolution=1.0, seed=0)[0], [0, 0, 1, -1]
    )


def test_graph_without_edges() -> None:
    """Nothing joins anything, and modularity is undefined."""
    indices, weight = np.array([[1], [0], [-1]]), np.zeros((3, 1), np.float32)
    np.testing.assert_array_equal(
        leiden(indices, weight, resolution=1.0, seed=0)[0], [0, 1, -1]
    )
    dims = ("image", "neighbor")
    empty = xr.Dataset({"indices": (dims, indices), "weight": (dims, weight)})
    assert np.isnan(modularity(empty, np.array([0, 1, -1])))


def test_renumbering_breaks_ties_by_first_row() -> None:
    """Of two groups of two, the one seen first has the lower number."""
    labels = np.array([9, 4, 4, 9, 7, 7, 7, 0])
    known = np.arange(8) < 7
    np.testing.assert_array_equal(
        largest_first(labels, known=known), [1, 2, 2, 1, 0, 0, 0, -1]
    )


def test_building_computes_nothing(graph, nothing_computes) -> None:
    """Lazy, labelled, documented in attrs that JSON can hold."""
    with nothing_computes():
        community = communities(graph, resolution=2, seed=5)
    assert set(community.coords) == {"image", "label", "status"}
    attrs = json.loads(json.dumps(community.attrs))
    assert (attrs["resolution"], attrs["seed"], attrs["kernel"]) == (2.0, 5, "umap")


@pytest.mark.parametrize("resolution", [0, -1.0, float("inf"), float("nan")])
def test_bad_resolution(graph, resolution) -> None:
    """Named with the range."""
    with pytest.raises(InputError, match=r"resolution=.*; choose one above 0"):
        communities(graph, resolution=resolution)


def test_bad_seed(graph) -> None:
    """Named with the range."""
    with pytest.raises(InputError, match=r"seed=-1; choose 0 to"):
        communities(graph, seed=-1)


def test_largest_seed_is_accepted(graph) -> None:
    """The stated range is what the library takes."""
    assert communities(graph, seed=2**63 - 1).values.max() == 4


def test_labels_of_another_length(graph) -> None:
    """Both lengths are named."""
    with pytest.raises(InputError, match=r"shape \(3,\) for 300 images"):
        modularity(graph, np.zeros(3, int))


@pytest.mark.parametrize("seed", [1.0, False])
def test_a_seed_that_is_not_whole(graph, seed) -> None:
    """Floats and booleans are refused."""
    with pytest.raises(InputError, match=rf"communities got seed={seed}; .*whole"):
        communities(graph, seed=seed)
