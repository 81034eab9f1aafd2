"""What arrays of other libraries tell of themselves, without importing any of these."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from embedkit.errors import InputError
from embedkit.images.array_files import ArrayPlace
from embedkit.images.paths import absolute
from embedkit.images.table import RESERVED, check_columns

_CLASSES: Final = {
    ("h5py", "Dataset"),
    ("zarr", "Array"),
    ("xarray", "DataArray"),
    ("dask", "Array"),
}


_GROUPS: Final = {("h5py", "Group"), ("zarr", "Group"), ("xarray", "Dataset")}


def check_no_group(source: object) -> None:
    """Refuse what holds arrays but is none; `InputError` says what to give."""
    if any(_is(source, *each) for each in _GROUPS):
        raise InputError(
            f"{type(source).__name__} is no array of images but holds arrays by name: "
            "give one of them, as in open_images(group['photos'])"
        )


def is_array(source: object) -> bool:
    """Tell whether something is an array of NumPy, Dask, xarray, h5py or Zarr."""
    return isinstance(source, np.ndarray) or any(
        _is(source, *each) for each in _CLASSES
    )


def is_closed(array: Any) -> bool:
    """Tell whether an array of h5py is one of a file that was closed since."""
    return _is(array, "h5py", "Dataset") and not array


def place_of(array: Any) -> ArrayPlace | None:
    """Return where the first row of an array lies, if all of it is an array in a file.

    Parameters
    ----------
    array : array
        See `is_array`.

    Returns
    -------
    ArrayPlace or None
        None for what is in memory, computed, a part of what is in a file, or in a file
        that is open for writing.
    """
    if isinstance(array, np.memmap):
        return _of_memmap(array)
    if _is(array, "h5py", "Dataset"):
        return _of_hdf5(array)
    if _is(array, "zarr", "Array"):
        return _of_zarr(array)
    return None


def coordinates(array: Any) -> tuple[list[str] | None, pd.DataFrame | None]:
    """Return ids and columns from the coordinates of an array, along its first dimension.

    Parameters
    ----------
    array : array
        See `is_array`; any but those of xarray has none.

    Returns
    -------
    ids : list of str, or None
        The dimension's own coordinate, if it is text.
    columns : DataFrame or None
        All other coordinates of one dimension. Row numbers, 0 to N - 1, are left out.

    Raises
    ------
    InputError
        If a coordinate bears a name of embedkit's own.
    """
    if not _is(array, "xarray", "DataArray"):
        return None, None
    dim = array.dims[0]
    values = {
        name: pd.Index(coord.values)
        for name, coord in array.coords.items()
        if coord.dims == (dim,) and not _is_levels(array, name)
    }
    own = values.get(dim)
    ids = None
    if own is not None and own.inferred_type == "string":
        ids = [str(each) for each in values.pop(dim)]
    elif own is not None and own.equals(pd.Index(range(len(own)))):
        del values[dim]
    clash = [name for name in RESERVED if name in values]
    if clash:
        raise InputError(
            f"coordinates {clash} bear names that embedkit gives itself, or are no ids, "
            f"which are text; rename them with .rename({{{clash[0]!r}: 'my_{clash[0]}'}}) "
            f"or use .drop_vars({clash[0]!r})"
        )
    columns = pd.DataFrame(values, index=range(array.shape[0]))
    check_columns(columns)
    return ids, columns


def _is(source: object, package: str, name: str) -> bool:
    """Tell whether an object is of a class, by its name alone."""
    return any(
        each.__name__ == name and each.__module__.partition(".")[0] == package
        for each in type(source).__mro__
    )


def _is_levels(array: Any, name: Any) -> bool:
    """Tell whether a coordinate is that of several levels, which stand beside it."""
    index = array.indexes.get(name)
    return isinstance(index, pd.MultiIndex) and name == index.name


def _of_memmap(array: Any) -> ArrayPlace | None:
    """Return the place of a mapped ``.npy`` file, if all of it is mapped and unchanging."""
    if array.mode != "r" or not isinstance(array.filename, str | Path):
        return None
    try:
        whole: Any = np.load(array.filename, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    same = (whole.offset, whole.shape, whole.strides, whole.dtype) == (
        array.offset,
        array.shape,
        array.strides,
        array.dtype,
    )
    return ArrayPlace("npy", str(absolute(array.filename)), "", 0) if same else None


def _of_hdf5(array: Any) -> ArrayPlace | None:
    """Return the place of a dataset with a name in a file that is read only."""
    file = Path(array.file.filename)
    if array.name is None or array.file.mode != "r" or not file.is_file():
        return None
    return ArrayPlace("hdf5", str(absolute(file)), array.name.strip("/"), 0)


def _of_zarr(array: Any) -> ArrayPlace | None:
    """Return the place of an array that lies in a folder."""
    if type(array.store).__name__ != "LocalStore":
        return None
    return ArrayPlace("zarr", str(absolute(array.store.root)), array.path, 0)
