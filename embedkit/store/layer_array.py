"""One stored layer as a lazy, labelled array."""

from __future__ import annotations

import xarray as xr

from embedkit.files.files import Files
from embedkit.store import arrays, table
from embedkit.store.blocks import ACTIVATION, check_shards, layer_group
from embedkit.store.commits import read_commits
from embedkit.store.schema import LayerSpec, Pass, StoreSchema
from embedkit.store.status import content_of, final, image_table

READ_BYTES = 64 * 2**20
"""What a Dask chunk of a layer is at most, where a block is not larger (chosen)."""


def layer_array(files: Files, schema: StoreSchema, spec: LayerSpec) -> xr.DataArray:
    """Return one layer, lazily; see `embedkit.store.store.Store.__getitem__`.

    Parameters
    ----------
    files : Files
        The store.
    schema : StoreSchema
        What it holds.
    spec : LayerSpec
        The layer.

    Raises
    ------
    CorruptStore
        When files of committed blocks are gone.
    """
    one = schema.pass_of(spec.name)
    columns, content = _labels(files, schema, spec, one)
    opened = arrays.open_dataset(
        files,
        layer_group(spec.name),
        chunks={"image": _rows_to_read(spec, one)},
    )[ACTIVATION]
    activation = opened[: schema.n_images].rename(spec.name)
    labelled = activation.assign_coords(
        table.as_coordinates(columns, beside=activation.dims)
    )
    return labelled.assign_attrs(
        one.about,
        layer=spec.name,
        type=spec.type,
        pool=spec.pool,
        content=content,
    )


def _labels(
    files: Files, schema: StoreSchema, spec: LayerSpec, one: Pass
) -> tuple[xr.Dataset, str]:
    """Return the image table with the layer's own status, and the layer's content."""
    columns, known = image_table(files, schema), final(files)
    if one.key in known.settled:
        check_shards(files, spec, range(len(schema.grid(one))))
        return columns, known.content[spec.name]
    commits = read_commits(files, one, schema.grid(one))
    check_shards(files, spec, commits)
    status = table.status_columns(columns["image"], commits)
    return table.with_status(columns, status), content_of(spec.name, commits)


def _rows_to_read(spec: LayerSpec, one: Pass) -> int:
    """Return the rows of a Dask chunk: whole blocks, even of a store that grows now."""
    blocks = max(1, READ_BYTES // max(1, spec.row_bytes * one.block))
    return blocks * one.block
