"""Tables of images: a DataFrame, or a CSV, TSV or Parquet file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import Any, Final

import pandas as pd

from embedkit.errors import InputError, SourceError, did_you_mean
from embedkit.files.files import is_url
from embedkit.images.crops import cropped, has_boxes, numbered
from embedkit.images.imageset import ImageSet
from embedkit.images.paths import absolute, image_files, relative_ids
from embedkit.images.url_lists import full_urls, url_images, url_path_ids

PATH_COLUMNS: Final = ("path", "uri", "file", "filename", "image", "filepath")
"""Where paths are looked for, in this order, if no column is named."""

RESERVED: Final = ("image", "uri", "status", "error")
"""Names that embedkit gives to columns of its own."""

TABLE_EXTENSIONS: Final = (".csv", ".tsv", ".parquet")


def from_table_file(
    file: Path,
    *,
    path_column: str | None = None,
    id_column: str | None = None,
    root: str | Path | None = None,
) -> ImageSet:
    """Return the images listed in a .csv, .tsv or .parquet file.

    Parameters
    ----------
    file : Path
        The table. Ids and paths are read as text: ``007`` stays ``007``.
    path_column, id_column : str, optional
        See `from_table`.
    root : str or Path, optional
        The folder that relative paths start from; by default the table's own.

    Raises
    ------
    InputError
        See `from_table`.
    SourceError
        If the file cannot be read as a table, or none of the images exists.
    """
    try:
        frame = _read(file, path_column=path_column, id_column=id_column)
    except (ValueError, OSError) as error:  # pandas' and pyarrow's errors are of these
        if isinstance(error, InputError):
            raise
        said = " ".join(str(error).split())
        raise SourceError(
            f"table {str(file)!r} cannot be read: {said}; "
            f"a {file.suffix} file was expected"
        ) from error
    folder = file.parent if root is None else root
    return from_table(frame, path_column=path_column, id_column=id_column, root=folder)


def from_table(
    frame: pd.DataFrame,
    *,
    path_column: str | None = None,
    id_column: str | None = None,
    root: str | Path | None = None,
) -> ImageSet:
    """Return the images listed in a DataFrame, in the order of its rows.

    With columns ``x0``, ``y0``, ``x1`` and ``y1`` every row is a box in its file; see
    `cropped`. Ids from paths then get ``#0``, ``#1``, … within each file.

    Parameters
    ----------
    frame : DataFrame
        One row per image. It is not changed.
    path_column : str, optional
        The column of paths; by default the first of `PATH_COLUMNS` that there is.
    id_column : str, optional
        The column of ids; by default the path as it is written, with ``/``, or, if all
        paths are absolute, relative to `root` or else to their common folder. An index
        named ``image`` holds ids too, as in ``ImageSet.table``.
    root : str or Path, optional
        The folder or URL that relative paths start from; the working directory by
        default.

    Returns
    -------
    ImageSet
        All other columns keep their names and dtypes.

    Raises
    ------
    InputError
        If a column is missing, has gaps, or bears a reserved name.
    SourceError
        If none of the images exists.
    """
    column = _path_column(list(frame.columns), path_column)
    if id_column is not None:
        _known(list(frame.columns), id_column, "id_column")
    rest = frame.drop(columns=list({column, id_column or column}))
    check_columns(rest)
    images, path_ids = _listed(_paths(frame, column), root)
    if id_column is not None:
        ids = _ids(frame, id_column)
    elif frame.index.name == "image":
        ids = [str(name) for name in frame.index]
    else:
        ids = path_ids()
    if not has_boxes([*rest.columns]):
        return images(ids, columns=rest)
    own = id_column is not None or frame.index.name == "image"
    places = images([str(row) for row in range(len(ids))], columns=rest)
    return cropped(places, ids=ids if own else numbered(ids))


def _read(
    file: Path, *, path_column: str | None, id_column: str | None
) -> pd.DataFrame:
    """Read a table file, paths and ids as text."""
    if file.suffix.lower() == ".parquet":
        return pd.read_parquet(file)
    mark = "\t" if file.suffix.lower() == ".tsv" else ","
    names = list(pd.read_csv(file, sep=mark, nrows=0).columns)
    column = _path_column(names, path_column)
    text = {name: str for name in (column, id_column) if name is not None}
    return pd.read_csv(file, sep=mark, dtype=text)


def _path_column(columns: list[Any], asked: str | None) -> str:
    """Return the name of the column of paths."""
    if asked is not None:
        return _known(columns, asked, "path_column")
    found = next((name for name in PATH_COLUMNS if name in columns), None)
    if found is None:
        raise InputError(
            f"no column of paths: looked for {', '.join(PATH_COLUMNS)}, found "
            f"{', '.join(map(str, columns)) or 'no column'}; say which with path_column="
        )
    return found


def _known(columns: list[Any], asked: str, option: str) -> str:
    """Return `asked` if it is one of the columns."""
    if asked not in columns:
        near = did_you_mean(asked, map(str, columns))
        raise InputError(f"{option}={asked!r} is not a column of the table. {near}")
    return asked


def check_columns(rest: pd.DataFrame) -> None:
    """Refuse column names that no store can hold beside embedkit's own."""
    clash = [name for name in RESERVED if name in rest.columns]
    if clash:
        raise InputError(
            f"the table's columns {clash} bear names that embedkit gives itself; rename "
            f"them, for instance with table.rename(columns={{{clash[0]!r}: 'my_{clash[0]}'}})"
        )
    names: list[Any] = list(rest.columns)
    odd = [name for name in names if not isinstance(name, str)]
    odd += rest.columns[rest.columns.duplicated()].tolist()
    if odd:
        raise InputError(
            f"column names must be text, each used once, found {odd[:5]}; rename them"
        )


