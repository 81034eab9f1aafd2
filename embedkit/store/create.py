"""A new store: there whole, or not at all."""

from __future__ import annotations

import shutil
import time
import uuid
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xarray as xr

from embedkit.errors import StoreError
from embedkit.files.files import Files, files_at
from embedkit.files.reasons import said
from embedkit.files.whole import sync_folder
from embedkit.store.commits import PRIVATE
from embedkit.store.layout import Manifest, write_template
from embedkit.store.lock import is_dead, process_name
from embedkit.store.schema import StoreSchema

_BEGUN = f"{PRIVATE}/creating"
_LAST_WRITES = 50
"""Times that a failed beginning is deleted, every 20 ms, while threads still write."""


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
            write_template(files, schema, table, manifest)
            files.delete(_BEGUN)
    except files.failures as error:
        message = (
            f"cannot create a store at {files.url}: {said(error)}: "
            "choose a place that you can write to"
        )
        raise StoreError(message) from error


def abandoned(files: Files) -> bool:
    """Whether what is there is only the beginning of a store that was never finished."""
    return files.exists(_BEGUN)


def _create_beside(
    path: Path, schema: StoreSchema, table: xr.Dataset, manifest: Manifest
) -> None:
    _sweep(path)
    made = [folder for folder in path.parents if not folder.exists()]
    own = f"{uuid.uuid4().hex}.{process_name()}"
    temporary = path.with_name(f".{path.name}.{own}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_template(files_at(temporary), schema, table, manifest)
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
