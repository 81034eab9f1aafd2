"""The neighbors: labels, chunks, schedulers, scratch folders, plans, refusals."""

from __future__ import annotations

import json

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from embedkit.analysis.exact import knn as exact_knn
from embedkit.analysis.neighbors import neighbors
from embedkit.errors import InputError, PlanError
from embedkit.planning import near
from embedkit.planning.neighbors import NeighborsPlan


def test_shape_dtype_labels_and_attrs(blobs, as_images) -> None:
    """The result is labelled like its input and says how it was made."""
    x = as_images(*blobs, chunk=77)
    nn = neighbors(x, n_neighbors=4, metric="cosine")
    assert {name: each.dims for name, each in nn.data_vars.items()} == {
        "indices": ("image", "neighbor"),
        "distances": ("image", "neighbor"),
        "certified": ("image",),
    }
    assert (nn["indices"].dtype, nn["distances"].dtype) == (np.int64, np.float32)
    assert set(nn.coords) == {"image", "label", "status"}
    assert "image" not in nn.indexes
    attrs = json.loads(json.dumps(nn.attrs))
    assert attrs["metric"] == "cosine"
    assert attrs["n_neighbors"] == 4
    assert attrs["source"] == "layer4"
    assert attrs["exact"] is True
    assert attrs["certified"] == 299 / 300  # one row is unreadable
    assert attrs["threads"] >= 1
    assert attrs["tile_rows"] >= 256
    assert attrs["projected_mem"] > 0
    assert isinstance(nn["indices"].data, np.ndarray)


def test_equals_sklearn(blobs, as_images) -> None:
    """Readable rows have sklearn's neighbors; the unreadable row has none."""
    rows, labels = blobs
    nn = neighbors(as_images(rows, labels, chunk=100), n_neighbors=6)
    kept = np.delete(np.arange(300), 7)
    tree = NearestNeighbors(n_neighbors=6, algorithm="brute").fit(
        rows[kept].astype(float)
    )
    distances, found = tree.kneighbors()
    np.testing.assert_array_equal(nn["indices"].values[kept], kept[found])
    np.testing.assert_allclose(nn["distances"].values[kept], distances, rtol=1e-6)
    assert (nn["indices"].values[7] == -1).all()
    assert np.isnan(nn["distances"].values[7]).all()


def test_certified_says_where_float32_was_proof(blobs, as_images) -> None:
    """An unreadable row has no neighbors, hence no proof."""
    nn = neighbors(as_images(blobs[0]))
    np.testing.assert_array_equal(nn["certified"], np.arange(300) != 7)


def test_lazy_columns_stay_lazy(blobs, as_images) -> None:
    """A coordinate that is not loaded is carried on as it is."""
    x = as_images(blobs[0]).assign_coords(uri=("image", da.zeros(300, chunks=30)))
    assert isinstance(neighbors(x)["uri"].data, da.Array)


def test_a_plan_runs_nothing(blobs, as_images, nothing_computes) -> None:
    """It tells what the search takes, in numbers and in a sentence."""
    with nothing_computes():
        plan = neighbors(as_images(*blobs, chunk=50), plan_only=True)
    assert (plan.n_images, plan.features, plan.n_neighbors) == (300, 16, 15)
    assert plan.projected_mem > 0
    assert "15 exact neighbors of 300 images of 16 features" in plan.describe()


def test_too_little_memory_is_told_before_anything_runs(
    blobs, as_images, nothing_computes
) -> None:
    """With what it takes, and what may be done."""
    with (
        nothing_computes(),
        pytest.raises(PlanError, match=r"take .* may take 2 MB: raise memory_limit"),
    ):
        neighbors(as_images(*blobs, chunk=50), memory_limit="2MB")


def test_queries_keep_their_own_labels(blobs, as_images) -> None:
    """The result is theirs; a copy finds its original."""
    x = as_images(blobs[0])
    nn = neighbors(x, queries=x[10:40].chunk(image=7), n_neighbors=2)
    assert nn["image"].values.tolist() == [f"img{i:04d}" for i in range(10, 40)]
    np.testing.assert_array_equal(nn["indices"][:, 0], np.arange(10, 40))
    assert (nn["distances"][:, 0] == 0).all()


def test_queries_of_another_layer_are_refused(blobs, as_images) -> None:
    """The message names both widths."""
    x = as_images(blobs[0])
    with pytest.raises(InputError, match=r"queries of 5 features for rows of 16"):
        neighbors(x, queries=x[:, :5])


def test_more_neighbors_of_queries_than_images(blobs, as_images) -> None:
    """All images can be neighbors, and no more."""
    x = as_images(blobs[0])[:20]
    assert neighbors(x, queries=x, n_neighbors=20).sizes["neighbor"] == 20
    with pytest.raises(InputError, match=r"for 20 images; choose 1 to 20"):
        neighbors(x, queries=x, n_neighbors=21)


