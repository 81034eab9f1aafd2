"""Analyses kept beside the data: ``results/<name>`` of a store, plain xarray groups."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import xarray as xr

from embedkit.errors import InputError, NotInStore, StoreError, did_you_mean
from embedkit.files.files import Files, files_at
from embedkit.files.reasons import said
from embedkit.store import arrays
from embedkit.store.layout import (
    OTHER_ROWS,
    RESULT,
    RESULTS,
    read_schema,
)
from embedkit.store.table import text

OF_IMAGES = "embedkit_images"
"""The attribute of a result whose rows are the store's first rows: as many as it had."""


def save(
    files: Files,
    name: str,
    result: xr.Dataset | xr.DataArray,
    *,
    same_images: bool = True,
) -> None:
    """Compute `result` and write it as ``results/<name>``, whole or not at all.

    Parameters
    ----------
    files : Files
        The store.
    name : str
        Words divided by slashes.
    result : Dataset or DataArray
        What to keep; lazy parts are computed here.
    same_images : bool, default True
        Whether dimension ``image`` is the store's, from its first row on. One of other
        images, or of fewer than there are now, is called ``row`` on disk, because
        xarray's tree refuses to open groups that disagree.

    Raises
    ------
    InputError
        When the name cannot be one of a group, or lies above or below another's.
    StoreError
        When the store cannot be written.
    """
    _check_name(name)
    _check_nesting(files, name)
    ready = _with_portable_text(_as_dataset(result).drop_encoding().compute())
    rows = ready.sizes.get("image")
    if rows is not None and same_images:
        ready = ready.assign_attrs({OF_IMAGES: rows})
    if rows is not None and not (same_images and rows == read_schema(files).n_images):
        ready = ready.rename({"image": OTHER_ROWS})
    place = files.for_zarr()
    try:
        if isinstance(place, str):
            _replace(Path(place), name, ready.assign_attrs({RESULT: name}))
        else:
            _rewrite(files, name, ready)
    except files.failures as error:
        message = (
            f"cannot save result {name!r} in {files.url}: {said(error)}: "
            "make the store writable, or keep the result elsewhere with to_zarr"
        )
        raise StoreError(message) from error
    arrays.consolidate(files, [f"{RESULTS}/{name}"])


def save_beside(
    files: Files,
    name: str,
    result: xr.Dataset | xr.DataArray,
    columns: xr.Dataset,
) -> None:
    """Save a result of a store; see `Store.save`.

    Parameters
    ----------
    files : Files
        The store.
    name : str
        Words divided by slashes.
    result : Dataset or DataArray
        What to keep.
    columns : Dataset
        The store's image table: what the result repeats of it is left out.
    """
    if "image" not in result.dims:
        save(files, name, result)
    elif not _same_images(result, columns["image"]):
        save(files, name, result, same_images=False)
    else:
        known = {str(column) for column in columns.variables}
        again = [
            coordinate
            for coordinate, values in result.coords.items()
            if values.dims == ("image",)
            and {str(coordinate), str(coordinate).removeprefix("image_")} & known
        ]
        save(files, name, result.drop_vars(again))


def _replace(store: Path, name: str, dataset: xr.Dataset) -> None:
    """Write a result beside its place, then put it there by renaming."""
    target = store / RESULTS / name
    new = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    old = new.with_name(f"{new.name}.old.partial")
    try:
        arrays.make_group(files_at(store), f"{RESULTS}/{name}".rpartition("/")[0])
        arrays.write_dataset(files_at(new), "", dataset)
        arrays.consolidate(files_at(new))
        if target.exists():
            target.rename(old)
        new.rename(target)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _rewrite(files: Files, name: str, dataset: xr.Dataset) -> None:
    """Write a result where nothing can be renamed: it counts when its mark is there."""
    group = f"{RESULTS}/{name}"
    files.delete_tree(group)
    arrays.write_dataset(files, group, dataset)
    arrays.set_attributes(files, {RESULT: name}, group=group)


def load(files: Files, name: str) -> xr.Dataset:
    """Return the result of that name, lazily.

    Raises
    ------
    NotInStore
        When there is none, with the nearest names that there are.
    """
    known = names(files)
    if name not in known:
        message = f"no result {name!r} in {files.url}. {did_you_mean(name, known)}"
        raise NotInStore(message)
    dataset = arrays.open_dataset(files, f"{RESULTS}/{name}", chunks={})
    if OTHER_ROWS in dataset.dims:
        dataset = dataset.rename({OTHER_ROWS: "image"})
    kept = {key: value for key, value in dataset.attrs.items() if key != RESULT}
    return dataset.drop_attrs(deep=False).assign_attrs(kept)


def names(files: Files) -> list[str]:
    """Return the names of the results that a store holds, sorted."""
    return sorted(arrays.groups_with(files, RESULTS, attribute=RESULT))


def _as_dataset(result: xr.Dataset | xr.DataArray) -> xr.Dataset:
    if isinstance(result, xr.Dataset):
        return result
    name = "value" if result.name is None else result.name
    named = result.to_dataset(name=name)
    return named.assign_attrs(result.attrs)


def _with_portable_text(dataset: xr.Dataset) -> xr.Dataset:
    """Make all text variable-length: fixed-width text has no Zarr v3 specification."""
    fixed = [
        name for name, each in dataset.variables.items() if each.dtype.kind in "UO"
    ]
    changed = {
        name: (dataset[name].dims, text(dataset[name].values), dataset[name].attrs)
        for name in fixed
    }
    return dataset.assign(changed)


def _check_name(name: str) -> None:
    parts = name.split("/")
    odd = {"zarr.json"} | {part for part in parts if not part.isprintable()}
    if parts[0].startswith("_") or not all(
        part and part[0] != "." and part not in odd for part in parts
    ):
        message = (
            f"{name!r} cannot name a result: use words divided by '/', none of them "
            "empty, starting with '.' or named zarr.json, the first not starting with '_'"
        )
        raise InputError(message)


def _check_nesting(files: Files, name: str) -> None:
    for other in names(files):
        shorter, longer = sorted((name, other), key=len)
        if longer.startswith(f"{shorter}/"):
            message = (
                f"result {name!r} cannot be saved beside {other!r}: one would lie "
                "inside the other; give it another name"
            )
            raise InputError(message)


def _same_images(result: xr.Dataset | xr.DataArray, ids: xr.DataArray) -> bool:
    """Whether a result has a row for every image of the store, in its order."""
    if result.sizes.get("image") != ids.size:
        return False
    named = "image" in result.coords
    return not named or bool((result["image"].values == ids.values).all())
