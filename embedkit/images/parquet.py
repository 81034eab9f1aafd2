"""Parquet files that hold the images themselves, as Hugging Face datasets do."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.errors import InputError, SourceError, did_you_mean
from embedkit.images.folder import has_wildcard
from embedkit.images.imageset import ImageSet
from embedkit.images.parquet_source import ParquetPlace, ParquetSource, parquet_uri
from embedkit.images.paths import absolute, image_table, stamp_of
from embedkit.images.table import PATH_COLUMNS, check_columns

_BYTES: Final = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
)


def image_column_of(file: Path, asked: str | None = None) -> str | None:
    """Return the column of a Parquet file that holds images; None if none does.

    Parameters
    ----------
    file : Path
        A Parquet file.
    asked : str, optional
        The column that is said to hold them.

    Returns
    -------
    str or None
        A column of structs with ``bytes``; or else a column of bytes, unless there is
        a column of paths.

    Raises
    ------
    InputError
        If several columns might be meant, or `asked` holds no bytes.
    SourceError
        If it is no Parquet file.
    """
    schema = _schema(file)
    structs = [field.name for field in schema if _is_struct_of_bytes(field.type)]
    plain = [field.name for field in schema if _is_bytes(field.type)]
    if asked is not None:
        if asked not in (*structs, *plain):
            near = did_you_mean(asked, [*structs, *plain])
            raise InputError(
                f"image_column={asked!r} is no column of image bytes in {str(file)!r}. {near}"
            )
        return asked
    has_paths = any(
        field.name in PATH_COLUMNS and _is_text(field.type) for field in schema
    )
    found = structs or ([] if has_paths else plain)
    if len(found) > 1:
        raise InputError(
            f"{str(file)!r} has {len(found)} columns of bytes, {', '.join(found)}; say "
            "which holds the images with image_column="
        )
    return found[0] if found else None


def parquet_files(name: str) -> list[Path]:
    """Return the Parquet files that a file, folder or glob stands for, sorted."""
    path = absolute(name)
    if path.is_dir():
        found = (file for file in path.rglob("*.parquet") if file.is_file())
        return sorted(
            f for f in found if "/." not in f"/{f.relative_to(path).as_posix()}"
        )
    if has_wildcard(name) and not path.exists():
        names = glob.glob(str(path), recursive=True)  # noqa: PTH207 - it is absolute
        return sorted(map(Path, names))
    return [path] if path.is_file() else []


def from_parquet(
    files: Sequence[Path],
    *,
    image_column: str | None = None,
    id_column: str | None = None,
) -> ImageSet:
    """Return the images in Parquet files, one per row, file by file.

    Parameters
    ----------
    files : sequence of Path
        With the same columns. Nothing but the images' own bytes is left unread.
    image_column : str, optional
        See `image_column_of`, which chooses it by the first file.
    id_column : str, optional
        The column of ids; by default the ``path`` beside the bytes if each row has
        another, or else the file's name and the row number, ``train-0/00041``.

    Returns
    -------
    ImageSet
        Columns of text, numbers, booleans and dates keep their names; lists, structs
        and bytes are left out. Classes by number become their names, where the file
        has them as Hugging Face writes them.

    Raises
    ------
    InputError
        If there is no such column, an id is missing or occurs twice.
    SourceError
        If there is no file, or one cannot be read as Parquet.
    """
    if not files:
        raise SourceError("there is no .parquet file here; check the path")
    column = image_column_of(files[0], image_column)
    if column is None:
        raise InputError(
            f"{str(files[0])!r} has no column of image bytes; say which with image_column="
        )
    for file in files[1:]:
        image_column_of(file, column)  # or refuse it
    columns = pd.concat([_rest(file, column) for file in files], ignore_index=True)
    places = [place for file in files for place in _places(file, column)]
    times = {str(file): stamp_of(file).mtime for file in files}
    ids = _ids(files, column, columns, id_column)
    rest = columns if id_column is None else columns.drop(columns=id_column)
    check_columns(rest)
    return ImageSet(
        image_table(ids, [parquet_uri(place) for place in places], columns=rest),
        ParquetSource(),
        np.full(len(places), -1, np.int64),
        np.array([times[place.path] for place in places], np.int64),
    )


def _schema(file: Path) -> Any:
    """Return the Arrow schema of a file."""
    try:
        return pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        said = " ".join(str(error).split())
        raise SourceError(
            f"table {str(file)!r} cannot be read: {said}; a .parquet file was expected"
        ) from error


def _is_bytes(kind: Any) -> bool:
    return any(ask(kind) for ask in _BYTES)


def _is_text(kind: Any) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner))


def _is_struct_of_bytes(kind: Any) -> bool:
    fields = kind if pa.types.is_struct(kind) else ()
    return any(field.name == "bytes" and _is_bytes(field.type) for field in fields)


def _places(file: Path, column: str) -> Iterator[ParquetPlace]:
    """Yield where each row of a file is."""
    told = pq.read_metadata(file)
    for group in range(told.num_row_groups):
        for row in range(told.row_group(group).num_rows):
            yield ParquetPlace(str(file), group, row, column)


def _rest(file: Path, column: str) -> pd.DataFrame:
    """Return the other columns of a file that a table of images can hold."""
    fields = [field for field in _schema(file) if field.name != column]
    kept = [
        field.name
        for field in fields
        if not pa.types.is_nested(field.type) and not _is_bytes(field.type)
    ]
    table = _read(file, kept)
    # An index that pandas wrote is one more column here, and never the ids.
    frame: pd.DataFrame = table.replace_schema_metadata(None).to_pandas()
    for name, classes in _class_names(table.schema).items():
        if name in frame and pd.api.types.is_integer_dtype(frame[name]):
            frame[name] = frame[name].map(dict(enumerate(classes))).astype("str")
    return frame if kept else pd.DataFrame(index=range(table.num_rows))


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Return the names of classes by column, as Hugging Face writes them in the schema."""
    try:
        told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = told["info"]["features"].items()
    except (ValueError, LookupError, TypeError, AttributeError):  # others write it too
        return {}
    return {
        name: feature["names"]
        for name, feature in features
        if isinstance(feature, dict) and isinstance(feature.get("names"), list)
    }


