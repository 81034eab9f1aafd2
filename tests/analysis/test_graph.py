"""The neighbor graph against umap itself, and as a matrix."""

from __future__ import annotations

import json
import subprocess
import sys

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import pairwise_distances

from embedkit.analysis import umap_adapter
from embedkit.analysis.graph import adjacency, neighbor_graph, to_matrix
from embedkit.analysis.neighbors import neighbors
from embedkit.errors import InputError


@pytest.fixture
def nn(blobs, as_images) -> xr.Dataset:
    return neighbors(as_images(*blobs, chunk=100), n_neighbors=8)


@pytest.mark.slow
def test_weights_are_those_of_umap(blobs, as_images) -> None:
    """On the readable rows the graph equals umap's own, which found its neighbors itself."""
    kept = np.delete(np.arange(300), 7)
    full = pairwise_distances(blobs[0][kept].astype(float))
    reference, _, _ = umap_adapter.umap_.fuzzy_simplicial_set(
        full, n_neighbors=9, random_state=None, metric="precomputed"
    )
    graph = neighbor_graph(neighbors(as_images(blobs[0]), n_neighbors=8))
    matrix = adjacency(graph)
    np.testing.assert_allclose(
        matrix[kept][:, kept].toarray(), reference.toarray(), atol=2e-5
    )
    assert matrix[[7]].nnz == 0


@pytest.mark.parametrize("kernel", ["umap", "binary", "similarity"])
def test_adjacency_is_a_clean_symmetric_matrix(blobs, as_images, kernel) -> None:
    """Symmetric to the bit, no diagonal, no stored zeros, sorted, float32."""
    nn = neighbors(as_images(blobs[0]), n_neighbors=8, metric="cosine")
    matrix = adjacency(neighbor_graph(nn, kernel=kernel))
    assert matrix.shape == (300, 300)
    assert matrix.dtype == np.float32
    assert (matrix != matrix.T).nnz == 0
    assert matrix.diagonal().sum() == 0
    assert (matrix.data > 0).all()
    assert (matrix.data <= 1).all()
    assert all(
        (np.diff(matrix.indices[a:b]) > 0).all()
        for a, b in zip(matrix.indptr, matrix.indptr[1:], strict=False)
    )


def test_every_slot_holds_the_weight_of_its_edge(nn) -> None:
    """Slot (i, s) says what the matrix says of {i, indices[i, s]}."""
    graph = neighbor_graph(nn).compute()
    matrix = adjacency(graph).toarray()
    rows, slots = np.nonzero(graph["indices"].values >= 0)
    columns = graph["indices"].values[rows, slots]
    np.testing.assert_array_equal(
        graph["weight"].values[rows, slots], matrix[rows, columns]
    )
    assert (graph["weight"].values[7] == 0).all()


def test_binary_is_the_union_of_neighbors(nn) -> None:
    """Weight 1 where either lists the other."""
    matrix = adjacency(neighbor_graph(nn, kernel="binary")).toarray()
    lists = nn["indices"].values
    expected = np.zeros((300, 300))
    for row in range(300):
        expected[row, lists[row][lists[row] >= 0]] = 1
    np.testing.assert_array_equal(matrix, np.maximum(expected, expected.T))


def test_similarity_is_the_cosine(blobs, as_images) -> None:
    """Weight is the cosine of both rows, and never negative."""
    rows = blobs[0][20:60]
    graph = neighbor_graph(
        neighbors(as_images(rows), n_neighbors=39, metric="cosine"), kernel="similarity"
    )
    unit = rows.astype(float) / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = np.maximum(0, unit @ unit.T)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(adjacency(graph).toarray(), expected, atol=1e-6)


def test_building_computes_nothing(nn, nothing_computes) -> None:
    """The graph is lazy, labelled, and knows how it was made."""
    with nothing_computes():
        graph = neighbor_graph(nn)
    assert isinstance(graph["weight"].data, da.Array)
    assert graph["weight"].dtype == np.float32
    assert set(graph.coords) == set(nn.coords)
    attrs = json.loads(json.dumps(graph.attrs))
    assert (attrs["kernel"], attrs["metric"], attrs["n_neighbors"]) == (
        "umap",
        "euclidean",
        8,
    )


def test_same_result_on_every_scheduler(nn, client) -> None:
    """Synchronous, threaded and distributed agree to the byte."""
    graph = neighbor_graph(nn)
    results = [graph.compute(scheduler=each) for each in ("sync", "threads", client)]
    for other in results[1:]:
        xr.testing.assert_identical(results[0], other)


@pytest.mark.parametrize("readable", [0, 1, 2, 3, 5])
def test_few_readable_images(as_images, readable) -> None:
    """Rows have fewer neighbors than asked for, down to none."""
    rows = np.full((12, 3), np.nan, np.float32)
    rows[:readable] = np.random.default_rng(0).normal(size=(readable, 3))
    matrix = adjacency(neighbor_graph(neighbors(as_images(rows), n_neighbors=8)))
    assert matrix.nnz == readable * (readable - 1)
    assert np.isfinite(matrix.data).all()


def test_rows_with_gaps_at_their_end() -> None:
    """A list that is shorter than others, as from an approximate search, is weighed too."""
    indices = np.array([[1, 2], [0, -1], [0, 1]])
    distances = np.array([[1, 2], [1, np.nan], [2, 2.5]], np.float32)
    matrix = umap_adapter.fuzzy_union(indices, distances)
    assert np.isfinite(matrix.data).all()
    assert matrix[0, 1] == matrix[1, 0] == 1


def test_matrix_takes_an_edge_listed_once_or_twice() -> None:
    """Both slots of one edge are one entry, not their sum."""
    indices = np.array([[1], [0], [1], [-1]])
    weight = np.array([[0.5], [0.5], [0.25], [9.0]], np.float32)
    expected = np.zeros((4, 4), np.float32)
    expected[0, 1] = expected[1, 0] = 0.5
    expected[1, 2] = expected[2, 1] = 0.25
    np.testing.assert_array_equal(to_matrix(indices, weight).toarray(), expected)


@pytest.mark.parametrize(
    ("kernel", "metric"), [("umap", "inner_product"), ("similarity", "euclidean")]
)
def test_a_kernel_refuses_what_it_cannot_weigh(
    blobs, as_images, kernel, metric
) -> None:
    """Negative or unbounded distances are refused with a way out."""
    nn = neighbors(as_images(blobs[0]), metric=metric)
    with pytest.raises(
        InputError, match=rf"kernel='{kernel}'.*metric='{metric}'.*cosine.*binary"
    ):
        neighbor_graph(nn, kernel=kernel)


def test_unknown_kernel(nn) -> None:
    """The message lists the kernels."""
    with pytest.raises(InputError, match=r"kernel='gauss'; choose one of .*umap"):
        neighbor_graph(nn, kernel="gauss")  # type: ignore[arg-type]


def test_not_neighbors(nn) -> None:
    """Another Dataset is refused by what it lacks."""
    with pytest.raises(
        InputError, match=r"neighbor_graph needs a variable 'distances'.*indices"
    ):
        neighbor_graph(nn[["indices"]])
    with pytest.raises(InputError, match=r"adjacency needs a variable 'weight'"):
        adjacency(nn)


@pytest.mark.slow
def test_import_is_light() -> None:
    """Neither umap nor hdbscan nor numba comes with the lazy functions."""
    code = (
        "import sys, embedkit.analysis.graph, embedkit.analysis.project, "
        "embedkit.analysis.cluster; "
        "sys.exit(bool({'umap', 'numba', 'hdbscan'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
