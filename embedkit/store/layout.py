"""Which arrays a store has, and how it grows: more images, more passes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from embedkit.errors import CorruptStore, StoreError
from embedkit.files.files import Files
from embedkit.planning.grid import chunk_rows
from embedkit.planning.written import TABLE_ROWS
from embedkit.store import arrays
from embedkit.store.blocks import activation, content_array, layer_group
from embedkit.store.commits import forget_commits
from embedkit.store.manifest import write_manifest
from embedkit.store.schema import Pass, StoreSchema

RESULTS = "results"
RESULT = "embedkit_result"
"""The attribute by which the group of a saved result is known."""
OTHER_ROWS = "row"
"""Stands for ``image`` in results whose rows are not all rows of the store: xarray's tree
refuses to open groups that disagree."""

_DATES = {
    "units": "nanoseconds since 1970-01-01",
    "calendar": "proleptic_gregorian",
}
"""How xarray and others know a date (CF conventions 1.11, section 4.4)."""

Manifest: TypeAlias = Mapping[str, npt.NDArray[np.int64]]


def write_template(
    files: Files, schema: StoreSchema, table: xr.Dataset, manifest: Manifest
) -> None:
    """Lay out a new store: see `embedkit.store.create.create`."""
    arrays.make_group(files)
    write_columns(files, table)
    write_manifest(files, [str(name) for name in table["image"].values], manifest)
    arrays.make_group(files, "layers")
    for one in schema.passes:
        _make_pass(files, schema, one)
    _settle(files, schema)


def add_passes(files: Files, schema: StoreSchema) -> None:
    """Lay out those passes of a schema that a store does not have yet."""
    known = {one.key for one in read_schema(files).passes}
    for one in schema.passes:
        if one.key not in known:
            forget_commits(files, one)  # its arrays are made anew
            _make_pass(files, schema, one)
    _settle(files, schema)


def grow(files: Files, schema: StoreSchema) -> None:
    """Give every array of a store the rows of a schema with as many images or more.

    The image table has been written before, and comes into force with it. Killed
    half-way, the store still has its old number of rows for every reader; the same call
    finishes what was begun, and one with fewer images takes it back.
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
            codec=spec.codec,
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
            chunks=(TABLE_ROWS,),
            dtype=values.dtype,
            fill="" if values.dtype.kind == "T" else 0,
            dims=("image",),
            attributes=attributes,
        )
    arrays.resize(files, name, len(values))
    arrays.write(files, name, values)
    files.sync(*(f"{name}/{each}" for each in files.names(name)))


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
