"""Scores by torch, on its CPU, against NumPy's, and what is found with them."""

from __future__ import annotations

import logging

import dask
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.analysis.exact import device_product, tile_tasks
from embedkit.analysis.exact.device_product import DeviceFailed, DeviceRoom
from embedkit.analysis.exact.score_bounds import Margins
from embedkit.analysis.exact.tile_hits import FOLDED, Bound, Room, best
from embedkit.analysis.neighbors import neighbors
from embedkit.planning import neighbors as planning


@pytest.fixture
def whole_numbers():
    """Left and right rows whose products are exact in any order: (90, 24), (330, 24)."""
    rng = np.random.default_rng(0)
    left = rng.integers(-8, 9, size=(90, 24)).astype(np.float32)
    right = rng.integers(-8, 9, size=(330, 24)).astype(np.float32)
    return left, right


def both(left, right):
    return (
        DeviceRoom("cpu").product(left, right),
        Room(len(left) * len(right)).product(left, right),
    )


def sorted_hits(found):
    row, column, score, lost = found
    order = np.lexsort((column, row))
    return row[order], column[order], score[order], np.sort(lost)


def bound_of(rows, cut, *, need=3, most=20):
    margins = Margins(np.full(rows, 0.5), np.linspace(0, 1, rows))
    return Bound(np.full(rows, cut, np.float32), margins, need, most)


def sizes_of(rows):
    """Of whole numbers, so that nothing is rounded."""
    return np.arange(rows, dtype=np.float64) % 16


@pytest.mark.parametrize("way", ["as it is", "transposed"])
@pytest.mark.parametrize(
    ("cut", "most"),
    [(250, 300), (np.inf, 300), (-np.inf, 20), (100, 20), (-np.inf, 400)],
)
def test_hits_are_those_of_numpy(whole_numbers, way, cut, most):
    """Pairs, scores, lost rows and tightened cuts, with and without crowded rows."""
    ours, theirs = both(*whole_numbers)
    if way == "transposed":
        ours, theirs = ours.transposed(), theirs.transposed()
    rows = {"as it is": 90, "transposed": 330}[way]
    mine, other = (bound_of(rows, cut, most=most) for _ in range(2))

    others = sizes_of(420 - rows)
    found = sorted_hits(ours.hits(mine, others))
    expected = sorted_hits(theirs.hits(other, others))

    for one, two in zip(found, expected, strict=True):
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(mine.cut, other.cut)


def test_rows_that_no_cut_thins_out_are_lost():
    """A row with the same score with everyone has no hits and says so."""
    left = np.zeros((4, 3), np.float32)
    left[0] = 1
    right = np.random.default_rng(1).integers(-9, 9, size=(60, 3)).astype(np.float32)

    bound = bound_of(4, -np.inf)
    scores = DeviceRoom("cpu").product(left, right)

    row, _, _, lost = scores.hits(bound, np.zeros(60))

    assert set(row) == {0}
    np.testing.assert_array_equal(lost, [1, 2, 3])
    np.testing.assert_array_equal(np.isinf(bound.cut), [False, True, True, True])


@pytest.mark.parametrize("columns", [2, 3, 330])
def test_cuts_are_raised_to_those_of_numpy(whole_numbers, columns):
    """By what is sure of the scores; by nothing where these are too few."""
    ours, theirs = both(whole_numbers[0], whole_numbers[1][:columns])
    mine, other = (bound_of(90, -np.inf) for _ in range(2))

    ours.tighten(mine, sizes_of(columns))
    theirs.tighten(other, sizes_of(columns))

    np.testing.assert_array_equal(mine.cut, other.cut)
    assert np.isfinite(mine.cut).all() == (columns >= 3)


