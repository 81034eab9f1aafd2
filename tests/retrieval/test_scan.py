"""Chunks, masks and merging: a ranking that depends on pairs of rows alone."""

import numpy as np
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.retrieval.scan import nearest


def _layer(rows, chunks):
    x = xr.DataArray(rows, dims=("image", "feature"))
    return x.chunk(image=chunks)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_chunks_and_masks_change_nothing_but_what_is_allowed(data):
    """For any chunks and mask the hits are the head of one plain ranking, ties by row."""
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    rows = rng.integers(-2, 3, (40, 3)).astype(np.float32)  # many ties
    rows[rng.random(40) < 0.1] = np.nan
    cuts = data.draw(st.lists(st.integers(1, 39), max_size=5, unique=True))
    edges = [0, *sorted(cuts), 40]
    mask = rng.random(40) < data.draw(st.floats(0.05, 1))
    mask[0] = True
    k = data.draw(st.integers(1, 45))
    own = np.array([5, -1])
    queries = np.nan_to_num(rows[[5, 6]]).astype(np.float64)

    distances, found = nearest(
        _layer(rows, tuple(np.diff(edges).tolist())),
        queries,
        own=own,
        k=k,
        metric="euclidean",
        mask=mask,
    )

    for query, itself, near, ids in zip(queries, own, distances, found, strict=True):
        true = np.sqrt(((rows.astype(np.float64) - query) ** 2).sum(axis=1))
        kept = np.flatnonzero(np.isfinite(true) & mask & (np.arange(40) != itself))
        order = kept[np.lexsort((kept, true[kept]))][:k]
        assert ids[ids >= 0].tolist() == order.tolist()
        np.testing.assert_allclose(near[ids >= 0], true[order], rtol=1e-12)
        assert np.isnan(near[ids < 0]).all()


def test_chunks_without_an_allowed_row_are_not_read():
    """A filter that leaves one chunk reads one chunk."""
    import dask.array as da

    read = []

    def block(block_info=None):
        read.append(block_info[None]["chunk-location"][0])
        return np.ones((10, 2), np.float32)

    lazy = da.map_blocks(
        block,
        chunks=((10,) * 4, (2,)),
        dtype=np.float32,
        meta=np.empty((0, 0), np.float32),
    )
    mask = np.zeros(40, bool)
    mask[23] = True

    _, found = nearest(
        xr.DataArray(lazy, dims=("image", "feature")),
        np.zeros((1, 2)),
        own=np.array([-1]),
        k=2,
        metric="euclidean",
        mask=mask,
    )

    assert found.tolist() == [[23, -1]]
    assert read == [2]
