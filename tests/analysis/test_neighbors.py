"""The lazy neighbors: labels, laziness, chunks, schedulers, refusals."""

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

from embedkit.analysis import neighbors as module
from embedkit.analysis.neighbors import neighbors
from embedkit.errors import InputError


def test_shape_dtype_labels_and_attrs(blobs, as_images) -> None:
    """The result is labelled like its input and says how it was made."""
    x = as_images(*blobs, chunk=77)
    nn = neighbors(x, n_neighbors=4, metric="cosine")
    assert {name: each.dims for name, each in nn.data_vars.items()} == {
        "indices": ("image", "neighbor"),
        "distances": ("image", "neighbor"),
    }
    assert (nn["indices"].dtype, nn["distances"].dtype) == (np.int64, np.float32)
    assert set(nn.coords) == {"image", "label", "status"}
    assert "image" not in nn.indexes
    attrs = json.loads(json.dumps(nn.attrs))
    assert attrs["metric"] == "cosine"
    assert attrs["n_neighbors"] == 4
    assert attrs["source"] == "layer4"


def test_equals_sklearn(blobs, as_images) -> None:
    """Readable rows have sklearn's neighbors; the unreadable row has none."""
    rows, labels = blobs
    nn = neighbors(as_images(rows, labels, chunk=100), n_neighbors=6).compute()
    kept = np.delete(np.arange(300), 7)
    tree = NearestNeighbors(n_neighbors=6, algorithm="brute").fit(
        rows[kept].astype(float)
    )
    distances, found = tree.kneighbors()
    np.testing.assert_array_equal(nn["indices"].values[kept], kept[found])
    np.testing.assert_allclose(nn["distances"].values[kept], distances, rtol=1e-6)
    assert (nn["indices"].values[7] == -1).all()
    assert np.isnan(nn["distances"].values[7]).all()


@pytest.mark.parametrize("chunk", [None, 50])
def test_building_computes_nothing(blobs, as_images, nothing_computes, chunk) -> None:
    """In-memory and Dask-backed rows both give a lazy result, one task per chunk."""
    with nothing_computes():
        nn = neighbors(as_images(*blobs, chunk=chunk))
    assert all(isinstance(each.data, da.Array) for each in nn.data_vars.values())
    assert nn["indices"].data.numblocks == (6 if chunk else 1, 1)


def test_lazy_columns_stay_lazy(blobs, as_images, nothing_computes) -> None:
    """A coordinate that is not loaded is carried on as it is."""
    x = as_images(blobs[0]).assign_coords(uri=("image", da.zeros(300, chunks=30)))
    with nothing_computes():
        nn = neighbors(x)
    assert isinstance(nn["uri"].data, da.Array)


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
    whole = neighbors(as_images(blobs[0]), metric=metric).compute(scheduler="sync")
    edges = [0, *sorted(cuts), 300]
    x = as_images(blobs[0]).chunk(image=tuple(np.diff(edges).tolist()))
    parts = neighbors(x, metric=metric).compute(scheduler="sync")
    for name in ("indices", "distances"):
        assert parts[name].values.tobytes() == whole[name].values.tobytes()


def test_rows_in_memory_are_cut_too(blobs, as_images, monkeypatch) -> None:
    """Large arrays in memory become several tasks, with equal results."""
    whole = neighbors(as_images(blobs[0])).compute()
    monkeypatch.setattr(module, "_ROWS_PER_TASK", 128)
    parts = neighbors(as_images(blobs[0]))
    assert parts["indices"].data.chunks[0] == (128, 128, 44)
    xr.testing.assert_identical(whole, parts.compute())


def test_same_result_on_every_scheduler(blobs, as_images, client) -> None:
    """Synchronous, threaded and distributed agree to the byte."""
    nn = neighbors(as_images(*blobs, chunk=64))
    results = [nn.compute(scheduler=each) for each in ("sync", "threads", client)]
    for other in results[1:]:
        xr.testing.assert_identical(results[0], other)


def test_half_precision(blobs, as_images) -> None:
    """float16 rows are searched as the numbers they are."""
    rows = blobs[0].astype(np.float16)
    half = neighbors(as_images(rows), n_neighbors=3).compute()
    double = neighbors(as_images(rows.astype(np.float64)), n_neighbors=3).compute()
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
    nn = neighbors(x, n_neighbors=2).compute()
    np.testing.assert_array_equal(nn["indices"], [[1, 2], [0, 2], [1, 0]])
    assert np.isinf(nn["distances"]).all()


def test_one_task_per_chunk(blobs, as_images) -> None:
    """The task graph stays small: a search per chunk, not a pair of chunks."""
    nn = neighbors(as_images(blobs[0], chunk=30))
    searches = [
        key
        for key in dask.base.collections_to_expr(nn).__dask_graph__()
        if "neighbors_of_rows" in str(key)
    ]
    assert len([key for key in searches if isinstance(key, str)]) <= 30


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