def _read(file: Path, columns: list[str]) -> Any:
    """Read some columns of one file, whatever the folders it lies in are called."""
    with pq.ParquetFile(file) as opened:
        return opened.read(columns=columns)


def _ids(
    files: Sequence[Path], column: str, columns: pd.DataFrame, id_column: str | None
) -> list[str]:
    """Return the ids of all rows."""
    if id_column is not None:
        if id_column not in columns:
            near = did_you_mean(id_column, columns.columns)
            raise InputError(
                f"id_column={id_column!r} is not a column of the table. {near}"
            )
        gaps = int(columns[id_column].isna().sum())
        if gaps:
            raise InputError(
                f"column {id_column!r} is empty in {gaps} rows; fill them or choose another"
            )
        return [str(each) for each in columns[id_column]]
    names = [name for file in files for name in _paths_beside(file, column)]
    if len(set(names)) == len(columns) and all(names):
        return [str(name) for name in names]
    return [name for file in files for name in _numbered(file, files)]


def _paths_beside(file: Path, column: str) -> list[str | None]:
    """Return the paths that stand beside the bytes; nothing where there are none."""
    kind = _schema(file).field(column).type
    names = [field.name for field in kind] if pa.types.is_struct(kind) else []
    if "path" not in names:
        return []
    table = _read(file, [f"{column}.path"])
    return [each and each.get("path") for each in table[column].to_pylist()]


def _numbered(file: Path, files: Sequence[Path]) -> Iterator[str]:
    """Yield the id of each row of a file, from its name and the row number."""
    n = pq.read_metadata(file).num_rows
    width = max(4, len(str(n - 1)))
    stems = [each.stem for each in files]
    alone = stems.count(file.stem) == 1
    above = Path(os.path.commonpath([each.parent for each in files]))
    stem = file.stem if alone else file.relative_to(above).with_suffix("").as_posix()
    yield from (f"{stem}/{row:0{width}d}" for row in range(n))