def _paths(frame: pd.DataFrame, column: str) -> list[str]:
    """Return the column of paths as text with forward slashes."""
    _check_filled(frame[column])
    texts = frame[column].tolist()
    for row, path in enumerate(texts):
        if not isinstance(path, str | os.PathLike):
            raise InputError(
                f"column {column!r} must hold paths, but row {row} holds "
                f"{type(path).__name__}; say which column does with path_column="
            )
    return [path if is_url(path) else PurePath(path).as_posix() for path in texts]


def _listed(
    texts: Sequence[str], root: str | Path | None
) -> tuple[Callable[..., ImageSet], Callable[[], list[str]]]:
    """Return what makes a set of the files or URLs in a column, and what their ids."""
    if any(map(is_url, texts)) or (root is not None and is_url(root)):
        urls = full_urls(texts, root=root)
        ids = partial(url_path_ids, texts, urls, root=root)
        return partial(url_images, urls=urls), ids
    folder = None if root is None else absolute(root)
    files = [absolute(text, folder=folder) for text in texts]
    return partial(image_files, files=files), partial(_path_ids, texts, files, folder)


def _ids(frame: pd.DataFrame, id_column: str) -> list[str]:
    """Return the column of ids as text."""
    _check_filled(frame[id_column])
    return [str(each) for each in frame[id_column]]


def _check_filled(values: pd.Series[Any]) -> None:
    """Refuse gaps in a column of paths or ids."""
    gaps = values.isna().to_numpy().nonzero()[0]
    if len(gaps):
        raise InputError(
            f"column {values.name!r} is empty in {len(gaps)} rows, for instance row "
            f"{gaps[0]}; fill these cells or drop the rows"
        )


def _path_ids(
    texts: Sequence[str], files: Sequence[Path], folder: Path | None
) -> list[str]:
    """Return ids made from paths: as written, or relative if all are absolute."""
    if not files or not all(PurePath(text).is_absolute() for text in texts):
        return list(texts)
    above = folder is not None and all(file.is_relative_to(folder) for file in files)
    return relative_ids(files, root=folder if above else None)
