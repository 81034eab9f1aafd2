"""HDBSCAN clusters against hdbscan run directly."""

from __future__ import annotations

import json

import dask.array as da
import hdbscan
import numpy as np
import pytest
import xarray as xr

from embedkit.analysis.agreement import adjusted_rand
from embedkit.analysis.cluster import cluster
from embedkit.analysis.neighbors import neighbors
from embedkit.errors import InputError

NAMES = ("label", "probability", "outlier_score")


def direct(rows: np.ndarray, **kwargs: int) -> dict[str, np.ndarray]:
    """Run hdbscan itself."""
    fitted = hdbscan.HDBSCAN(
        approx_min_span_tree=False, core_dist_n_jobs=1, **kwargs
    ).fit(rows.astype(float))
    return dict(
        zip(
            NAMES,
            (fitted.labels_, fitted.probabilities_, fitted.outlier_scores_),
            strict=True,
        )
    )


@pytest.mark.parametrize(
    "kwargs", [{"min_cluster_size": 15}, {"min_cluster_size": 8, "min_samples": 3}]
)
def test_equals_hdbscan(blobs, as_images, kwargs) -> None:
    """Readable rows carry what hdbscan says of them alone."""
    result = cluster(as_images(*blobs, chunk=64), **kwargs).compute()
    kept = np.delete(np.arange(300), 7)
    for name, expected in direct(blobs[0][kept], **kwargs).items():
        np.testing.assert_allclose(result[name].values[kept], expected, rtol=1e-6)
        assert result[name].dims == ("image",)
    assert [result[name].dtype for name in NAMES] == [np.int64, np.float32, np.float32]


def test_finds_the_planted_clusters(blobs, as_images) -> None:
    """Five clusters; the unreadable row is noise without a score."""
    result = cluster(as_images(*blobs)).compute()
    assert adjusted_rand(result["label"], blobs[1])[1] == 1.0
    assert int(result["label"].max()) == 4
    assert result["label"].values[7] == -1
    assert result["probability"].values[7] == 0
    assert np.isnan(result["outlier_score"].values[7])


def test_cosine_is_euclidean_at_unit_length(blobs, as_images) -> None:
    """Scaling rows changes nothing; zero rows stay where they are."""
    rows = np.delete(blobs[0], 7, axis=0).astype(np.float64)
    rows[3] = 0
    unit = rows / np.where(rows.any(axis=1), np.linalg.norm(rows, axis=1), 1)[:, None]
    powers = np.random.default_rng(0).integers(-3, 4, size=(299, 1))
    scaled = rows * 2.0**powers  # exact, so that both see the same bits
    result = cluster(as_images(scaled), metric="cosine").compute()
    for name, expected in direct(unit, min_cluster_size=15).items():
        np.testing.assert_allclose(result[name].values, expected, rtol=1e-5, atol=1e-7)


def test_labels_of_the_images_are_kept_apart(blobs, as_images) -> None:
    """The table's label goes on as image_label."""
    result = cluster(as_images(*blobs))
    np.testing.assert_array_equal(result["image_label"], blobs[1])
    assert "label" not in result.coords


def test_a_map_can_be_clustered() -> None:
    """Two coordinates per image do as well."""
    rng = np.random.default_rng(0)
    places = np.concatenate([rng.normal(size=(40, 2)), rng.normal(size=(40, 2)) + 20])
    xy = xr.DataArray(
        places.astype(np.float32),
        dims=("image", "axis"),
        coords={"axis": ["x", "y"]},
        name="map",
    )
    result = cluster(xy)
    np.testing.assert_array_equal(np.sort(np.unique(result["label"])), [0, 1])
    assert "axis" not in result.coords


def test_neighbors_decide_the_metric(blobs, as_images) -> None:
    """The metric of the neighbors is used and recorded."""
    x = as_images(*blobs)
    by_neighbors = cluster(x, neighbors=neighbors(x, metric="cosine"))
    assert by_neighbors.attrs["metric"] == "cosine"
    xr.testing.assert_equal(
        by_neighbors.compute(), cluster(x, metric="cosine").compute()
    )


def test_building_computes_nothing(blobs, as_images, nothing_computes) -> None:
    """Lazy, with JSON attrs, also where ids are not loaded and cannot be compared."""
    x = as_images(*blobs, chunk=50)
    ids = xr.Coordinates(
        {"image": ("image", da.from_array(x["image"].values))}, indexes={}
    )
    other = xr.DataArray(x.data, dims=x.dims, coords=ids)
    nn = neighbors(x)
    with nothing_computes():
        result = cluster(other, neighbors=nn)
    assert all(isinstance(result[name].data, da.Array) for name in NAMES)
    assert json.loads(json.dumps(result.attrs))["min_samples"] == 15