@settings(deadline=None, max_examples=60)
@given(rows=st.integers(1, 5), columns=st.integers(1, 40), need=st.integers(1, 50))
def test_best_and_folded_are_those_of_numpy(rows, columns, need):
    """The worst first, minus infinity where there are not as many."""
    rng = np.random.default_rng(columns)
    left = rng.integers(-9, 9, size=(rows, 4)).astype(np.float32)
    right = rng.integers(-9, 9, size=(columns * FOLDED, 4)).astype(np.float32)
    ours, theirs = both(left, right)
    few, _ = both(left, right[:columns])

    products = left @ right[:columns].T
    found = few.best(need)

    expected = np.sort(products, axis=1)[:, -need:]
    assert found.shape == (rows, need)
    np.testing.assert_array_equal(np.sort(found, axis=1)[:, -columns:], expected)
    assert (found[:, 0] == found.min(axis=1)).all()
    np.testing.assert_array_equal(found[:, 0], best(products, need)[:, 0])
    np.testing.assert_array_equal(ours.folded(need), theirs.folded(need))


def test_left_rows_stay_until_others_come(whole_numbers):
    """They go to the device once for a row of tiles."""
    left, right = whole_numbers
    room = DeviceRoom("cpu")
    sent = []
    there = room._there
    room._there = lambda rows: sent.append(len(rows)) or there(rows)

    room.product(left, right)
    room.product(left, right[:70])
    last = room.product(left.copy() + 1, right[:60])

    assert sent == [90, 330, 70, 90, 60]
    np.testing.assert_array_equal(last.scores.numpy(), (left + 1) @ right[:60].T)


HAS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=HAS_GPU)])
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "inner_product"])
@pytest.mark.parametrize("asked", [False, True])
def test_neighbors_have_the_same_bytes(as_images, monkeypatch, device, metric, asked):
    """Near copies beyond number and copies among them; of each other, and of queries."""
    monkeypatch.setattr(planning, "LARGEST_TILE", 256)  # several tiles and bands
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(900, 20))
    rows[100:420] = rows[100] + 1e-9 * rng.normal(size=(320, 20))
    rows[700:740], rows[7] = rows[700], np.nan
    x = as_images(rows)
    options = {"n_neighbors": 6, "metric": metric, "memory_limit": "400MB"}
    options["queries"] = as_images(rows[::2] + 1e-9) if asked else None
    made = []

    def room(device):
        made.append(device)
        return DeviceRoom(device)

    with dask.config.set(scheduler="sync"):
        expected = neighbors(x, **options)
        monkeypatch.setattr(tile_tasks, "device_for", lambda flops: device)
        monkeypatch.setattr(tile_tasks, "DeviceRoom", room)
        found = neighbors(x, **options)

    assert set(made) == {device}
    assert 0.4 < expected["certified"].values.mean() < 0.8
    for name in ("indices", "distances", "certified"):
        assert found[name].values.tobytes() == expected[name].values.tobytes(), name


def test_a_device_without_memory_leaves_the_task_to_numpy(
    as_images, blobs, monkeypatch, caplog
):
    """In the middle of a task; the result is the same and the log says why."""
    x = as_images(blobs[0])
    expected = neighbors(x, n_neighbors=4)
    full = torch.OutOfMemoryError("out of memory\nstack")
    calls = []

    def fail(self, bound, sizes):
        calls.append(bound)
        with device_product._failures():
            raise full

    monkeypatch.setattr(tile_tasks, "device_for", lambda flops: "cpu")
    monkeypatch.setattr(device_product.DeviceScores, "hits", fail)
    caplog.set_level(logging.INFO, "embedkit.analysis.exact.tile_tasks")
    with dask.config.set(scheduler="sync"):
        found = neighbors(x, n_neighbors=4)

    assert found.equals(expected)
    assert calls
    assert "not the GPU: out of memory" in caplog.text
    assert "stack" not in caplog.text


def test_tiles_take_half_of_what_is_free_at_most(whole_numbers, monkeypatch):
    """Asked before anything goes there."""
    room = DeviceRoom("cpu")
    room._device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**6, 10**9))

    with pytest.raises(DeviceFailed, match=r"tiles take 990,720 bytes, 1,000,000 are"):
        room.product(*whole_numbers)

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * 990_720, 1))
    room._check_room(*whole_numbers)  # fits
