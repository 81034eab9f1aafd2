"""How images are cut into blocks, and blocks into chunks.

A *block* is what one task computes and one Zarr shard holds; a *chunk* is what one read
decompresses. Only integers go in and out: nothing here knows Dask, Zarr or torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MIN_BLOCK = 32
MAX_BLOCK = 8192
BLOCKS_WANTED = 16
BLOCK_BYTES = 256 * 2**20
CHUNK_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockGrid:
    """`n_images` rows cut into blocks of `block` rows; the last one may be shorter.

    Parameters
    ----------
    n_images : int
        Rows in all, at least 1.
    block : int
        Rows of a block, at least 1.

    Raises
    ------
    ValueError
        When either is below 1.
    """

    n_images: int
    block: int

    def __post_init__(self) -> None:
        if self.n_images < 1 or self.block < 1:
            message = f"a grid needs n_images >= 1 and block >= 1, found {self}"
            raise ValueError(message)

    def __len__(self) -> int:
        return -(-self.n_images // self.block)

    def rows(self, number: int) -> slice:
        """Return the rows of block `number`.

        Raises
        ------
        IndexError
            When there is no such block.
        """
        if not 0 <= number < len(self):
            message = f"block {number} of a grid of {len(self)} blocks"
            raise IndexError(message)
        start = number * self.block
        return slice(start, min(start + self.block, self.n_images))


def power_of_two_below(number: float) -> int:
    """Return the largest power of two that is at most `number`, and at least 1."""
    return 1 << max(0, math.floor(math.log2(max(number, 1))))


def choose_block(n_images: int, image_bytes: int) -> int:
    """Return how many images one task should take.

    Parameters
    ----------
    n_images : int
        Images in all.
    image_bytes : int
        Bytes that one image writes, all layers together.

    Returns
    -------
    int
        A power of two: small enough for 16 blocks or more (so that workers finish
        together) and for buffers of 256 MiB; 32 to 8192 wherever those bytes allow it.

    Notes
    -----
    The choice depends on the images and the layers alone, never on the cluster: the
    same call writes the same files anywhere. All four bounds are chosen, not measured.
    """
    balanced = power_of_two_below(n_images / BLOCKS_WANTED)
    fitting = power_of_two_below(BLOCK_BYTES / max(image_bytes, 1))
    return min(max(balanced, MIN_BLOCK), MAX_BLOCK, fitting)


def chunk_rows(block: int, row_bytes: int) -> int:
    """Return how many rows of one array a chunk holds.

    Parameters
    ----------
    block : int
        Rows of a shard.
    row_bytes : int
        Bytes of one row of the array, uncompressed.

    Returns
    -------
    int
        A divisor of `block` whose chunk stays within 1 MiB where a row does: random
        rows then cost one small read each.
    """
    wanted = power_of_two_below(CHUNK_BYTES / max(row_bytes, 1))
    return math.gcd(wanted, block) if wanted < block else block