@pytest.mark.parametrize("recall", [0.0, -0.5, 1.1])
def test_recall_is_a_share(blobs, as_images, recall) -> None:
    """The search is exact."""
    with pytest.raises(InputError, match=rf"recall={recall}; choose"):
        neighbors(as_images(blobs[0]), recall=recall)


@pytest.mark.parametrize("shape", [(4, 0), (4, 2**20 + 1)])
def test_too_few_or_many_features(shape) -> None:
    """The message names the bounds."""
    x = xr.DataArray(np.zeros(shape, np.float16), dims=("image", "feature"))
    with pytest.raises(InputError, match=rf"rows of {shape[1]} features; choose"):
        neighbors(x, n_neighbors=1)


def test_a_temporary_folder_is_removed(blobs, as_images, tmp_path) -> None:
    """Where Dask has its temporary files."""
    with dask.config.set({"temporary-directory": str(tmp_path)}):
        neighbors(as_images(blobs[0]))
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_folder_holds_what_is_finished(
    blobs, as_images, tmp_path, monkeypatch
) -> None:
    """The same call takes it from there, another call does not; the rest is gone."""
    x = as_images(blobs[0])
    first = neighbors(x, scratch=tmp_path)
    kept = sorted(each.name for each in tmp_path.glob("neighbors-*/*"))
    assert kept == ["layout.json", "lock", "near-0.npy"]

    def refuse(*_args: object) -> None:
        raise AssertionError("multiplied again")

    monkeypatch.setattr(exact_knn, "pair_bands", refuse)
    xr.testing.assert_identical(first, neighbors(x.chunk(image=9), scratch=tmp_path))
    with pytest.raises(AssertionError, match="multiplied again"):
        neighbors(x, scratch=tmp_path, n_neighbors=4)


def test_a_column_with_the_name_of_a_result_is_renamed(blobs, as_images) -> None:
    """A table column called 'distances' does not get lost or mixed up."""
    x = as_images(blobs[0]).assign_coords(distances=("image", np.arange(300)))
    nn = neighbors(x)
    assert nn["distances"].dims == ("image", "neighbor")
    np.testing.assert_array_equal(nn["image_distances"], np.arange(300))


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    cuts=st.sets(st.integers(1, 299), max_size=6),
    metric=st.sampled_from(["euclidean", "cosine", "inner_product"]),
)
def test_same_bytes_for_any_chunks(blobs, as_images, cuts, metric) -> None:
    """Chunks decide who computes what, never the values."""
    with dask.config.set(scheduler="sync"):
        whole = neighbors(as_images(blobs[0]), metric=metric)
    edges = [0, *sorted(cuts), 300]
    x = as_images(blobs[0]).chunk(image=tuple(np.diff(edges).tolist()))
    with dask.config.set(scheduler="threads"):
        parts = neighbors(x, metric=metric)
    for name in ("indices", "distances", "certified"):
        assert parts[name].values.tobytes() == whole[name].values.tobytes()


def test_same_result_on_every_scheduler(blobs, as_images, request) -> None:
    """Synchronous, threaded and distributed agree to the byte."""
    x = as_images(*blobs, chunk=64)
    results = []
    for name in ("sync", "threads"):
        with dask.config.set(scheduler=name):
            results.append(neighbors(x))
    request.getfixturevalue("client")  # which the other two would have used as well
    results.append(neighbors(x))
    for other in results[1:]:
        for name in results[0].data_vars:
            assert results[0][name].values.tobytes() == other[name].values.tobytes()


def test_half_precision(blobs, as_images) -> None:
    """float16 rows are searched as the numbers they are."""
    rows = blobs[0].astype(np.float16)
    half = neighbors(as_images(rows), n_neighbors=3)
    double = neighbors(as_images(rows.astype(np.float64)), n_neighbors=3)
    xr.testing.assert_identical(half, double)


@pytest.mark.parametrize("n_neighbors", [0, -3, 300, 1000])
def test_too_few_or_many_neighbors(blobs, as_images, n_neighbors) -> None:
    """The message names the number asked for and the range."""
    with pytest.raises(
        InputError, match=rf"n_neighbors={n_neighbors} for 300 .* 1 to 299"
    ):
        neighbors(as_images(blobs[0]), n_neighbors=n_neighbors)


def test_wrong_dims() -> None:
    """Activations with height and width are refused."""
    x = xr.DataArray(np.zeros((3, 2, 2, 2)), dims=("image", "channel", "y", "x"))
    with pytest.raises(InputError, match=r"needs dims \('image', 'feature'\).*channel"):
        neighbors(x)


def test_wrong_dtype() -> None:
    """Integers are refused with the conversion."""
    x = xr.DataArray(np.zeros((3, 2), np.uint8), dims=("image", "feature"))
    with pytest.raises(InputError, match=r"got uint8; convert .*astype\('float32'\)"):
        neighbors(x)


