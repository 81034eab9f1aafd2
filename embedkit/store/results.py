"""Analyses kept beside the data: ``results/<name>`` of a store, plain xarray groups."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import xarray as xr

from embedkit.errors import InputError, NotInStore, StoreError, did_you_mean
from embedkit.store import arrays
from embedkit.store.table import text

RESULTS = "results"
_MARK = "embedkit_result"
_OTHER_ROWS = "row"  # stands for "image" where a result's rows are not the store's


def save(
    store: Path,
    name: str,
    result: xr.Dataset | xr.DataArray,
    *,
    same_images: bool = True,
) -> None:
    """Compute `result` and write it as ``results/<name>``, whole or not at all.

    Parameters
    ----------
    store : Path
        The store.
    name : str
        Words divided by slashes.
    result : Dataset or DataArray
        What to keep; lazy parts are computed here.
    same_images : bool, default True
        Whether dimension ``image`` is the store's. Another one is called ``row`` on
        disk, because xarray's tree refuses to open groups that disagree.

    Raises
    ------
    InputError
        When the name cannot be one of a group, or lies above or below another's.
    StoreError
        When the store cannot be written.
    """
    _check_name(name)
    _check_nesting(store, name)
    ready = _with_portable_text(_as_dataset(result).drop_encoding().compute())
    if not same_images:
        ready = ready.rename({"image": _OTHER_ROWS})
    try:
        _replace(store, name, ready.assign_attrs({_MARK: name}))
    except OSError as error:
        message = (
            f"cannot save result {name!r} in {store}: {error.strerror or error}: "
            "make the store writable, or keep the result elsewhere with to_zarr"
        )
        raise StoreError(message) from error
    arrays.consolidate(store, groups=[f"{RESULTS}/{name}"])


def _replace(store: Path, name: str, dataset: xr.Dataset) -> None:
    """Write a result beside its place, then put it there by renaming."""
    target = store / RESULTS / name
    new = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    old = new.with_name(f"{new.name}.old.partial")
    try:
        arrays.ensure_group(store, f"{RESULTS}/{name}".rpartition("/")[0])
        dataset.to_zarr(new, mode="w-", zarr_format=3, consolidated=False)
        if target.exists():
            target.rename(old)
        new.rename(target)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def load(store: Path, name: str) -> xr.Dataset:
    """Return the result of that name, lazily.

    Raises
    ------
    NotInStore
        When there is none, with the nearest names that there are.
    """
    known = names(store)
    if name not in known:
        message = f"no result {name!r} in {store}. {did_you_mean(name, known)}"
        raise NotInStore(message)
    dataset: xr.Dataset = xr.open_zarr(store, group=f"{RESULTS}/{name}", chunks={})
    if _OTHER_ROWS in dataset.dims:
        dataset = dataset.rename({_OTHER_ROWS: "image"})
    kept = {key: value for key, value in dataset.attrs.items() if key != _MARK}
    return dataset.drop_attrs(deep=False).assign_attrs(kept)


def names(store: Path) -> list[str]:
    """Return the names of the results that a store holds, sorted."""
    return sorted(arrays.groups_with(store, RESULTS, attribute=_MARK))


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
    if parts[0].startswith("_") or not all(part and part[0] != "." for part in parts):
        message = (
            f"{name!r} cannot name a result: use words divided by '/', none of them "
            "empty or starting with '.', the first not starting with '_'"
        )
        raise InputError(message)


def _check_nesting(store: Path, name: str) -> None:
    for other in names(store):
        shorter, longer = sorted((name, other), key=len)
        if longer.startswith(f"{shorter}/"):
            message = (
                f"result {name!r} cannot be saved beside {other!r}: one would lie "
                "inside the other; give it another name"
            )
            raise InputError(message)
