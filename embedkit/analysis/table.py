"""Columns about images from a table, in the order of the images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd

from embedkit.errors import InputError, did_you_mean

Table: TypeAlias = pd.DataFrame | str | os.PathLike[str]

# Columns that may hold ids, the likeliest first. Read as text, so that "007" stays.
ID_COLUMNS = ("image", "id", "image_id", "path", "uri", "file", "filename", "name")


def join_table(table: Table, ids: pd.Index, *, on: str | None = None) -> pd.DataFrame:
    """Look up the rows of a table by image id.

    Parameters
    ----------
    table : DataFrame or path
        A table, or a CSV, TSV or Parquet file.
    ids : Index of str, shape (N,)
        Image ids.
    on : str, optional
        Column, or name of the index, that holds the ids. By default whichever of the
        index and the usual columns (image, id, path, uri, ...) matches most ids.

    Returns
    -------
    DataFrame, N rows
        One row for each id, in order; missing values where the table has none.

    Raises
    ------
    InputError
        If the file or column is unusable, no id matches, or an id stands twice.
    """
    frame = table if isinstance(table, pd.DataFrame) else _read(Path(table), on)
    keys = _keys(frame, ids, on)
    matched = keys.isin(ids)
    if not matched.any():
        raise InputError(
            f"The table has none of the {len(ids)} image ids: it holds {keys[0]!r} where "
            f"images are called {ids[0]!r}; name the id column with on=, or rename."
            if len(keys)
            else "The table has no rows; pass one row for each image."
        )
    twice = keys[matched & keys.duplicated()]
    if len(twice):
        raise InputError(
            f"The table has {len(twice)} rows too many: image {twice[0]!r} stands in more "
            "than one; keep one row for each image."
        )
    return frame.set_axis(keys).loc[matched].reindex(ids)


def _read(path: Path, on: str | None) -> pd.DataFrame:
    """Read a file by its suffix."""
    if not path.is_file():
        raise InputError(
            f"The table {str(path)!r} does not exist; pass a CSV or Parquet file."
        )
    text = dict.fromkeys([*ID_COLUMNS, *([on] if on else [])], "str")
    match path.suffix.lower():
        case ".csv":
            return pd.read_csv(path, dtype=text)
        case ".tsv":
            return pd.read_csv(path, dtype=text, sep="\t")
        case ".parquet" | ".pq":
            return pd.read_parquet(path)
        case suffix:
            raise InputError(
                f"The table {str(path)!r} has suffix {suffix!r}; pass .csv, .tsv or .parquet."
            )


def _keys(frame: pd.DataFrame, ids: pd.Index, on: str | None) -> pd.Index:
    """Find the ids within the table, as text."""
    index_name = str(frame.index.name) if frame.index.name is not None else None
    if on is not None:
        if on in frame.columns:
            return pd.Index(frame[on].astype(str))
        if on == index_name:
            return frame.index.astype(str)
        names = [*map(str, frame.columns), *([index_name] if index_name else [])]
        raise InputError(f"The table has no column {on!r}. {did_you_mean(on, names)}")
    candidates = [frame.index.astype(str)]
    candidates += [
        pd.Index(frame[name].astype(str)) for name in ID_COLUMNS if name in frame
    ]
    matches = [int(keys.isin(ids).sum()) for keys in candidates]
    return candidates[int(np.argmax(matches))]