def test_wrong_metric(blobs, as_images) -> None:
    """The message lists the metrics."""
    with pytest.raises(InputError, match=r"metric='l1'; choose one of .*cosine"):
        neighbors(as_images(blobs[0]), metric="l1")  # type: ignore[arg-type]


def test_distances_beyond_float32_are_infinite() -> None:
    """float64 rows too far apart for float32 keep their order, without a warning."""
    x = xr.DataArray(np.array([[0.0], [1e100], [3e100]]), dims=("image", "feature"))
    nn = neighbors(x, n_neighbors=2)
    np.testing.assert_array_equal(nn["indices"], [[1, 2], [0, 2], [1, 0]])
    assert np.isinf(nn["distances"]).all()


@pytest.mark.parametrize("n_neighbors", [2.5, 3.0, True, "3", None])
def test_a_number_that_is_not_whole(blobs, as_images, n_neighbors) -> None:
    """Floats, booleans and text are refused at once."""
    with pytest.raises(InputError, match=r"neighbors got n_neighbors=.*whole number"):
        neighbors(as_images(blobs[0]), n_neighbors=n_neighbors)


def test_integers_of_numpy_are_whole(blobs, as_images) -> None:
    """They end up as plain numbers in the attributes."""
    nn = neighbors(as_images(blobs[0]), n_neighbors=np.int16(3))  # type: ignore[arg-type]
    assert type(nn.attrs["n_neighbors"]) is int
    assert nn.sizes["neighbor"] == 3


def test_a_recall_below_one_of_a_few_rows_is_exact(blobs, as_images) -> None:
    """Nothing is guessed where the exact search takes no time; the result says so."""
    x = as_images(blobs[0])

    found = neighbors(x, n_neighbors=5, recall=0.8)

    assert found["indices"].identical(neighbors(x, n_neighbors=5)["indices"])
    assert found.attrs["exact"]
    assert found.attrs["recall_asked"] == 0.8
    assert (found.attrs["recall_low"], found.attrs["recall_high"]) == (1, 1)
    assert found.attrs["exact_because"] == "it takes no longer"
    assert isinstance(neighbors(x, recall=0.8, plan_only=True), NeighborsPlan)


@pytest.mark.parametrize("way", ["lists", "graph", "exact"])
def test_a_recall_below_one_is_measured(blobs, as_images, monkeypatch, way) -> None:
    """Whichever way is the cheapest, it finds nearly what the exact search does."""
    monkeypatch.setattr(near, "EXACT_SECONDS", 0.0)
    monkeypatch.setattr(near.NearPlan, "cheapest", lambda *_: way)
    x = as_images(blobs[0])

    found = neighbors(x, n_neighbors=5, recall=0.8)

    exact = neighbors(x, n_neighbors=5)
    assert 0.8 <= found.attrs["recall_low"] <= found.attrs["recall"] <= 1
    share = (found["indices"].values == exact["indices"].values).mean()
    assert share >= 0.7
    assert found.attrs["exact"] == (way == "exact")
    plan = neighbors(x, n_neighbors=5, recall=0.8, plan_only=True)
    assert isinstance(plan, near.NearPlan)


@pytest.mark.slow
def test_a_recall_that_no_check_can_show_is_searched_for_exactly(
    as_images, monkeypatch
) -> None:
    """At once, and the result says why; what can be shown is not."""
    x = as_images(np.random.default_rng(0).normal(size=(12_000, 3)))
    monkeypatch.setattr(near, "EXACT_SECONDS", 0.0)

    found = neighbors(x, n_neighbors=2, recall=0.9999, memory_limit="4GB")

    attrs = json.loads(json.dumps(found.attrs))
    assert (attrs["exact"], attrs["recall_asked"]) == (True, 0.9999)
    assert attrs["recall"] == attrs["recall_low"] == 1.0
    assert "recall 0.9999 is more than a check of 5000 rows" in attrs["exact_because"]
    exact = neighbors(x, n_neighbors=2)
    assert "exact_because" not in exact.attrs
    np.testing.assert_array_equal(found["indices"], exact["indices"])
    plan = neighbors(x, n_neighbors=2, recall=0.999, plan_only=True)
    assert isinstance(plan, near.NearPlan)


@pytest.mark.slow
def test_a_zero_row_is_found_once(as_images) -> None:
    """Also by a query at one distance of so many that all are measured directly."""
    rows = np.zeros((500, 2048), np.float32)
    rows[1, 1] = 1.0
    rows[2:, 0] = np.arange(1, 499)

    found = neighbors(as_images(rows), n_neighbors=3, metric="cosine")

    assert found["indices"].values[1].tolist() == [0, 2, 3]


def test_no_queries_are_refused(blobs, as_images) -> None:
    """There is nothing to answer."""
    x = as_images(blobs[0])
    with pytest.raises(InputError, match="without any image"):
        neighbors(x, queries=x[:0])
