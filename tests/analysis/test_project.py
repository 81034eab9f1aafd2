"""The map: deterministic, faithful, and possible for any graph."""

from __future__ import annotations

import json

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from sklearn.manifold import trustworthiness

from embedkit.analysis.agreement import neighbor_accuracy
from embedkit.analysis.graph import neighbor_graph
from embedkit.analysis.neighbors import neighbors
from embedkit.analysis.project import project
from embedkit.errors import InputError


@pytest.fixture
def graph(blobs, as_images) -> xr.Dataset:
    return neighbor_graph(neighbors(as_images(*blobs, chunk=100))).compute()


def test_separates_planted_clusters(graph, blobs) -> None:
    """Trustworthy, and neighbors in the map share the label."""
    xy = project(graph).compute()
    kept = np.delete(np.arange(300), 7)
    assert trustworthiness(blobs[0][kept], xy.values[kept], n_neighbors=10) > 0.9
    near = neighbors(xy, n_neighbors=10)
    assert neighbor_accuracy(near, blobs[1]) == 1.0


def test_shape_labels_and_attrs(graph) -> None:
    """Named map, with axes x and y, and NaN for the unreadable image."""
    xy = project(graph, min_dist=0.2, n_epochs=30).compute()
    assert (xy.name, xy.dims, xy.dtype) == ("map", ("image", "axis"), np.float32)
    assert xy["axis"].values.tolist() == ["x", "y"]
    assert {"image", "label", "status"} < set(xy.coords)
    assert np.isnan(xy.values[7]).all()
    assert np.isfinite(np.delete(xy.values, 7, axis=0)).all()
    attrs = json.loads(json.dumps(xy.attrs))
    assert (attrs["min_dist"], attrs["n_epochs"], attrs["kernel"]) == (0.2, 30, "umap")


def test_equal_seeds_equal_bytes(graph, client) -> None:
    """A seed fixes the map on every scheduler; another seed gives another map."""
    maps = [
        project(graph, seed=4, n_epochs=50).compute(scheduler=s)
        for s in ("sync", "threads", client)
    ]
    for other in maps[1:]:
        xr.testing.assert_identical(maps[0], other)
    assert not np.array_equal(
        project(graph, seed=5, n_epochs=50), maps[0], equal_nan=True
    )


def test_numpy_global_seed_plays_no_part(as_images) -> None:
    """Components are placed without NumPy's global random state."""
    rows = np.repeat(np.arange(12), 10)[:, None] * 1000 + np.random.default_rng(
        0
    ).normal(size=(120, 3))
    graph = neighbor_graph(neighbors(as_images(rows.astype(np.float32)), n_neighbors=5))
    maps = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002
        maps.append(project(graph, n_epochs=20).values)
    np.testing.assert_array_equal(*maps)


def test_twelve_components(as_images) -> None:
    """Islands without any edge between them stay islands."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 25)
    rows = rng.normal(size=(300, 6)) + 100 * rng.normal(size=(12, 6))[labels]
    xy = project(neighbor_graph(neighbors(as_images(rows), n_neighbors=6))).compute()
    assert neighbor_accuracy(neighbors(xy, n_neighbors=5), labels) == 1.0
    centers = np.stack([xy.values[labels == each].mean(axis=0) for each in range(12)])
    gaps = np.linalg.norm(centers[:, None] - centers[None], axis=2) + 1e9 * np.eye(12)
    radius = max(
        np.linalg.norm(xy.values[labels == c] - centers[c], axis=1).mean()
        for c in range(12)
    )
    assert gaps.min() > radius


@pytest.mark.parametrize("n_images", [2, 3, 4, 5, 8])
def test_tiny(as_images, n_images) -> None:
    """Down to two images: finite, distinct places, no warning."""
    rows = np.random.default_rng(0).normal(size=(n_images, 5))
    nn = neighbors(as_images(rows), n_neighbors=n_images - 1)
    xy = project(neighbor_graph(nn)).values
    assert np.isfinite(xy).all()
    assert len(np.unique(xy, axis=0)) == n_images


def test_nothing_readable(as_images) -> None:
    """All NaN in, all NaN out."""
    graph = neighbor_graph(neighbors(as_images(np.full((4, 2), np.nan)), n_neighbors=2))
    assert np.isnan(project(graph)).all()


def test_images_without_weighty_edges() -> None:
    """Isolated but readable images have a place too."""
    dims = ("image", "neighbor")
    indices = np.array([[1], [0], [1], [0], [-1]])
    weight = np.array([[1], [1], [0], [0], [0]], np.float32)
    xy = project(
        xr.Dataset({"indices": (dims, indices), "weight": (dims, weight)})
    ).values
    assert np.isfinite(xy[:4]).all()
    assert np.isnan(xy[4]).all()


def test_copies_get_distinct_places(as_images) -> None:
    """Equal images do not fall onto one point or divide by zero."""
    xy = project(
        neighbor_graph(neighbors(as_images(np.ones((30, 3))), n_neighbors=5))
    ).values
    assert np.isfinite(xy).all()
    assert len(np.unique(xy, axis=0)) == 30


def test_building_computes_nothing(blobs, as_images, nothing_computes) -> None:
    """From neighbors to map without a computation."""
    nn = neighbors(as_images(*blobs, chunk=50))
    with nothing_computes():
        xy = project(neighbor_graph(nn))
    assert isinstance(xy.data, da.Array)
    assert xy.shape == (300, 2)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"min_dist": -0.1}, r"min_dist=-0.1 and spread=1.0; choose 0 <= min_dist"),
        ({"min_dist": 2.0}, r"min_dist=2.0 and spread=1.0"),
        ({"min_dist": 0.0, "spread": 0.0}, r"spread > 0"),
        ({"n_epochs": 0}, r"n_epochs=0; choose 1 or more, or None"),
        ({"seed": -1}, r"seed=-1; choose 0 to 2\^32 - 1"),
    ],
)
def test_parameters_out_of_range(graph, kwargs, message) -> None:
    """Each is named with its range."""
    with pytest.raises(InputError, match=message):
        project(graph, **kwargs)


def test_not_a_graph(blobs, as_images) -> None:
    """Neighbors are not yet a graph."""
    with pytest.raises(InputError, match="project needs a variable 'weight'"):
        project(neighbors(as_images(blobs[0])))


@pytest.mark.parametrize("name", ["seed", "n_epochs"])
@pytest.mark.parametrize("value", [2.5, True])
def test_numbers_that_are_not_whole(graph, name, value) -> None:
    """Floats and booleans are refused before anything is computed."""
    with pytest.raises(InputError, match=rf"project got {name}={value}; .*whole"):
        project(graph, **{name: value})
