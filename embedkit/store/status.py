"""How it went with every image: told by the commit records, written down at the end."""

from __future__ import annotations

import json

import xarray as xr

from embedkit.files.files import Files
from embedkit.store import arrays, layout, table
from embedkit.store.commits import PRIVATE, read_commits
from embedkit.store.schema import StoreSchema

FINISHED = f"{PRIVATE}/finished"
"""A file that names the passes whose status stands in the image table as it is."""


def image_table(files: Files, schema: StoreSchema) -> xr.Dataset:
    """Return the image table as it is stored, lazily; cut while it is being grown."""
    opened = arrays.open_dataset(files)
    opened.attrs = {}  # `drop_attrs` would read all ids and index them
    for column in opened.variables.values():
        column.attrs = {}
    return opened.isel(image=slice(schema.n_images))


def with_status(files: Files, schema: StoreSchema) -> xr.Dataset:
    """Return the image table with the status that the commit records tell."""
    columns = image_table(files, schema)
    if {one.key for one in schema.passes} <= settled(files):
        return columns
    ids = columns["image"]
    status = [
        table.status_columns(ids, read_commits(files, one, schema.grid(one)))
        for one in schema.passes
    ]
    return table.with_status(columns, table.joint_status(status))


def settled(files: Files) -> set[str]:
    """Return the keys of the passes whose status stands in the image table as it is."""
    try:
        return set(json.loads(files.read(FINISHED)))
    except FileNotFoundError:
        return set()


def finish(files: Files, schema: StoreSchema) -> None:
    """Write the final status of every image into the image table."""
    ids = image_table(files, schema)["image"].load()
    status = [
        table.status_columns(ids, read_commits(files, one, schema.grid(one)))
        for one in schema.passes
    ]
    joint = table.joint_status(status)
    layout.write_columns(files, xr.Dataset(joint))
    same = [
        one.key
        for one, own in zip(schema.passes, status, strict=True)
        if table.same_status(own, joint)
    ]
    files.write(FINISHED, json.dumps(same).encode())
