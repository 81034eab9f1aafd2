"""What a run writes: bytes, shards, chunks and files, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from embedkit.planning.codecs import USUAL, Codec
from embedkit.planning.grid import BlockGrid, chunk_rows
from embedkit.planning.measurement import LayerSize, Measurement

TABLE_ROWS = 16384
"""Rows of a chunk of the image table."""

_METADATA = 2
"""Files of a layer besides its shards: metadata of its array and of its group."""

_OF_A_PASS = 2
"""Files of a pass besides content hashes: their metadata, its commit records gathered."""

_OF_A_STORE = 7
"""Metadata of the root and of ``layers``; ids, sizes and times of change of the images,
their digest; the record that the store is finished."""

_MAP_COLUMNS = 4
"""``image``, ``uri``, ``status`` and ``error``."""


_DTYPES: Final = {4: "float32", 2: "float16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWritten:
    """What a run writes of one layer.

    Parameters
    ----------
    name : str
        What the store calls it.
    nbytes : int
        Of all images, uncompressed.
    shard, chunk : tuple of int
        Shapes: what one file holds, and what one read decompresses.
    files : int
        Shards.
    dtype : str
        As it was asked for; empty in plans of older versions.
    codec : str
        How its shards are compressed.
    why : str
        Why so, with the numbers of the others; empty where nothing was measured.
    expected : int, optional
        Bytes after compression, if all images are like those that were measured.
    float16 : str
        What half the bytes would cost, for people; empty where nothing was measured.
    """

    name: str
    nbytes: int
    shard: tuple[int, ...]
    chunk: tuple[int, ...]
    files: int
    dtype: str = ""
    codec: Codec = USUAL
    why: str = ""
    expected: int | None = None
    float16: str = ""


def written(
    layers: Sequence[LayerSize], *, n_images: int, block: int
) -> tuple[LayerWritten, ...]:
    """Return what a run writes of every layer.

    Parameters
    ----------
    layers : sequence of LayerSize
        Which layers.
    n_images : int
        Rows.
    block : int
        Rows of a shard.

    Returns
    -------
    tuple of LayerWritten
        The same numbers that the store itself comes to.
    """
    blocks = len(BlockGrid(n_images=n_images, block=block))
    return tuple(
        LayerWritten(
            name=layer.name,
            nbytes=n_images * layer.row_bytes,
            shard=(block, *layer.shape),
            chunk=(chunk_rows(block, layer.row_bytes), *layer.shape),
            files=blocks,
            dtype=_DTYPES.get(layer.itemsize, ""),
        )
        for layer in layers
    )


def count_files(
    measured: Measurement,
    *,
    n_images: int,
    block: int,
    columns: int,
    passes: int | None = None,
) -> int:
    """Return the files of a finished store.

    Parameters
    ----------
    measured : Measurement
        The networks and their layers, a pass each.
    n_images : int
        Rows.
    block : int
        Rows of a shard.
    columns : int
        Columns of the image table as stored: ``image``, ``uri``, ``status``, ``error``,
        ``label`` where there is one, and so on.
    passes : int, optional
        Passes, where they are not one for each network.
    """
    blocks = len(BlockGrid(n_images=n_images, block=block))
    passes, layers = passes or len(measured.networks), len(measured.layers)
    table = columns * (1 + -(-n_images // TABLE_ROWS))
    return (
        layers * (blocks + _METADATA)
        + passes * (blocks + _OF_A_PASS)
        + len(_groups(measured.layers))
        + table
        + _OF_A_STORE
    )


def _groups(layers: Sequence[LayerSize]) -> set[str]:
    """Return the groups above layers: ``embedkit/digits/fc`` has two of them."""
    parts = [layer.name.split("/")[:-1] for layer in layers]
    return {"/".join(each[: at + 1]) for each in parts for at in range(len(each))}


def most_files(
    measured: Measurement,
    *,
    n_images: int,
    block: int,
    columns: int,
    passes: int | None = None,
) -> int:
    """Return the files that lie there at the end of a run, before it tidies up.

    Every block has a commit record of its own until then.
    """
    blocks = len(BlockGrid(n_images=n_images, block=block))
    done = count_files(
        measured, n_images=n_images, block=block, columns=columns, passes=passes
    )
    return done + blocks * (passes or len(measured.networks))


def map_files(*, n_images: int, block: int) -> int:
    """Return the most files of a raw map: those of a store with one layer, being written."""
    blocks = len(BlockGrid(n_images=n_images, block=block))
    table = _MAP_COLUMNS * (1 + -(-n_images // TABLE_ROWS))
    return 3 * blocks + _METADATA + _OF_A_PASS + _OF_A_STORE + table
