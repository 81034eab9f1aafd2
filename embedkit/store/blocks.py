"""One block on disk: written whole, checked whole.

Writers name a block, never a slice: a shard is one file, and writing part of one would
read, change and rewrite the whole of it without any lock.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Mapping

import numpy as np
import numpy.typing as npt

from embedkit.errors import CorruptStore, StoreError
from embedkit.files.files import Files
from embedkit.planning.grid import BlockGrid
from embedkit.store import arrays
from embedkit.store.commits import PRIVATE
from embedkit.store.schema import LayerSpec, Pass

ACTIVATION = "activation"
CONTENT = "content"


def layer_group(layer: str) -> str:
    """Return the path of a layer's group inside the store."""
    return f"layers/{layer}"


def activation(spec: LayerSpec) -> str:
    """Return the path of a layer's array inside the store."""
    return f"{layer_group(spec.name)}/{ACTIVATION}"


def content_array(one: Pass) -> str:
    """Return the path of the array of content hashes that a pass saw."""
    return f"{PRIVATE}/content/{one.key}"


def write_block(
    files: Files,
    one: Pass,
    grid: BlockGrid,
    block: int,
    values: Mapping[str, npt.NDArray[np.generic]],
) -> dict[str, int]:
    """Write one block of a pass: one whole shard an array.

    Parameters
    ----------
    files : Files
        The store.
    one : Pass
        The pass.
    grid : BlockGrid
        Its blocks.
    block : int
        Which block.
    values : mapping of str to (n, ...) array
        For every layer by the store's name for it, and for ``content``, one row per
        image of the block.

    Returns
    -------
    dict of str to int
        CRC-32 of the bytes as written, uncompressed, by the same names.

    Raises
    ------
    StoreError
        When one is missing or an array has another shape than its shard.
    """
    rows = grid.rows(block)
    written = {}
    for name, (array, shape, dtype) in _shards(one).items():
        found, wanted = values.get(name), (rows.stop - rows.start, *shape)
        if found is None or found.shape != wanted:
            message = (
                f"block {block} of {name} needs an array of shape {wanted}, "
                f"found {None if found is None else found.shape}"
            )
            raise StoreError(message)
        stored = np.ascontiguousarray(found, dtype=dtype)
        version, file = _version(one, grid), shard(array, block, len(shape))
        try:
            arrays.write(files, array, stored, rows=rows, version=version)
        except (ValueError, RuntimeError):
            # Zarr reads the shard that it replaces, and that one is damaged.
            files.delete(file)
            arrays.write(files, array, stored, rows=rows, version=version)
        written[name] = zlib.crc32(stored.data)
    files.sync(
        *(shard(array, block, len(shape)) for array, shape, _ in _shards(one).values())
    )
    return written


def checksums(
    files: Files, one: Pass, grid: BlockGrid, block: int
) -> Iterable[tuple[str, int | str]]:
    """Yield CRC-32, or what is wrong, of every array of a block, by layer."""
    for name, (array, shape, _) in _shards(one).items():
        if files.exists(shard(array, block, len(shape))):
            yield name, _checksum(files, array, grid.rows(block), _version(one, grid))
        else:
            yield name, "missing"


def _checksum(files: Files, array: str, rows: slice, version: str) -> int | str:
    damage: tuple[type[Exception], ...] = (*arrays.DAMAGE, *files.failures)
    try:
        found = arrays.read(files, array, rows=rows, version=version)
    except damage as error:
        return f"unreadable ({type(error).__name__})"
    return zlib.crc32(np.ascontiguousarray(found).data)


def _version(one: Pass, grid: BlockGrid) -> str:
    """Return what changes with the shapes and types of the arrays of a pass."""
    return f"{one.identity} {grid.n_images} {grid.block}"


def _shards(one: Pass) -> dict[str, tuple[str, tuple[int, ...], str]]:
    """Return path, shape of a row and type of every array of a pass."""
    layers = {
        spec.name: (activation(spec), spec.shape, spec.dtype) for spec in one.layers
    }
    return {**layers, CONTENT: (content_array(one), (), "uint64")}


def shard(array: str, block: int, ndim: int) -> str:
    """Return the file that holds a block of an array with rows of `ndim` axes."""
    return ".".join([f"{array}/c", str(block), *("0" for _ in range(ndim))])


def blocks_there(files: Files, spec: LayerSpec) -> set[int]:
    """Return the blocks of a layer that have a file, by listing one folder."""
    names = files.names(activation(spec))
    parts = (name.split(".") for name in names)
    return {int(each[1]) for each in parts if each[0] == "c" and each[1].isdecimal()}


def check_shards(files: Files, spec: LayerSpec, committed: Collection[int]) -> None:
    """Refuse to read missing files as NaN: a committed block has its shard.

    Raises
    ------
    CorruptStore
        When files of committed blocks are gone.
    """
    gone = sorted(set(committed) - blocks_there(files, spec))
    if gone:
        message = (
            f"layer {spec.name} of {files.url} has lost the files of {len(gone)} "
            f"committed blocks (the first is {gone[0]}): repair it with "
            f"embedkit.verify(store, repair=True) or `embedkit verify --repair`"
        )
        raise CorruptStore(message)
