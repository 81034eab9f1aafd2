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


def save(store: Path, name: str, result: xr.Dataset | xr.DataArray) -> None:
    """Compute `result` and write it as ``results/<name>``, whole or not at all.

    Parameters
    ----------
    store : Path
        The store.
    name : str
        Words divided by slashes.
    result : Dataset or DataArray
        What to keep; lazy parts are computed here.

    Raises
    ------
    InputError
        When the name cannot be one of a group.
    StoreError
        When the store cannot be written.
    """
    _check_name(name)
    target = store / RESULTS / name
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    ready = _with_portable_text(_as_dataset(result).drop_encoding().compute())
    ready = ready.assign_attrs({_MARK: name})
    try:
        arrays.ensure_group(store, f"{RESULTS}/{name}".rpartition("/")[0])
        ready.to_zarr(temporary, mode="w-", zarr_format=3, consolidated=False)
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        message = (
            f"cannot save result {name!r} in {store}: {error.strerror or error}: "
            "make the store writable, or keep the result elsewhere with to_zarr"
        )
        raise StoreError(message) from error
    arrays.consolidate(store, groups=[f"{RESULTS}/{name}"])


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
    if not all(part and part[0] not in "._" for part in name.split("/")):
        message = (
            f"{name!r} cannot name a result: use words divided by '/', "
            "none of them empty or starting with '.' or '_'"
        )
        raise InputError(message)
