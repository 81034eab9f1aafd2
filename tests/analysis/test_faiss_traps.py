"""Known traps of FAISS: each is shown there, and that embedkit's way around it is right."""

import faiss
import numpy as np
import pytest
import xarray as xr

import embedkit as ek
from embedkit.errors import InputError

N, D = 5000, 16


def _rows(n=N, d=D):
    return np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)


def _array(rows):
    return xr.DataArray(rows, dims=("image", "feature"))


def _lists(rows, ids=None):
    index = faiss.index_factory(D, "IVF8,Flat")
    index.cp.min_points_per_centroid = 1
    index.train(_rows())
    if ids is None:
        index.add(rows)
    else:
        index.add_with_ids(rows, ids)
    index.nprobe = 8
    return index


def test_merged_lists_keep_their_numbers():
    """`merge_from` without a shift gives two rows one number (facebookresearch/faiss#3651)."""
    rows = _rows(200)
    trap = _lists(rows[:100])
    trap.merge_from(_lists(rows[100:]), 0)
    _, found = trap.search(rows[150:151], 1)
    assert found[0, 0] == 50

    index = ek.build_index(_array(_rows()), memory_limit=10_000, sharded=True)

    assert len(index.faiss) > 2
    found = index.search(_rows()[::50], 1)
    assert found["indices"].values[:, 0].tolist() == list(range(0, N, 50))


def test_packed_lists_keep_their_numbers():
    """`merge_from` of packed codes ignores the shift it is given (#5590)."""
    rows = _rows(400)
    one, other = (faiss.index_factory(D, "PQ8x4fs") for _ in range(2))
    one.train(rows)
    other.train(rows)
    one.add(rows[:200])
    other.add(rows[200:])
    one.merge_from(other, 10_000)
    _, found = one.search(rows[300:301], 5)
    assert one.ntotal == 400
    assert found.max() < 10_000

    index = ek.build_index(_array(_rows()), memory_limit=10_000)

    # embedkit never merges: every file holds rows under numbers of the whole
    held = np.concatenate([_numbers(faiss.read_index(str(p))) for p in index.faiss])
    assert sorted(held) == list(range(N))


def _numbers(index):
    lists = index.invlists
    return np.concatenate(
        [
            faiss.rev_swig_ptr(lists.get_ids(each), lists.list_size(each))
            for each in range(lists.nlist)
        ]
    )


def test_shards_keep_their_numbers():
    """`IndexShards` numbers the rows of its shards anew (#2370)."""
    rows = _rows(200)
    shards = faiss.IndexShards(D, False, True)
    parts = [
        _lists(rows[:100], np.arange(1000, 1100)),
        _lists(rows[100:], np.arange(7000, 7100)),
    ]
    for part in parts:
        shards.add_shard(part)
    _, found = shards.search(rows[150:151], 1)
    assert parts[1].search(rows[150:151], 1)[1][0, 0] == 7050
    assert found[0, 0] != 7050

    index = ek.build_index(_array(_rows()), memory_limit=10_000)
    index.remove([str(each) for each in range(100)])

    found = index.search(_rows()[100:4000:100], 1)
    assert found["indices"].values[:, 0].tolist() == list(range(100, 4000, 100))


def test_near_copies_are_told_apart():
    """Far from the origin float32 does not put a row first among its own neighbors."""
    rng = np.random.default_rng(0)
    center = 250 * np.abs(rng.normal(size=(400, 64)))
    rows = np.repeat(center, 10, axis=0) + 1e-3 * rng.normal(size=(4000, 64))
    rows = rows.astype(np.float32)
    _, found = faiss.knn(rows, rows, 2)
    assert (found[:, 0] != np.arange(4000)).mean() > 0.05

    x = _array(rows)
    index = ek.build_index(x, n_neighbors=9)
    near = index.search(rows, 1)
    others = index.search([str(each) for each in range(4000)])

    assert (near["indices"].values[:, 0] == np.arange(4000)).all()
    assert (near["distances"].values == 0).all()
    assert (others["indices"].values // 10 == np.arange(4000)[:, None] // 10).all()
    exact = ek.neighbors(x, n_neighbors=9)
    assert (others["indices"].values == exact["indices"].values).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hnsw", "ivf_flat", "sharded"])
def test_near_copies_are_measured_in_float64(kind):
    """Also an approximate index finds a row at distance 0 and its copies beside it."""
    rng = np.random.default_rng(0)
    center = 250 * np.abs(rng.normal(size=(1500, 16)))
    rows = np.repeat(center, 4, axis=0) + 1e-3 * rng.normal(size=(6000, 16))
    limit = {"hnsw": None, "ivf_flat": 6000 * 130, "sharded": 10_000}[kind]

    index = ek.build_index(_array(rows), n_neighbors=3, memory_limit=limit, recall=0.99)

    found = index.search(rows[::5], 1)
    itself = found["indices"].values[:, 0] == np.arange(0, 6000, 5)
    assert itself.mean() > 0.98
    assert (found["distances"].values[itself] == 0).all()


@pytest.mark.parametrize("limit", [None, N * (4 * D + 80), 10_000])
def test_missing_neighbors_are_marked(limit):
    """FAISS fills up with -1 and a number that is as large as any distance."""
    flat = faiss.IndexFlatL2(D)
    flat.add(_rows(3))
    trap, found = flat.search(_rows(1), 5)
    assert found[0, 3:].tolist() == [-1, -1]
    assert (trap[0, 3:] > 1e38).all()

    index = ek.build_index(_array(_rows()), memory_limit=limit, n_neighbors=3)
    answer = index.search(_rows(2), N + 5)

    missing = answer["indices"].values == -1
    assert (missing.sum(axis=1) >= 5).all()
    assert np.isnan(answer["distances"].values[missing]).all()
    assert not np.isnan(answer["distances"].values[~missing]).any()
    assert (answer["image"].values[missing] == "").all()


@pytest.mark.slow
def test_training_is_quiet_and_takes_rows_from_all_over(capfd):
    """Trained on the first rows, lists of data sorted by class are nearly all empty."""
    rng = np.random.default_rng(0)
    centers = 20 * rng.normal(size=(50, D))
    rows = (np.repeat(centers, 100, axis=0) + rng.normal(size=(N, D))).astype("f4")

    (held,) = ek.build_index(_array(rows), memory_limit=N * (4 * D + 80)).faiss

    trap = faiss.index_factory(D, f"IVF{held.nlist},Flat")
    trap.cp.min_points_per_centroid = 1
    trap.train(rows[:1000])
    trap.add(rows)
    assert _largest(trap) > 2 * _largest(held)
    codes = ek.build_index(_array(rows), memory_limit=100_000, recall=0.5)
    assert codes.kind == "ivf_pq"
    assert "clustering" not in capfd.readouterr().err


def _largest(index):
    """Rows in the longest list, beside what an even share is."""
    lists = index.invlists
    sizes = [lists.list_size(each) for each in range(lists.nlist)]
    return max(sizes) / (sum(sizes) / lists.nlist)


@pytest.mark.slow
def test_graphs_do_not_forget():
    """A graph raises an error of its own when rows are removed, or worse."""
    graph = faiss.IndexHNSWFlat(D, 16)
    graph.add(_rows(100))
    with pytest.raises(RuntimeError, match="remove_ids not implemented"):
        graph.remove_ids(np.array([3]))

    index = ek.build_index(_array(_rows()))

    assert index.kind == "hnsw"
    with pytest.raises(InputError, match="build the index anew"):
        index.remove(["3"])
