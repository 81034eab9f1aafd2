"""Which arrays a store has, and how it grows: more images, more passes.

Writers name a block, never a slice: a shard is one file, and writing part of one would
read, change and rewrite the whole of it without any lock.
"""

from __future__ import annotations

import shutil
import time
import uuid
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from embedkit.errors import CorruptStore, StoreError
from embedkit.files.files import Files, files_at
from embedkit.files.whole import sync_folder
from embedkit.planning.grid import BlockGrid, chunk_rows
from embedkit.store import arrays
from embedkit.store.commits import PRIVATE
from embedkit.store.lock import is_dead, process_name
from embedkit.store.manifest import write_manifest
from embedkit.store.schema import LayerSpec, Pass, StoreSchema

ACTIVATION = "activation"
CONTENT = "content"
RESULTS = "results"
RESULT = "embedkit_result"
"""The attribute by which the group of a saved result is known."""
OTHER_ROWS = "row"
"""Stands for ``image`` in results whose rows are not all rows of the store: xarray's tree
refuses to open groups that disagree."""
_TABLE_ROWS = 16384
_LAST_WRITES = 50
_BEGUN = f"{PRIVATE}/creating"

_DATES = {
    "units": "nanoseconds since 1970-01-01",
    "calendar": "proleptic_gregorian",
}
"""How xarray and others know a date (CF conventions 1.11, section 4.4)."""

_Manifest: TypeAlias = Mapping[str, npt.NDArray[np.int64]]


def layer_group(layer: str) -> str:
    """Return the path of a layer's group inside the store."""
    return f"layers/{layer}"


def activation(spec: LayerSpec) -> str:
    """Return the path of a layer's array inside the store."""
    return f"{layer_group(spec.name)}/{ACTIVATION}"


def content_array(one: Pass) -> str:
    """Return the path of the array of content hashes that a pass saw."""
    return f"{PRIVATE}/content/{one.key}"


def create(
    files: Files,
    schema: StoreSchema,
    table: xr.Dataset,
    *,
    sizes: npt.NDArray[np.int64],
    mtimes: npt.NDArray[np.int64],
) -> None:
    """Create a store whole: metadata and the image table, no block yet.

    Parameters
    ----------
    files : Files
        Where; nothing may be there. On a file system the parent folders are made.
    schema : StoreSchema
        What to lay out.
    table : Dataset
        From `embedkit.store.table.to_dataset`.
    sizes, mtimes : (N,) arrays of int64
        Bytes of every image file and when it was changed, -1 where that is not known.

    Raises
    ------
    StoreError
        When the place cannot be written. On a file system nothing is left behind then:
        the store is built under a temporary name beside its own and renamed at the end.
    """
    place = files.for_zarr()
    manifest = {"size": sizes, "mtime": mtimes}
    try:
        if isinstance(place, str):
            _create_beside(Path(place), schema, table, manifest)
        else:
            files.write(_BEGUN, b"")
            _write_template(files, schema, table, manifest)
            files.delete(_BEGUN)
    except files.failures as error:
        message = (
            f"cannot create a store at {files.url}: {reason(error)}: "
            "choose a place that you can write to"
        )
        raise StoreError(message) from error


def abandoned(files: Files) -> bool:
    """Whether what is there is only the beginning of a store that was never finished."""
    return files.exists(_BEGUN)


def reason(error: BaseException) -> str:
    """Return what an error of the system says, without its number."""
    said = error.strerror if isinstance(error, OSError) else None
    return " ".join(str(said or error).split())


def _create_beside(
    path: Path, schema: StoreSchema, table: xr.Dataset, manifest: _Manifest
) -> None:
    _sweep(path)
    made = [folder for folder in path.parents if not folder.exists()]
    own = f"{uuid.uuid4().hex}.{process_name()}"
    temporary = path.with_name(f".{path.name}.{own}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_template(files_at(temporary), schema, table, manifest)
        temporary.rename(path)
        sync_folder(path.parent)
    except BaseException:
        _remove(temporary)
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise


def _sweep(path: Path) -> None:
    """Delete the beginnings of this store that killed processes have left beside it."""
    for beginning in path.parent.glob(f".{path.name}.*-*-*.partial"):
        if is_dead(beginning.suffixes[-2].removeprefix(".")):
            shutil.rmtree(beginning, ignore_errors=True)


def _remove(folder: Path) -> None:
    """Delete a beginning that failed; Zarr's threads may still be writing to it."""
    for _ in range(_LAST_WRITES):
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.02)
        if not folder.exists():
            return


def _write_template(
    files: Files, schema: StoreSchema, table: xr.Dataset, manifest: _Manifest
) -> None:
    arrays.make_group(files)
    write_columns(files, table)
    write_manifest(files, [str(name) for name in table["image"].values], manifest)
    arrays.make_group(files, "layers")
    for one in schema.passes:
        _make_pass(files, schema, one)
    _settle(files, schema)


