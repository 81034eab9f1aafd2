"""Zarr, and xarray over it: the one file that opens, makes, reads and writes arrays.

Nothing here knows what a store holds; see `embedkit.store.layout`. An array is named by
its path inside the store.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from zarr.codecs import BloscCodec, ZstdCodec
from zarr.storage import ObjectStore

from embedkit.errors import StoreError
from embedkit.files.files import Files
from embedkit.files.reasons import said
from embedkit.planning.codecs import USUAL, Codec

Rows: TypeAlias = slice | npt.NDArray[np.int64]

DAMAGE = (ValueError, RuntimeError, OSError, KeyError, IndexError, TypeError)
"""What Zarr and its codecs raise on files that are not what was written."""

_PRIVATE = "_embedkit"


def make(  # noqa: PLR0913 - all that an array is made of
    files: Files,
    name: str,
    *,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: Any,
    fill: float | str,
    shards: tuple[int, ...] | None = None,
    dims: Sequence[str] | None = None,
    attributes: Mapping[str, Any] | None = None,
    codec: Codec = USUAL,
) -> None:
    """Make an array, or make it anew where there is one.

    The files of one array lie in one folder (``c.3.0``, not ``c/3/0``): half as many
    entries for file systems that count them.
    """
    zarr.create_array(
        _target(files),
        name=name,
        shape=shape,
        chunks=chunks,
        shards=shards,
        dtype=dtype,
        fill_value=fill,
        compressors=_compressor(codec),
        dimension_names=dims,
        attributes=None if attributes is None else dict(attributes),
        chunk_key_encoding={"name": "default", "separator": "."},
        overwrite=True,
    )


def _compressor(codec: Codec) -> BloscCodec | ZstdCodec | None:
    """Return what compresses chunks; it is kept with the array, and readers know it."""
    if codec == "none":
        return None
    kind, _, how = codec.partition("-")
    if kind == "zstd":
        return ZstdCodec(level=int(how))
    name: Literal["lz4", "zstd"] = "lz4" if how == "lz4" else "zstd"
    return BloscCodec(cname=name, clevel=1, shuffle="shuffle")


def hide(files: Files, name: str) -> None:
    """Take the groups above an array out of the tree that other readers see."""
    parts = name.split("/")[:-1]
    for depth in range(len(parts)):
        files.delete("/".join([*parts[: depth + 1], "zarr.json"]))


def make_group(files: Files, name: str = "") -> None:
    """Make a group and those above it, where they are missing."""
    zarr.open_group(_target(files), path=name, mode="a")


def write(
    files: Files,
    name: str,
    values: npt.NDArray[Any],
    *,
    rows: slice = slice(None),
    version: str = "",
) -> None:
    """Write rows of an array. Chunks of zeros are written too: they are data.

    Zarr would leave them out by default, and the choice is not kept with the array.
    With a `version`, which has to change with the array's shape and type, its metadata
    are read once per process.
    """
    array = _opened(files, name, version, "r+")
    array.with_config({"write_empty_chunks": True})[rows] = values


def read(
    files: Files, name: str, *, rows: Rows = slice(None), version: str = ""
) -> npt.NDArray[Any]:
    """Return rows of an array: a slice, or row numbers in ascending order.

    `version` is as for `write`.
    """
    array = _opened(files, name, version, "r")
    found = array[rows] if isinstance(rows, slice) else array.oindex[rows]
    return np.asarray(found)


def read_text(files: Files, name: str, *, rows: Rows = slice(None)) -> list[str]:
    """Return rows of an array of text."""
    return [str(value) for value in read(files, name, rows=rows)]


def resize(files: Files, name: str, n_rows: int) -> None:
    """Give an array so many rows: more, as zeros, or fewer, when growth is taken back."""
    array = zarr.open_array(_target(files), path=name, mode="r+")
    if array.shape[0] != n_rows:
        array.resize((n_rows, *array.shape[1:]))


def kind(files: Files, name: str) -> tuple[np.dtype[Any], dict[str, Any]] | None:
    """Return type and attributes of an array; None where there is none."""
    try:
        array = zarr.open_array(_target(files), path=name, mode="r")
    except FileNotFoundError:
        return None
    return array.dtype, dict(array.attrs)


def arrays_below(files: Files, group: str) -> list[str]:
    """Return the paths of all arrays below a group, by looking at each."""
    opened = zarr.open_group(
        _target(files), path=group, mode="r", use_consolidated=False
    )
    with _quiet():
        members = opened.members(max_depth=None)
    return [f"{group}/{name}" for name, each in members if isinstance(each, zarr.Array)]


def attributes(files: Files) -> dict[str, Any]:
    """Return the attributes of the root group.

    Raises
    ------
    StoreError
        When there is no Zarr group there, saying what there is instead.
    """
    try:
        there = files.exists("")
    except files.failures as error:
        message = (
            f"cannot look into {files.url}: {said(error)}: check the place and access"
        )
        raise StoreError(message) from error
    if not there:
        message = (
            f"no store at {files.url}: nothing is there. Check the path or run extract"
        )
        raise StoreError(message)
    try:
        return dict(zarr.open_group(_target(files), mode="r").attrs)
    except DAMAGE as error:
        alone = isinstance(_target(files), str) and Path(files.url).is_file()
        message = (
            f"{files.url} is no embedkit store but {'a file' if alone else 'a folder'} "
            "without readable Zarr metadata: give the path that extract was given"
        )
        raise StoreError(message) from error


def set_attributes(files: Files, found: Mapping[str, Any], *, group: str = "") -> None:
    """Add or replace attributes of a group, the root by default, at once."""
    opened = zarr.open_group(_target(files), path=group, mode="r+")
    opened.update_attributes(dict(found))


def groups_with(files: Files, under: str, *, attribute: str) -> Iterator[str]:
    """Yield the groups below `under` that carry an attribute, by relative path."""
    for name in files.names(under):
        group, _, last = name.rpartition("/")
        if last != "zarr.json" or ".partial" in group:
            continue
        try:
            found = json.loads(files.read(f"{under}/{name}"))
        except FileNotFoundError:  # another process replaces that group
            continue
        if attribute in found.get("attributes", {}):
            yield group


def rename_dimension(files: Files, under: str, old: str, new: str) -> None:
    """Rename a dimension of all arrays below a group, where it has any."""
    for name in files.names(under):
        if name.rpartition("/")[2] != "zarr.json":
            continue
        found = json.loads(files.read(f"{under}/{name}"))
        dims = found.get("dimension_names") or []
        if old in dims:
            found["dimension_names"] = [new if each == old else each for each in dims]
            files.write(f"{under}/{name}", json.dumps(found).encode())


def consolidate(files: Files, groups: Sequence[str] = ()) -> None:
    """Gather all metadata into the root's, and that of each named group into its own.

    Plain xarray then opens the store or one group of it by reading one file.
    """
    with _quiet():
        for group in groups:
            zarr.consolidate_metadata(_target(files), path=group)
        zarr.consolidate_metadata(_target(files))


def open_dataset(
    files: Files, group: str | None = None, *, chunks: Any = None
) -> xr.Dataset:
    """Open a group lazily: without Dask by default, and without any index."""
    opened: xr.Dataset = xr.open_zarr(
        _target(files), group=group, chunks=chunks, create_default_indexes=False
    )
    return opened


def open_tree(files: Files) -> xr.DataTree:
    """Open everything as xarray's tree, lazily."""
    return xr.open_datatree(_target(files), engine="zarr", chunks={})


def write_dataset(files: Files, group: str, dataset: xr.Dataset) -> None:
    """Write a Dataset as a new group. There may be none of that name."""
    with _quiet():
        dataset.to_zarr(
            _target(files),
            group=group or None,
            mode="w-",
            zarr_format=3,
            consolidated=False,
        )


def _opened(files: Files, name: str, version: str, mode: Literal["r", "r+"]) -> Any:
    if version:
        return _known(files, name, version, mode)
    return zarr.open_array(_target(files), path=name, mode=mode)


@lru_cache(maxsize=1024)  # the arrays of a few passes; each is some kB
def _known(files: Files, name: str, version: str, mode: Literal["r", "r+"]) -> Any:  # noqa: ARG001 - part of the key
    return zarr.open_array(_target(files), path=name, mode=mode)


def _target(files: Files) -> Any:
    place = files.for_zarr()
    return place if isinstance(place, str) else ObjectStore(place)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what Zarr says of consolidated metadata and of the private folder."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently")
        warnings.filterwarnings("ignore", message=f"Object at {_PRIVATE} is not")
        warnings.filterwarnings("ignore", message=r"Object at \..*partial is not")
        yield
