"""How it went with every image: told by the commit records, written down at the end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import xarray as xr

from embedkit.files.files import Files
from embedkit.store import arrays, layout, table
from embedkit.store.commits import PRIVATE, Commit, read_commits
from embedkit.store.schema import StoreSchema

FINISHED = f"{PRIVATE}/finished"
"""A file that is there while nothing is to be done: see `Final`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """What is known of a store while nothing is to be done.

    Parameters
    ----------
    settled : frozenset of str
        Keys of the passes whose status stands in the image table as it is.
    content : mapping of str to str
        For every layer, what `content_of` gave.
    """

    settled: frozenset[str] = frozenset()
    content: Mapping[str, str] = field(default_factory=dict)


def content_of(layer: str, commits: Mapping[int, Commit]) -> str:
    """Return 16 hexadecimal digits that change with any stored number of a layer.

    BLAKE2b of the checksums of its blocks. Results carry it, so that nobody takes
    neighbors of last week's images for those of today's.
    """
    parts = [f"{block}:{commits[block].crc32.get(layer)}" for block in sorted(commits)]
    return hashlib.blake2b(" ".join(parts).encode(), digest_size=8).hexdigest()


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
    if {one.key for one in schema.passes} <= final(files).settled:
        return columns
    ids = columns["image"]
    status = [
        table.status_columns(ids, read_commits(files, one, schema.grid(one)))
        for one in schema.passes
    ]
    return table.with_status(columns, table.joint_status(status))


def final(files: Files) -> Final:
    """Return what `finish` has written, nothing where there is something to do."""
    try:
        found = json.loads(files.read(FINISHED))
    except FileNotFoundError:
        return Final()
    return Final(settled=frozenset(found["settled"]), content=found["content"])


def finish(files: Files, schema: StoreSchema) -> None:
    """Write the final status of every image into the image table."""
    ids = image_table(files, schema)["image"].load()
    commits = {
        one.key: read_commits(files, one, schema.grid(one)) for one in schema.passes
    }
    status = {key: table.status_columns(ids, each) for key, each in commits.items()}
    joint = table.joint_status(list(status.values()))
    layout.write_columns(files, xr.Dataset(joint))
    found = {
        "settled": [
            key for key, own in status.items() if table.same_status(own, joint)
        ],
        "content": {
            spec.name: content_of(spec.name, commits[one.key])
            for one in schema.passes
            for spec in one.layers
        },
    }
    files.write(FINISHED, json.dumps(found).encode())