def test_rows_without_ids_need_only_be_as_many(blobs) -> None:
    """Without ids there is nothing to compare."""
    x = xr.DataArray(blobs[0], dims=("image", "feature"))
    assert int(cluster(x, neighbors=neighbors(x))["label"].max()) == 4


def test_same_result_on_every_scheduler(blobs, as_images, client) -> None:
    """Synchronous, threaded and distributed agree to the byte."""
    clusters = cluster(as_images(*blobs, chunk=64))
    results = [clusters.compute(scheduler=each) for each in ("sync", "threads", client)]
    for other in results[1:]:
        xr.testing.assert_identical(results[0], other)


@pytest.mark.parametrize("readable", [0, 1, 2, 5])
def test_few_readable_images(as_images, readable) -> None:
    """Too few for any cluster: all noise, no error, no warning."""
    rows = np.full((6, 3), np.nan, np.float32)
    rows[:readable] = np.random.default_rng(0).normal(size=(readable, 3))
    result = cluster(as_images(rows)).compute()
    assert (result["label"] == -1).all()
    assert int(np.isfinite(result["outlier_score"]).sum()) == readable


def test_copies_are_not_outliers(as_images) -> None:
    """Many equal rows make infinite densities, and still finite scores."""
    rows = np.random.default_rng(0).normal(size=(80, 4))
    rows[:40] = rows[0]
    result = cluster(as_images(rows), min_cluster_size=5).compute()
    assert len(set(result["label"].values[:40].tolist())) == 1
    assert (result["outlier_score"].values[:40] == 0).all()
    assert result["outlier_score"].values.max() == 1
    assert np.isfinite(result["outlier_score"]).all()


@pytest.mark.parametrize("kwargs", [{"min_cluster_size": 1}, {"min_samples": 0}])
def test_sizes_out_of_range(blobs, as_images, kwargs) -> None:
    """Both are named with their ranges."""
    with pytest.raises(
        InputError, match=r"choose min_cluster_size >= 2 and min_samples >= 1"
    ):
        cluster(as_images(blobs[0]), **kwargs)


def test_contradicting_metric(blobs, as_images) -> None:
    """Two metrics at once are refused."""
    x = as_images(blobs[0])
    with pytest.raises(
        InputError, match=r"metric='euclidean' and neighbors by metric='cosine'"
    ):
        cluster(x, neighbors=neighbors(x, metric="cosine"), metric="euclidean")


def test_inner_product_is_no_distance(blobs, as_images) -> None:
    """Neither given nor through neighbors."""
    x = as_images(blobs[0])
    with pytest.raises(
        InputError, match=r"metric='inner_product'; choose 'euclidean' or 'cosine'"
    ):
        cluster(x, neighbors=neighbors(x, metric="inner_product"))


def test_neighbors_of_other_images(blobs, as_images) -> None:
    """Another number, or another id, is refused by name."""
    x = as_images(blobs[0])
    with pytest.raises(InputError, match=r"got 300 images and neighbors of 299"):
        cluster(x, neighbors=neighbors(x[1:]))
    with pytest.raises(
        InputError, match=r"row 0 is 'img0001' here and 'img0000' there"
    ):
        cluster(x[1:], neighbors=neighbors(x[:-1]))


def test_wrong_input() -> None:
    """Integers are refused."""
    with pytest.raises(
        InputError, match="cluster needs floating-point rows and got int64"
    ):
        cluster(xr.DataArray(np.zeros((4, 2), int), dims=("image", "feature")))


@pytest.mark.parametrize("name", ["min_cluster_size", "min_samples"])
@pytest.mark.parametrize("value", [2.5, True])
def test_sizes_that_are_not_whole(blobs, as_images, name, value) -> None:
    """Half an image is no size."""
    with pytest.raises(InputError, match=rf"cluster got {name}={value}; .*whole"):
        cluster(as_images(*blobs), **{name: value})


def test_zero_rows_are_copies_of_each_other_under_cosine(as_images) -> None:
    """They are one dense place at 1 from all unit rows, as the docstring says."""
    rows = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    rows[20:40] = 0
    found = cluster(as_images(rows), metric="cosine", min_cluster_size=10).compute()
    assert len(np.unique(found["label"].values[20:40])) == 1
