"""What stands beside images in tar files: labels, texts and objects, as columns."""

from __future__ import annotations

import itertools
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pandas as pd

from embedkit.errors import InputError
from embedkit.images.table import RESERVED

SIDECARS: Final = ("cls", "txt", "json")
"""Extensions of the members that say something of the image of their key."""

_COLUMN_OF: Final = {"cls": "label", "txt": "txt"}
"""Sidecars that are one column each."""

_OF_STORES: Final = (
    *("layers", "results", "_embedkit", "zarr.json", "feature"),
    *("token", "channel", "layer", "neighbor", "axis"),
)
"""Names that no store gives away, and which nobody can change inside a tar file."""

_SCALARS: Final = (str, bool, int, float)


def read_sidecar(
    tar: tarfile.TarFile, member: tarfile.TarInfo, *, end: str, path: Path
) -> Any:
    """Return what a sidecar says: text without the space around it, or what JSON holds.

    Parameters
    ----------
    tar : TarFile
        Open for reading.
    member : TarInfo
        The sidecar.
    end : str
        Which of `SIDECARS` it is.
    path : Path
        What the tar file is called, for people.

    Raises
    ------
    InputError
        If it is neither UTF-8 nor, where it should be, JSON.
    """
    file = tar.extractfile(member)
    data = file.read() if file is not None else b""
    try:
        text = data.decode()
        return json.loads(text) if end == "json" else text.strip()
    except ValueError as error:  # of both: not UTF-8, not JSON
        raise InputError(
            f"{member.name!r} in {str(path)!r} cannot be read: {error}; mend it or "
            "take it out"
        ) from error


def sidecar_columns(beside: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return what sidecars say as columns, row by row.

    Parameters
    ----------
    beside : iterable of dict
        For each image, what `read_sidecar` gave by extension.

    Returns
    -------
    DataFrame
        ``label`` from .cls, ``txt`` from .txt, and the scalars of objects in .json under
        their keys, or ``json_<key>`` where that is the name of another column.

    Examples
    --------
    >>> sidecar_columns([{"cls": "3", "json": {"uri": "x", "width": 8}}, {}])
      label json_uri  width
    0     3        x    8.0
    1   NaN      NaN    NaN
    """
    rows = [*beside]
    columns: dict[str, list[Any]] = {}
    for end, name in _COLUMN_OF.items():
        if any(end in row for row in rows):
            columns[name] = [row.get(end) for row in rows]
    objects = [row["json"] if isinstance(row.get("json"), dict) else {} for row in rows]
    taken = {*RESERVED, *_OF_STORES, *columns}
    for key in sorted({*itertools.chain.from_iterable(objects)}):
        values = [each.get(key) for each in objects]
        if any(isinstance(value, _SCALARS) for value in values):
            name = _free(key, taken)
            taken.add(name)
            columns[name] = [v if isinstance(v, _SCALARS) else None for v in values]
    typed = {name: _typed(values) for name, values in columns.items()}
    return pd.DataFrame(typed, index=range(len(rows)))


def _free(key: str, taken: set[str]) -> str:
    """Return the name of the column of a key."""
    name = key.replace("/", "_")
    while name in taken or name.startswith("."):
        name = f"json_{name}"
    return name


def _typed(values: list[Any]) -> pd.Series[Any]:
    """Return values as booleans or numbers if all there are, else as text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pd.Series(values, dtype="boolean" if None in values else "bool")
    if kinds and kinds <= {int, float}:
        small = all(abs(v) < 2**63 for v in values if isinstance(v, int))
        whole = small and kinds == {int} and None not in values
        return pd.Series(values, dtype="int64" if whole else "float64")
    texts = [None if value is None else str(value) for value in values]
    return pd.Series(texts, dtype="str")
