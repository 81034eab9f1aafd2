"""Approximate neighbors: what they promise, against exact ones."""

import dask
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

import embedkit as ek
from embedkit.analysis.near import ivf_tune
from embedkit.analysis.near.cheapest import approximate
from embedkit.analysis.near.ivf_tiles import make_tiles, probed_rows
from embedkit.errors import RecallNotReached

METRICS = ("euclidean", "cosine", "inner_product")


def _rows(n=2000, d=12):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 12, n)
    rows = 2 * rng.normal(size=(12, d))[labels] + rng.normal(size=(n, d))
    rows[20:50] = rows[19]
    rows[[5, 6]], rows[7], rows[[8, 9]] = np.nan, np.inf, 0
    return rows.astype(np.float32)


def _find(x, **options):
    options = {"n_neighbors": 7, "metric": "euclidean", "recall": 0.9, **options}
    return approximate(x, **options)


@pytest.mark.parametrize("metric", METRICS)
def test_contract(as_images, metric):
    """Recall, interval, proof and order hold against the exact answer."""
    x = as_images(_rows())

    found = _find(x, metric=metric)

    exact = ek.neighbors(x, n_neighbors=7, metric=metric)
    usable = (exact["indices"] >= 0).all("neighbor").values
    ids, wanted = found["indices"].values, exact["indices"].values
    same = (wanted[:, :, None] == ids[:, None, :]).any(axis=2)
    assert 0.9 <= found.attrs["recall_low"] <= same[usable].mean()
    assert same[usable].mean() <= found.attrs["recall_high"] <= 1
    certified = found["certified"].values
    assert 0.02 < certified.mean() < 1
    assert (ids[certified] == wanted[certified]).all()
    assert (ids[~usable] == -1).all()
    assert np.isnan(found["distances"].values[~usable]).all()
    assert (ids != np.arange(len(x))[:, None]).all()
    near = found["distances"].values[usable]
    assert (np.diff(near, axis=1) >= 0).all()
    assert found["indices"].dtype == np.int64
    assert found["distances"].dtype == np.float32
    assert found.attrs["n_truth"] == 500
    assert 1 <= found.attrs["nprobe"] < found.attrs["nlist"]
    assert found["image"].values.tolist() == x["image"].values.tolist()


@pytest.mark.parametrize("metric", METRICS)
def test_other_queries(as_images, metric):
    """Queries of their own, among them a zero and one that is not finite."""
    rows = _rows()
    x, queries = as_images(rows[:1500]), as_images(rows[1200:])
    queries[3], queries[4] = np.nan, 0

    found = _find(x, queries=queries, metric=metric)

    exact = ek.neighbors(x, queries=queries, n_neighbors=7, metric=metric)
    ids, wanted = found["indices"].values, exact["indices"].values
    usable = wanted[:, 0] >= 0
    same = (wanted[:, :, None] == ids[:, None, :]).any(axis=2)
    assert same[usable].mean() >= 0.9
    assert (ids[3] == -1).all()
    assert ids.shape == (800, 7)
    certified = found["certified"].values
    assert (ids[certified] == wanted[certified]).all()


def test_does_not_depend_on_chunks_or_workers(as_images, client):
    """The same bytes from memory, other chunks, one thread and a cluster."""
    rows = _rows()

    here = _find(as_images(rows, chunk=170))
    with dask.config.set(scheduler="synchronous"):
        chunked = _find(as_images(rows, chunk=999))
    memory = _find(as_images(rows))

    for other in (chunked, memory):
        assert other.identical(here)


@pytest.mark.slow
def test_processes_give_the_same(as_images):
    """Nor on how many processes work."""
    x = as_images(_rows())
    found = _find(x)
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster),
    ):
        assert _find(x).identical(found)


def test_a_store_sorted_by_class_is_no_worse(as_images):
    """Training rows come from everywhere: the order of the rows does not matter."""
    rng = np.random.default_rng(1)
    labels = np.sort(rng.integers(0, 20, 4000))
    rows = 4 * rng.normal(size=(20, 16))[labels] + rng.normal(size=(4000, 16))
    order = rng.permutation(4000)

    in_order = _find(as_images(rows), recall=0.95)
    shuffled = _find(as_images(rows[order]), recall=0.95)

    assert in_order.attrs["recall_low"] >= 0.95
    assert in_order.attrs["nprobe"] <= 2 * shuffled.attrs["nprobe"]


def test_few_rows_are_searched_whole(as_images):
    """With as many lists as there are, everything is proven."""
    x = as_images(_rows(60))

    found = _find(x, recall=0.999)

    exact = ek.neighbors(x, n_neighbors=7)
    assert (found["indices"] == exact["indices"]).all()
    assert found["certified"].all()
    assert found.attrs["recall_low"] == 1


@pytest.mark.parametrize("value", [np.nan, 0.0])
@pytest.mark.parametrize("metric", METRICS)
def test_nothing_to_tell_apart(as_images, metric, value):
    """Rows that are all unreadable, or all zero."""
    x = as_images(np.full((30, 4), value, np.float32))

    found = _find(x, metric=metric)

    exact = ek.neighbors(x, n_neighbors=7, metric=metric)
    assert (found["indices"] == exact["indices"]).all()


def test_a_large_part_of_the_database_is_read_in_pieces(as_images, monkeypatch):
    """How much is searched together does not show."""
    x = as_images(_rows())
    found = _find(x)
    monkeypatch.setattr("embedkit.analysis.near.ivf_tasks._READ", 12 * 50)

    with dask.config.set(scheduler="synchronous"):
        assert _find(x).identical(found)


def test_a_recall_that_is_missed_is_told(as_images, monkeypatch):
    """The figures of the check are in the message."""
    monkeypatch.setattr(ivf_tune.Tuner, "_fewest", lambda *_: 1)
    monkeypatch.setattr(ivf_tune, "_TRIES", 1)
    monkeypatch.setattr(ivf_tune.Tuner, "most", property(lambda _: 1))
    x = xr.DataArray(
        np.random.default_rng(0).random((3000, 12)), dims=("image", "feature")
    )

    with pytest.raises(
        RecallNotReached, match=r"recall=0.99 and reached 0\.\d+ \[.*1 of"
    ):
        _find(x, recall=0.99)


def test_scratch_is_left_empty(as_images, tmp_path):
    """Files go where they were asked to and are gone at the end."""
    _find(as_images(_rows(300)), scratch=tmp_path / "deep" / "er")

    assert list((tmp_path / "deep" / "er").iterdir()) == []


def test_tiles_probe_their_own_lists_first():
    """Own lists have rank 0, every list is reached in the end, sizes add up."""
    rng = np.random.default_rng(0)
    centroids = rng.normal(size=(40, 5)).astype(np.float32)
    counts = rng.integers(0, 400, 40)

    tiles = make_tiles(centroids, counts)

    assert (tiles.ranks[tiles.of_list, np.arange(40)] == 0).all()
    assert tiles.ranks.max() < 40
    per_tile = np.bincount(tiles.of_list, weights=counts)
    assert (per_tile <= 1024).all()
    assert (probed_rows(tiles, counts, nprobe=40) == counts.sum()).all()
    nearest = np.argsort(((centroids - centroids[3]) ** 2).sum(axis=1))[:4]
    assert (tiles.ranks[tiles.of_list[3], nearest] < 4).all()


def test_equal_centroids_end_in_tiles():
    """Lists without extent are still divided."""
    tiles = make_tiles(np.zeros((5, 3), np.float32), np.full(5, 900))

    assert sorted(tiles.of_list) == [0, 1, 2, 3, 4]
