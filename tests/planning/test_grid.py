"""The arithmetic of blocks and chunks."""

import itertools
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.planning.grid import (
    BLOCK_BYTES,
    CHUNK_BYTES,
    MAX_BLOCK,
    BlockGrid,
    choose_block,
    chunk_rows,
    power_of_two_below,
)


@given(n_images=st.integers(1, 10_000), block=st.integers(1, 700))
def test_blocks_cover_every_row_once_and_in_order(n_images, block):
    """Concatenated, the rows of the blocks are the rows of the store."""
    grid = BlockGrid(n_images=n_images, block=block)

    rows = [grid.rows(number) for number in range(len(grid))]

    assert [rows[0].start, rows[-1].stop] == [0, n_images]
    assert all(a.stop == b.start for a, b in itertools.pairwise(rows))
    assert {each.stop - each.start for each in rows[:-1]} <= {block}
    assert 1 <= rows[-1].stop - rows[-1].start <= block


@pytest.mark.parametrize("number", [-1, 4])
def test_a_block_outside_the_grid_is_refused(number):
    """There is no block before the first or after the last."""
    grid = BlockGrid(n_images=100, block=32)

    with pytest.raises(IndexError, match=f"block {number} of a grid of 4 blocks"):
        grid.rows(number)


@pytest.mark.parametrize(("n_images", "block"), [(0, 4), (4, 0), (-1, 4)])
def test_an_empty_grid_is_refused(n_images, block):
    """A grid has at least one image and blocks of at least one row."""
    with pytest.raises(ValueError, match="needs n_images >= 1 and block >= 1"):
        BlockGrid(n_images=n_images, block=block)


def test_a_grid_survives_pickling():
    """Grids travel between processes."""
    grid = BlockGrid(n_images=7, block=2)

    assert pickle.loads(pickle.dumps(grid)) == grid


@given(st.floats(0.001, 1e15))
def test_power_of_two_below_is_the_largest_one(number):
    """Twice the result is more than the number, the result is not, save below 1."""
    found = power_of_two_below(number)

    assert found & (found - 1) == 0
    assert found * 2 > number
    assert found <= number or found == 1


@given(n_images=st.integers(1, 10**9), image_bytes=st.integers(1, 10**10))
def test_a_chosen_block_fits_its_buffers(n_images, image_bytes):
    """Blocks are powers of two within the bounds of rows and bytes."""
    block = choose_block(n_images, image_bytes)

    assert block & (block - 1) == 0
    assert 1 <= block <= MAX_BLOCK
    assert block == 1 or block * image_bytes <= BLOCK_BYTES


@pytest.mark.parametrize(
    ("n_images", "image_bytes", "expected"),
    [
        (450, 2_000, 32),  # never below 32 for the sake of balance
        (50_000, 384_000, 512),  # bounded by 256 MiB of buffers
        (100_000, 2_000, 4096),  # bounded by sixteen blocks or more
        (10**7, 8_000, 8192),  # bounded by the largest block
        (1_000, 150_000_000, 1),  # full maps of every layer
    ],
)
def test_which_bound_decides(n_images, image_bytes, expected):
    """Each of the bounds decides where it should."""
    assert choose_block(n_images, image_bytes) == expected


@given(exponent=st.integers(0, 13), row_bytes=st.integers(1, 10**8))
def test_chunks_divide_their_shard(exponent, row_bytes):
    """A chunk divides the block and is at most 1 MiB where a row is."""
    block = 2**exponent

    rows = chunk_rows(block, row_bytes)

    assert block % rows == 0
    assert rows == 1 or rows * row_bytes <= CHUNK_BYTES
    assert rows == block or 2 * rows * row_bytes > CHUNK_BYTES
