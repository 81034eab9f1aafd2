"""Writing Zarr: the one file that knows how blocks become shards.

Writers name a block, never a slice: a shard is one file, and writing part of one would
read, change and rewrite the whole of it without any lock.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from zarr.codecs import ZstdCodec

from embedkit.errors import StoreError
from embedkit.planning.grid import chunk_rows
from embedkit.store.commits import PRIVATE
from embedkit.store.schema import LayerSpec, StoreSchema

ACTIVATION = "activation"
_TABLE_ROWS = 16384


def layer_group(layer: str) -> str:
    """Return the path of a layer's group inside the store."""
    return f"layers/{layer}"


def create(path: Path, schema: StoreSchema, table: xr.Dataset) -> None:
    """Create a store whole: metadata and the image table, no block yet.

    Parameters
    ----------
    path : Path
        Must not exist; its parent folders are made.
    schema : StoreSchema
        What to lay out.
    table : Dataset
        From `embedkit.store.table.to_dataset`.

    Raises
    ------
    StoreError
        When the place cannot be written. Nothing is left behind then: the store is
        built under a temporary name beside its own and renamed at the end.
    """
    made = _missing_parents(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_template(temporary, schema, table)
        temporary.rename(path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        if not isinstance(error, OSError):
            raise
        message = (
            f"cannot create a store at {path}: {error.strerror or error}: "
            "choose a place that you can write to"
        )
        raise StoreError(message) from error


def _missing_parents(path: Path) -> list[Path]:
    return [folder for folder in path.parents if not folder.exists()]


def _write_template(path: Path, schema: StoreSchema, table: xr.Dataset) -> None:
    attributes = {"embedkit": schema.to_json()}
    rows = min(_TABLE_ROWS, schema.n_images)
    encoding = {str(name): {"chunks": (rows,)} for name in table.variables}
    table.assign_attrs(attributes).to_zarr(
        path, mode="w-", consolidated=False, zarr_format=3, encoding=encoding
    )
    layers = zarr.open_group(path, mode="r+").create_group("layers")
    for spec in schema.layers:
        _create_layer(layers.create_group(spec.name), spec, schema)
    (path / PRIVATE / "commits").mkdir(parents=True)
    consolidate(path, groups=[layer_group(spec.name) for spec in schema.layers])


def _create_layer(group: zarr.Group, spec: LayerSpec, schema: StoreSchema) -> None:
    group.create_array(
        ACTIVATION,
        shape=(schema.n_images, *spec.shape),
        chunks=(chunk_rows(schema.block, spec.row_bytes), *spec.shape),
        shards=(schema.block, *spec.shape),
        dtype=spec.dtype,
        fill_value=float("nan"),
        compressors=ZstdCodec(level=1),
        dimension_names=spec.dims,
    )


def write_block(
    path: str | Path,
    schema: StoreSchema,
    block: int,
    values: Mapping[str, npt.NDArray[np.float32]],
) -> dict[str, int]:
    """Write one block of every layer: one whole shard an array.

    Parameters
    ----------
    path : str or Path
        The store.
    schema : StoreSchema
        Its schema.
    block : int
        Which block.
    values : mapping of str to (n, ...) array
        For every layer, one row per image of the block.

    Returns
    -------
    dict of str to int
        CRC-32 of every layer's bytes as written, uncompressed.

    Raises
    ------
    StoreError
        When layers are missing or an array has another shape than its shard.
    """
    rows = schema.grid.rows(block)
    checksums = {}
    for spec in schema.layers:
        found = values.get(spec.name)
        shape = (rows.stop - rows.start, *spec.shape)
        if found is None or found.shape != shape:
            message = (
                f"block {block} of layer {spec.name} needs an array of shape {shape}, "
                f"found {None if found is None else found.shape}"
            )
            raise StoreError(message)
        stored = np.ascontiguousarray(found, dtype=spec.dtype)
        array = zarr.open_array(
            path, path=f"{layer_group(spec.name)}/{ACTIVATION}", mode="r+"
        )
        # Chunks of zeros (a dead ReLU) are data: without this Zarr would not write them.
        array.with_config({"write_empty_chunks": True})[rows] = stored
        _sync(shard_path(path, spec, block))
        checksums[spec.name] = zlib.crc32(stored.data)
    return checksums


def shard_path(path: str | Path, spec: LayerSpec, block: int) -> Path:
    """Return the file that holds a block of a layer."""
    folder = Path(path, layer_group(spec.name), ACTIVATION, "c", str(block))
    return folder.joinpath(*("0" for _ in spec.shape))


def blocks_there(path: str | Path, spec: LayerSpec) -> set[int]:
    """Return the blocks of a layer that have a file, by listing one folder."""
    folder = Path(path, layer_group(spec.name), ACTIVATION, "c")
    found = folder.iterdir() if folder.is_dir() else ()
    return {int(each.name) for each in found if each.name.isdigit()}


def _sync(file: Path) -> None:
    """Bring a file to disk: the commit record that vouches for it is about to follow."""
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


def read_schema(path: str | Path) -> StoreSchema:
    """Return the schema of the store at `path`.

    Raises
    ------
    StoreError
        When there is no store there, saying what there is instead.
    CorruptStore
        When its metadata cannot be understood.
    """
    attributes = _root_attributes(Path(path))
    if "embedkit" not in attributes:
        message = (
            f"{path} is a Zarr group but no embedkit store: open it with "
            "xarray.open_zarr, or give the path that extract was given"
        )
        raise StoreError(message)
    return StoreSchema.from_json(attributes["embedkit"])


def _root_attributes(path: Path) -> dict[str, Any]:
    if not path.exists():
        message = f"no store at {path}: nothing is there. Check the path or run extract"
        raise StoreError(message)
    try:
        return dict(zarr.open_group(path, mode="r").attrs)
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError) as error:
        kind = "a folder" if path.is_dir() else "a file"
        message = (
            f"{path} is no embedkit store but {kind} without readable Zarr metadata: "
            "give the path that extract was given"
        )
        raise StoreError(message) from error


def read_text(path: str | Path, name: str, rows: slice) -> list[str]:
    """Return rows of a text column of the image table."""
    array = zarr.open_array(path, path=name, mode="r")
    return [str(value) for value in np.asarray(array[rows])]


def write_text(path: str | Path, name: str, values: npt.NDArray[Any]) -> None:
    """Replace a text column of the image table."""
    zarr.open_array(path, path=name, mode="r+")[:] = values


def ensure_group(path: str | Path, group: str) -> None:
    """Make `group` and the groups above it, where they are missing."""
    zarr.open_group(path, path=group, mode="a")


def groups_with(path: str | Path, under: str, *, attribute: str) -> Iterator[str]:
    """Yield the groups below `under` that carry an attribute, by relative path."""
    root = Path(path, under)
    for file in root.rglob("zarr.json"):
        group = file.parent.relative_to(root).as_posix()
        if ".partial" not in group and attribute in _attributes(file):
            yield group


def _attributes(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_bytes()).get("attributes", {}))


def consolidate(path: str | Path, *, groups: list[str] | None = None) -> None:
    """Gather all metadata into the root's, and that of each named group into its own.

    Plain xarray then opens the store or one layer of it by reading one file.
    """
    with _quiet():
        for group in groups or []:
            zarr.consolidate_metadata(path, path=group)
        zarr.consolidate_metadata(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what Zarr says of consolidated metadata and of the private folder."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently")
        warnings.filterwarnings("ignore", message=f"Object at {PRIVATE} is not")
        warnings.filterwarnings("ignore", message=r"Object at \..*partial is not")
        yield
