"""The image table beside a layer, only as much of it as is needed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from embedkit.errors import InputError, did_you_mean

ID = "image"
"""What the ids are called, in the index of the table and in filters."""


def column_names(x: xr.DataArray) -> list[str]:
    """Return the names of the table's columns that stand beside a layer."""
    return [
        str(name)
        for name, each in x.coords.items()
        if each.dims == ("image",) and name != ID
    ]


def check_columns(x: xr.DataArray, names: Iterable[str], *, asked: str) -> None:
    """Raise unless the table has these columns.

    Raises
    ------
    InputError
        With the nearest names.
    """
    known = column_names(x)
    for name in names:
        if name not in known:
            raise InputError(
                f"{asked} asks for column {name!r}, which the image table lacks. "
                f"{did_you_mean(name, known)}"
            )


def table_of(
    x: xr.DataArray, names: Iterable[str], *, ids: bool = True
) -> pd.DataFrame:
    """Return columns of the whole image table, indexed by id.

    Parameters
    ----------
    x : DataArray
        A layer of a store.
    names : iterable of str
        Which columns; no others are read.
    ids : bool, default True
        Whether the ids are read; else the index holds row numbers.

    Returns
    -------
    DataFrame, N rows
    """
    columns = {name: plain(x.coords[name].values) for name in names}
    index: pd.Index[Any] = pd.RangeIndex(x.sizes["image"])
    if ids:
        index = pd.Index(plain(x.coords[ID].values), name=ID)
    return pd.DataFrame(columns, index=index)


def values_at(
    x: xr.DataArray, name: str, rows: npt.NDArray[np.int64]
) -> npt.NDArray[Any]:
    """Return one column at some rows, in any order; ``"image"`` stands for the ids."""
    wanted, back = np.unique(rows, return_inverse=True)
    return plain(x.coords[name].isel(image=wanted).values)[back]


def plain(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return numpy strings as Python ones, which every pandas takes."""
    return values.astype(object) if values.dtype.kind == "T" else values
