"""Where thumbnails go, and how small they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from embedkit.view.thumbnails import shrink, spread

places = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 60), st.just(2)),
    elements=st.floats(-50, 50, allow_subnormal=False, width=32),
)


@settings(max_examples=150, deadline=None)
@given(xy=places, most=st.integers(0, 40))
def test_no_two_squares_overlap(xy, most) -> None:
    """However the points lie; and no more than allowed are chosen."""
    spots = spread(xy, most=most)
    assert len(spots.rows) == len(spots.centers) <= most
    assert len(set(spots.rows.tolist())) == len(spots.rows)
    gaps = np.abs(spots.centers[:, None] - spots.centers[None]).max(axis=2)
    gaps += 1e9 * np.eye(len(gaps))
    assert (gaps > 0.99 * spots.side).all()


def test_thumbnails_hide_no_point_of_a_loose_map() -> None:
    """Clusters with room around keep all their points in sight."""
    rng = np.random.default_rng(0)
    xy = np.concatenate(
        [rng.normal(size=(80, 2)) * 0.3 + c for c in ((0, 0), (9, 1), (4, 8), (1, 5))]
    )
    spots = spread(xy, most=36)
    inside = (np.abs(xy[:, None] - spots.centers[None]) < 0.46 * spots.side).all(axis=2)
    assert not inside.any()
    assert {int(row) // 80 for row in spots.rows} == {0, 1, 2, 3}


def test_every_thumbnail_is_near_its_point() -> None:
    """In a map without room a thumbnail covers its own cell rather than stray."""
    xy = np.random.default_rng(0).uniform(size=(5000, 2))
    spots = spread(xy, most=36)
    assert len(spots.rows) == 36
    assert (
        np.linalg.norm(xy[spots.rows] - spots.centers, axis=1).max() <= 3 * spots.side
    )


def test_equal_maps_equal_choice() -> None:
    """Nothing is random."""
    xy = np.random.default_rng(1).normal(size=(500, 2))
    first, second = spread(xy, most=20), spread(xy.copy(), most=20)
    np.testing.assert_array_equal(first.rows, second.rows)
    np.testing.assert_array_equal(first.centers, second.centers)


@pytest.mark.parametrize(
    "shape", [(1, 1), (100, 150), (128, 255), (3000, 2000), (1, 4000), (700, 3)]
)
def test_shrinking(shape) -> None:
    """The longer side ends at 128 to 255 pixels where the shorter allows it."""
    small = shrink(np.full((*shape, 3), 77, np.uint8))
    assert small.dtype == np.uint8
    assert (small == 77).all()
    assert min(small.shape) >= 1
    if min(shape) > 20:
        assert max(small.shape) <= 255
    if max(shape) >= 128:
        assert max(small.shape) >= 128


def test_shrinking_averages_blocks() -> None:
    """A fine checkerboard becomes an even grey."""
    board = np.indices((512, 512)).sum(axis=0) % 2 * 200
    small = shrink(np.repeat(board[:, :, None], 3, axis=2).astype(np.uint8))
    assert small.shape == (128, 128, 3)
    assert (small == 100).all()
