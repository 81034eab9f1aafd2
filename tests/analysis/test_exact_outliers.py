"""Rows of very different lengths: few are searched again, and none is dropped."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr

from embedkit.analysis.neighbors import neighbors
from embedkit.errors import InputError
from embedkit.planning import neighbors as planning

METRICS = ("euclidean", "cosine", "inner_product")


def array(rows):
    return xr.DataArray(rows, dims=("image", "feature"))


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Several bands of several tiles."""
    monkeypatch.setattr(planning, "LARGEST_TILE", 256)
    with dask.config.set(scheduler="sync"):
        yield


def brute_force(rows, metric, k):
    """Order of all others by their float64 distance, ties by row number."""
    full = np.empty((len(rows), len(rows)))
    for number, row in enumerate(rows):
        if metric == "inner_product":
            full[number] = -(row * rows).sum(axis=1)
        else:
            full[number] = ((row - rows) ** 2).sum(axis=1)
    np.fill_diagonal(full, np.inf)
    return np.argsort(full, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("metric", ["euclidean", "inner_product"])
@pytest.mark.parametrize("length", [1e4, 1e8, 1e12])
@pytest.mark.parametrize("asked", [False, True])
def test_one_long_row_costs_no_other_its_certificate(metric, length, asked) -> None:
    """Its own errors are its own; only it may have to be searched again."""
    rows = np.random.default_rng(0).normal(size=(1500, 64))
    rows[1234] *= length

    nn = neighbors(
        array(rows), queries=array(rows[:700]) if asked else None, metric=metric
    )

    certified = nn["certified"].values
    assert np.flatnonzero(~certified).tolist() in ([], [1234])
    if not asked:
        np.testing.assert_array_equal(nn["indices"], brute_force(rows, metric, 15))


@pytest.mark.parametrize("metric", ["euclidean", "inner_product"])
def test_lengths_of_all_magnitudes(metric) -> None:
    """A heavy tail, from one to a million, as tokens of large networks have."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(1200, 48)) * 10 ** (6 * rng.random(1200)[:, None] ** 4)

    nn = neighbors(array(rows), n_neighbors=5, metric=metric)

    assert nn["certified"].values.mean() > 0.9
    np.testing.assert_array_equal(nn["indices"], brute_force(rows, metric, 5))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("tiny", [1e-30, 1e-150])
def test_tiny_rows_beside_huge_ones(metric, tiny) -> None:
    """Of 1e150 and of nothing beside it; every one has its neighbors."""
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(400, 7))
    rows[:200] *= tiny
    rows[200:] *= 1e150

    nn = neighbors(array(rows), n_neighbors=6, metric=metric)

    by = rows
    if metric == "cosine":
        by = rows / np.abs(rows).max(axis=1, keepdims=True)
        by /= np.sqrt((by * by).sum(axis=1, keepdims=True))
    np.testing.assert_array_equal(nn["indices"], brute_force(by, metric, 6))
    assert nn["certified"].values[200:].all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", [1e-30, 1e-140, 1e150])
def test_rows_of_one_extreme_magnitude_are_all_certified(metric, scale) -> None:
    """They are scaled before float32 sees them."""
    rows = np.random.default_rng(3).normal(size=(300, 7))

    nn = neighbors(array(rows * scale), n_neighbors=6, metric=metric)

    plain = neighbors(array(rows), n_neighbors=6, metric=metric)
    np.testing.assert_array_equal(nn["indices"], plain["indices"])
    assert nn["certified"].all()


@pytest.mark.parametrize("metric", ["euclidean", "inner_product"])
def test_rows_whose_distances_are_no_numbers_are_refused(metric) -> None:
    """The row is named, that of the queries as well; under cosine all is well."""
    rows = np.random.default_rng(4).normal(size=(600, 7))
    long = rows.copy()
    long[411, 3] = -1e160
    nan = long.copy()
    nan[411, 0] = np.nan

    with pytest.raises(InputError, match=r"row 411 with an entry of magnitude 1e\+160"):
        neighbors(array(long), metric=metric)
    with pytest.raises(InputError, match=r"query 11 with an entry .* divide all rows"):
        neighbors(array(rows), queries=array(long[400:]), metric=metric)

    assert (neighbors(array(nan), metric=metric)["indices"][411] == -1).all()
    assert (neighbors(array(long), metric="cosine")["indices"] >= 0).all()


def test_the_center_does_not_follow_long_rows() -> None:
    """A third of all rows, far away in one direction, leave the others certified."""
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(900, 32))
    rows[::3] += 1e6

    nn = neighbors(array(rows), n_neighbors=4)

    near = np.arange(900) % 3 > 0
    assert nn["certified"].values[near].all()
    np.testing.assert_array_equal(nn["indices"], brute_force(rows, "euclidean", 4))
