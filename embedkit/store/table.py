"""The image table as labelled arrays: what a DataFrame becomes in a store, and back."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from embedkit.errors import InputError
from embedkit.store.commits import Commit

_RESERVED = (
    *("status", "error", "image", "layers", "results"),  # the store's own
    *("_embedkit", "zarr.json"),
    *("feature", "token", "channel", "layer", "neighbor", "axis"),  # dimensions
)
_TEXT = np.dtypes.StringDType()

REMOVED = "no longer among the images"
"""The reason that stands with a row whose image was taken out of the set."""


def to_dataset(table: pd.DataFrame) -> xr.Dataset:
    """Return the table as a Dataset over ``image``, every row still ``pending``.

    Parameters
    ----------
    table : DataFrame
        Indexed by image id, with a column ``uri`` and any others.

    Returns
    -------
    Dataset
        Coordinate ``image`` and one variable a column; text as numpy strings (missing
        text is empty), nullable numbers as float64 with NaN, dates as datetime64.

    Raises
    ------
    InputError
        When a column's name is reserved or cannot be a variable, or its values are
        neither text, numbers, booleans nor dates.
    """
    columns = {str(name): _column(str(name), table[name]) for name in table.columns}
    return xr.Dataset(
        {name: ("image", values) for name, values in columns.items()}
        | {
            "status": ("image", text(["pending"] * len(table))),
            "error": ("image", text([""] * len(table))),
        },
        coords=_unindexed(text(table.index)),
    )


def to_frame(dataset: xr.Dataset) -> pd.DataFrame:
    """Return the image table as a DataFrame indexed by image id."""
    names = sorted((str(name) for name in dataset.data_vars), key=_place)
    columns = {name: _plain(dataset[name].values) for name in names}
    index = pd.Index(_plain(dataset["image"].values), name="image")
    return pd.DataFrame(columns, index=index)


def status_columns(
    ids: xr.DataArray, commits: Mapping[int, Commit]
) -> dict[str, tuple[str, npt.NDArray[Any]]]:
    """Return the status and error of every image, as the commit records tell them.

    Parameters
    ----------
    ids : DataArray
        Dims ``(image,)``; read only in blocks that have failures.
    commits : mapping of int to Commit
        The finished blocks.

    Returns
    -------
    dict
        ``status`` (``ok``, ``unreadable``, ``removed`` or ``pending``) and ``error``
        (empty but for unreadable and removed images), each ``("image", array of numpy
        strings)``.
    """
    status = np.full(ids.size, "pending", dtype=_TEXT)
    error = np.full(ids.size, "", dtype=_TEXT)
    for commit in commits.values():
        status[commit.start : commit.stop] = "ok"
        if not commit.failures:
            continue
        for row, name in enumerate(ids[commit.start : commit.stop].values):
            if name in commit.failures:
                reason = commit.failures[name]
                gone = reason == REMOVED
                status[commit.start + row] = "removed" if gone else "unreadable"
                error[commit.start + row] = reason
    return {"status": ("image", status), "error": ("image", error)}


_Status: TypeAlias = Mapping[str, tuple[str, npt.NDArray[Any]]]


def joint_status(passes: Sequence[_Status]) -> dict[str, tuple[str, npt.NDArray[Any]]]:
    """Return the status and error of every image over all passes.

    An image is ``ok`` where all say so; else the first pass that says otherwise counts,
    and an image that one pass could not read comes before one that waits.
    """
    status, error = (passes[0][name][1].copy() for name in ("status", "error"))
    for other in passes[1:]:
        worse = (other["status"][1] != "ok") & (
            (status == "ok") | ((status == "pending") & (other["error"][1] != ""))
        )
        status[worse] = other["status"][1][worse]
        error[worse] = other["error"][1][worse]
    return {"status": ("image", status), "error": ("image", error)}


def with_status(columns: xr.Dataset, status: _Status) -> xr.Dataset:
    """Return the image table with another status and error, still without an index.

    `Dataset.assign` would read all ids and index them.
    """
    variables: dict[Hashable, xr.Variable] = dict(columns.variables)
    variables |= {name: xr.Variable(*found) for name, found in status.items()}
    ids = xr.Coordinates({"image": variables.pop("image")}, indexes={})
    return xr.Dataset(variables, coords=ids)


def same_status(one: _Status, other: _Status) -> bool:
    """Whether two say the same of every image."""
    return all(
        bool((one[name][1] == other[name][1]).all()) for name in ("status", "error")
    )


def _place(name: str) -> int:
    """Where a column stands: what it is first, how it went last."""
    order = {"uri": 0, "label": 1, "split": 2, "status": 4, "error": 5}
    return order.get(name, 3)


def as_coordinates(
    columns: xr.Dataset, *, beside: Iterable[Hashable]
) -> xr.Coordinates:
    """Return every variable of the image table as a coordinate without an index.

    An index over millions of text ids takes seconds and hundreds of MB to build, and
    most work selects by position or by mask.

    Parameters
    ----------
    columns : Dataset
        The image table.
    beside : iterable of names
        Variables and dimensions that the coordinates will stand beside. A column of
        the same name is renamed: ``label`` becomes ``image_label``.
    """
    plain = columns.reset_coords()
    taken = {str(name) for name in beside} - {"image"}
    return xr.Coordinates(
        {
            f"image_{name}" if name in taken else str(name): plain.variables[name]
            for name in plain.variables
        },
        indexes={},
    )


def text(values: object) -> npt.NDArray[Any]:
    """Return `values` as an array of numpy's variable-length strings."""
    return np.asarray(values, dtype=object).astype(_TEXT)


def _unindexed(ids: npt.NDArray[Any]) -> xr.Coordinates:
    return xr.Coordinates({"image": ("image", ids)}, indexes={})


def _plain(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return numpy strings as Python ones, which every pandas takes."""
    return values.astype(object) if values.dtype.kind == "T" else values


def _column(name: str, column: pd.Series[Any]) -> npt.NDArray[Any]:
    _check_name(name)
    kind = column.dtype
    if isinstance(kind, pd.CategoricalDtype):
        return _column(name, column.astype(object).infer_objects())
    if pd.api.types.is_datetime64_any_dtype(kind):
        return np.asarray(pd.to_datetime(column, utc=True).dt.tz_localize(None))
    if pd.api.types.is_numeric_dtype(kind):  # booleans too
        return _numbers(column)
    return _text_column(name, column)


def _numbers(column: pd.Series[Any]) -> npt.NDArray[Any]:
    """Return numbers or booleans as numpy's, as float64 where some are missing."""
    if column.hasnans:
        return column.to_numpy(np.float64, na_value=np.nan)
    plain = column.to_numpy()
    if plain.dtype.kind in "biuf":
        return plain
    return column.to_numpy(bool if column.dtype == "boolean" else np.float64)


def _text_column(name: str, column: pd.Series[Any]) -> npt.NDArray[Any]:
    present = column[column.notna()]
    odd = next((value for value in present if not isinstance(value, str)), None)
    if odd is not None:
        message = (
            f"column {name!r} of the image table holds {odd!r} ({type(odd).__name__}) "
            "among its values: make it text, numbers, booleans or dates, or drop it"
        )
        raise InputError(message)
    return text(column.where(column.notna(), "").tolist())


def _check_name(name: str) -> None:
    if name in _RESERVED or not re.fullmatch(r"[^/.\x00-\x1f][^/\x00-\x1f]*", name):
        message = (
            f"column {name!r} of the image table cannot be stored: rename it (reserved: "
            f"{', '.join(_RESERVED)}; no '/' and no leading '.')"
        )
        raise InputError(message)
