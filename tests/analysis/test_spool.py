"""Rows in a file: equal for any chunks, and readable in parts."""

import pickle

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedkit.analysis.spool import spool
from embedkit.errors import InputError


@pytest.fixture
def rows():
    """Seventy rows of five float32 numbers."""
    return np.random.default_rng(0).normal(size=(70, 5)).astype(np.float32)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_rows_come_back_in_their_dtype(rows, tmp_path, dtype):
    """Bit by bit, in this machine's byte order."""
    x = xr.DataArray(rows.astype(dtype), dims=("image", "feature"))

    made = spool(x, tmp_path / "new")

    np.testing.assert_array_equal(made.rows, x.values)
    assert made.rows.dtype == x.dtype.newbyteorder("=")
    assert [each.name for each in (tmp_path / "new").iterdir()] == [made.path.name]


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(cuts=st.sets(st.integers(1, 69), max_size=6), columns=st.sampled_from([2, 5]))
def test_the_digest_does_not_know_the_chunks(rows, tmp_path, cuts, columns):
    """Neither of images nor of features."""
    x = xr.DataArray(rows, dims=("image", "feature"))
    sizes = tuple(np.diff([0, *sorted(cuts), 70]).tolist())

    made = spool(x.chunk(image=sizes, feature=columns), tmp_path)

    assert made == spool(x, tmp_path)
    np.testing.assert_array_equal(made.rows, rows)


def test_other_rows_have_another_digest(rows, tmp_path):
    """As have the same bytes in another shape."""
    x = xr.DataArray(rows, dims=("image", "feature"))
    other = xr.DataArray(rows.reshape(35, 10), dims=("image", "feature"))

    assert len({spool(each, tmp_path).digest for each in (x, x + 1, other)}) == 3


def test_a_task_gets_a_few_bytes(rows, tmp_path):
    """The rows stay in the file."""
    made = spool(xr.DataArray(rows, dims=("image", "feature")), tmp_path)

    sent = pickle.dumps(made)

    assert len(sent) < 400
    assert pickle.loads(sent) == made


@pytest.mark.parametrize("width", [1, 3000])
def test_some_rows(tmp_path, width):
    """Blocks, runs and single rows, whatever lies between them."""
    rows = np.random.default_rng(1).normal(size=(300, width))
    made = spool(xr.DataArray(rows, dims=("image", "feature")), tmp_path)
    ids = np.r_[0, 1, 2, 17, 90:120, 299]

    np.testing.assert_array_equal(made.take(ids), rows[ids])
    np.testing.assert_array_equal(made.block(17, 40), rows[17:40])
    assert made.take(ids[:0]).shape == (0, width)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_nothing_to_write(tmp_path, shape):
    """No rows or no features are no special case for whoever reads."""
    made = spool(xr.DataArray(np.zeros(shape), dims=("image", "feature")), tmp_path)

    assert made.rows.shape == made.block(0, shape[0]).shape == shape


def test_a_file_that_a_task_does_not_see(rows, tmp_path):
    """The message names the way out, for every way to read or write."""
    x = xr.DataArray(rows, dims=("image", "feature"))
    made = spool(x, tmp_path)
    made.path.unlink()

    for read in (
        lambda: made.rows,
        lambda: made.block(0, 2),
        lambda: made.take(np.arange(3)),
    ):
        with pytest.raises(InputError, match=r"does not find it: pass scratch="):
            read()


def test_a_worker_that_does_not_see_the_folder(rows, tmp_path, monkeypatch):
    """Told when the first chunk is to be written; nothing stays behind."""
    place = tmp_path / "here"

    def elsewhere(block):
        for each in place.iterdir():
            each.unlink()
        return block

    lazy = da.from_array(rows, chunks=(10, 5)).map_blocks(elsewhere, dtype=rows.dtype)
    x = xr.DataArray(lazy, dims=("image", "feature"))

    with pytest.raises(InputError, match=r"pass scratch="):
        spool(x, place)
    assert list(place.iterdir()) == []
