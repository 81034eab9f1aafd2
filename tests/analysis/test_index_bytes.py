"""Graphs of bytes: when they are made, and what they find."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import embedkit as ek
from embedkit.analysis.index.bytes import with_bytes
from embedkit.analysis.index.choice import choose

N, D = 6000, 160


def _rows(n=N, *, tail=1.0):
    rng = np.random.default_rng(0)
    bent = np.tanh(rng.normal(size=(n, 12)) @ rng.normal(size=(12, D)))
    return (bent * rng.uniform(1, tail, size=(n, 1))).astype(np.float32)


def _array(rows):
    return xr.DataArray(rows, dims=("image", "feature"))


def _graph(features=D):
    return choose(10**5, features, memory_limit=2**40, sharded=False)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "inner_product"])
def test_a_graph_of_bytes_finds_what_rows_would(metric, tmp_path):
    """The recall is that of the target, the distances those of the rows themselves."""
    rows = _rows()
    index = ek.build_index(_array(rows[:5500]), metric=metric, recall=0.9)

    found = index.search(rows[5500:])

    exact = ek.neighbors(
        _array(rows[:5500]), queries=_array(rows[5500:]), n_neighbors=10, metric=metric
    )
    same = found["indices"].values == exact["indices"].values
    near, wanted = found["distances"].values, exact["distances"].values
    assert index.kind == "hnsw"
    assert index.nbytes < 5500 * 4 * D
    assert index.recall.low >= 0.9
    assert (
        near <= wanted[:, -1:] * (1 + 1e-5 * np.sign(wanted[:, -1:]))
    ).mean() >= 0.89
    assert (near[same] == wanted[same]).all()
    index.save(tmp_path / "i")
    again = ek.open_index(tmp_path / "i")
    assert again.search(rows[5500:]).identical(found)
    assert again.nbytes == index.nbytes


def test_rows_that_bytes_cannot_tell_apart_are_kept_whole():
    """Near copies in a wide space: a byte is coarser than their distances."""
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(400, D)), 15, axis=0)
    rows = (rows + 1e-4 * rng.normal(size=rows.shape)).astype(np.float32)

    index = ek.build_index(_array(rows), recall=0.9)

    assert index.kind == "hnsw"
    assert index.nbytes > len(rows) * 4 * D


@given(st.integers(1, 400), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_bytes_are_as_fine_as_promised(features, spread, radius):
    """Rounding to 255 steps moves a row by no more than the share that is allowed."""
    rng = np.random.default_rng(0)
    sample = (spread * rng.random((50, features))).astype(np.float32)

    found = with_bytes(_graph(features), sample, np.full(9, radius), n_rows=10**5)

    step = np.maximum(np.ptp(sample, axis=0), 1e-30) / 255
    moved = np.linalg.norm(np.round(sample / step) * step - sample, axis=1)
    if found.code_bytes:
        assert features >= 128
        assert np.sqrt(np.mean(moved**2)) <= 0.25 * radius
    elif features >= 128:
        assert np.sqrt(np.mean(moved**2)) > 0.15 * radius


def test_without_neighbors_nothing_changes():
    """Radii that are missing say nothing."""
    sample = _rows(100)

    assert with_bytes(_graph(), sample, np.full(3, np.nan), n_rows=9) == _graph()
