"""What a store remembers of its image files: sizes, times of change, rows by id.

Kept in plain ``.npy`` files below ``_embedkit/images``, each written whole.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.errors import InputError, NotInStore
from embedkit.files.files import Files
from embedkit.store import arrays
from embedkit.store.commits import PRIVATE
from embedkit.store.ids import candidates, sorted_rows

_FOLDER = f"{PRIVATE}/images"
_SPAN = 2**20
"""Rows among which ids are looked up at a time: Zarr holds every chunk that it reads from
in memory, all at once."""


def write_manifest(
    files: Files, ids: Sequence[str], columns: Mapping[str, npt.NDArray[np.int64]]
) -> None:
    """Remember ids and columns of int64 (``size``, ``mtime``), a row per image."""
    hashed, rows = sorted_rows(ids)
    index = np.stack([hashed, rows.view(np.uint64)])  # one file: they belong together
    for name, values in {**columns, "index": index}.items():
        buffer = io.BytesIO()
        np.save(buffer, values, allow_pickle=False)
        files.write(_name(name), buffer.getvalue())


def remembered(files: Files, column: str) -> npt.NDArray[Any]:
    """Return one column; on a file system only the pages that are used are read."""
    place = files.for_zarr()
    if isinstance(place, str):
        mapped: npt.NDArray[Any] = np.load(f"{place}/{_name(column)}", mmap_mode="r")
        return mapped
    loaded: npt.NDArray[Any] = np.load(io.BytesIO(files.read(_name(column))))
    return loaded


def locate(
    files: Files, ids: Sequence[str] | str, n_images: int
) -> npt.NDArray[np.int64]:
    """Return the rows of images; see `Store.locate`."""
    wanted = [ids] if isinstance(ids, str) else list(ids)
    given: Sequence[object] = wanted
    odd = [each for each in given if not isinstance(each, str)]
    if odd:
        message = (
            f"image ids are text, found {odd[0]!r} ({type(odd[0]).__name__}) among "
            f"{len(wanted)}: give ids, and rows to isel"
        )
        raise InputError(message)
    rows = rows_of(files, wanted, n_images)
    missing = [name for name, row in zip(wanted, rows, strict=True) if row < 0]
    if missing:
        message = (
            f"{files.url} has no image {missing[0]!r}"
            f"{f' and {len(missing) - 1} more' if missing[1:] else ''}: "
            "ids are listed by the store's `images`"
        )
        raise NotInStore(message)
    return rows


def rows_of(files: Files, ids: Sequence[str], n_images: int) -> npt.NDArray[np.int64]:
    """Return the row of every id, -1 where there is no such image.

    Returns
    -------
    (n,) array of int64
        In the order of `ids`.
    """
    hashed, standing = remembered(files, "index")
    found = candidates(ids, hashed, standing.view(np.int64))
    pairs = [
        (place, int(row))
        for place, rows in enumerate(found)
        for row in rows
        if row < n_images
    ]
    names = _ids_at(files, [row for _, row in pairs])
    result = np.full(len(ids), -1, np.int64)
    for (place, row), name in zip(pairs, names, strict=True):
        if name == ids[place]:
            result[place] = row
    return result


def _ids_at(files: Files, rows: Sequence[int]) -> list[str]:
    """Return the ids of some rows, reading only the chunks they are in."""
    wanted, back = np.unique(np.asarray(rows, np.int64), return_inverse=True)
    ends = np.flatnonzero(np.diff(wanted // _SPAN)) + 1
    names: list[str] = []
    for some in np.split(wanted, ends) if len(wanted) else []:
        names += arrays.read_text(files, "image", rows=some)
    return [names[place] for place in back]


def seal(files: Files, digest: str) -> None:
    """Remember the digest of the images as they were given, when all else is written."""
    files.write(f"{_FOLDER}/digest", digest.encode())


def unseal(files: Files) -> None:
    """Forget the digest: what follows may be killed half-way."""
    files.delete(f"{_FOLDER}/digest")


def sealed(files: Files) -> str | None:
    """Return the digest of the images that the store was last brought in line with."""
    try:
        return files.read(f"{_FOLDER}/digest").decode()
    except FileNotFoundError:
        return None


def _name(column: str) -> str:
    return f"{_FOLDER}/{column}.npy"