def add_pass(files: Files, schema: StoreSchema) -> None:
    """Lay out the last pass of a schema in a store that has all the others."""
    _make_pass(files, schema, schema.passes[-1])
    _settle(files, schema)


def grow(files: Files, schema: StoreSchema) -> None:
    """Give every array of a store the rows of a schema with as many images or more.

    The image table has been written before, and comes into force with it. Killed
    half-way, the store still has its old number of rows for every reader, and the same
    call finishes what was begun.
    """
    for one in schema.passes:
        for name in _arrays_of(one):
            arrays.resize(files, name, schema.n_images)
    if read_schema(files).n_images < schema.n_images:
        # results of fewer images must not be taken for those of all
        arrays.rename_dimension(files, RESULTS, "image", OTHER_ROWS)
    _settle(files, schema)


def _arrays_of(one: Pass) -> Iterable[str]:
    return [*(activation(spec) for spec in one.layers), content_array(one)]


def _settle(files: Files, schema: StoreSchema) -> None:
    """Make the new schema the one in force, last of all and at once.

    Layers that a killed call has begun, and that nobody asked for again, are taken out:
    they would not grow with the others, and plain xarray refuses a tree that disagrees.
    """
    known = {activation(spec) for spec in schema.layers}
    for name in arrays.arrays_below(files, "layers"):
        if name not in known:
            files.delete_tree(name)
    groups = [layer_group(spec.name) for spec in schema.layers]
    saved = arrays.groups_with(files, RESULTS, attribute=RESULT)
    arrays.consolidate(files, [*groups, *(f"{RESULTS}/{name}" for name in saved)])
    within = [*groups, *(each for one in schema.passes for each in _arrays_of(one))]
    files.sync(*(f"{name}/zarr.json" for name in within))
    arrays.set_attributes(files, {"embedkit": schema.to_json()})
    files.sync("zarr.json")


def _make_pass(files: Files, schema: StoreSchema, one: Pass) -> None:
    for spec in one.layers:
        arrays.make(
            files,
            activation(spec),
            shape=(schema.n_images, *spec.shape),
            chunks=(chunk_rows(one.block, spec.row_bytes), *spec.shape),
            shards=(one.block, *spec.shape),
            dtype=spec.dtype,
            fill=float("nan"),
            dims=spec.dims,
        )
    name = content_array(one)
    arrays.make(
        files,
        name,
        shape=(schema.n_images,),
        chunks=(one.block,),
        dtype=np.dtype(np.uint64),
        fill=0,
        dims=("image",),
    )
    arrays.hide(files, name)


def write_columns(files: Files, table: xr.Dataset) -> None:
    """Write columns of the image table, in place of those of the same names.

    A column that keeps its type is written in place, row by row behind what is there:
    wherever this is killed, the ids are never gone.
    """
    for name, column in table.variables.items():
        values = np.asarray(column.values)
        if values.dtype.kind == "M":
            since = values.astype("datetime64[ns]").astype(np.int64)
            _write_column(files, str(name), since, attributes=_DATES)
        else:
            _write_column(files, str(name), values)


def _write_column(
    files: Files,
    name: str,
    values: npt.NDArray[np.generic],
    attributes: Mapping[str, str] | None = None,
) -> None:
    there = (values.dtype, dict(attributes or {}))
    if arrays.kind(files, name) != there:
        arrays.make(
            files,
            name,
            shape=values.shape,
            chunks=(_TABLE_ROWS,),
            dtype=values.dtype,
            fill="" if values.dtype.kind == "T" else 0,
            dims=("image",),
            attributes=attributes,
        )
    arrays.resize(files, name, len(values))
    arrays.write(files, name, values)
    files.sync(*(f"{name}/{each}" for each in files.names(name)))


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
        if rows.stop - rows.start < one.block:
            # Zarr would read what is there, damaged or not, to fill up the shard.
            files.delete(shard(array, block, len(shape)))
        arrays.write(files, array, stored, rows=rows)
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
        yield name, _checksum(files, array, grid.rows(block), block, len(shape))


def _checksum(
    files: Files, array: str, rows: slice, block: int, ndim: int
) -> int | str:
    if not files.exists(shard(array, block, ndim)):
        return "missing"
    damage: tuple[type[Exception], ...] = (*arrays.DAMAGE, *files.failures)
    try:
        found = np.ascontiguousarray(arrays.read(files, array, rows=rows))
    except damage as error:
        return f"unreadable ({type(error).__name__})"
    return zlib.crc32(found.data)


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


def read_schema(files: Files) -> StoreSchema:
    """Return the schema of the store.

    Raises
    ------
    StoreError
        When there is no store there, saying what there is instead.
    CorruptStore
        When its metadata cannot be understood.
    """
    found = arrays.attributes(files)
    if "embedkit" not in found:
        message = (
            f"{files.url} is a Zarr group but no embedkit store: open it with "
            "xarray.open_zarr, or give the path that extract was given"
        )
        raise StoreError(message)
    try:
        return StoreSchema.from_json(found["embedkit"])
    except CorruptStore as error:
        raise CorruptStore(f"{files.url}: {error}") from error
