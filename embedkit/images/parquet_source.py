"""Images in a column of Parquet files, read by row group.

The uri of a row is ``parquet:<absolute path>#<row group>/<row>/<column>``, both counted
from 0, the row within its group. In the path ``%`` and ``#`` are ``%25`` and ``%23``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.errors import SourceError
from embedkit.images.held import HELD
from embedkit.images.source import EncodedSource
from embedkit.images.uris import escaped, unescaped

_URI: Final = re.compile(r"parquet:([^#]+)#(\d+)/(\d+)/(.+)", re.DOTALL)


class ParquetPlace(NamedTuple):
    """Where an image is.

    Attributes
    ----------
    path : str
        The Parquet file, absolute.
    group, row : int
        Its row group, and the row within that, from 0.
    column : str
        The column of images.
    """

    path: str
    group: int
    row: int
    column: str


@dataclass(frozen=True, slots=True)
class ParquetSource(EncodedSource):
    """Rows of Parquet files; the uri says which."""

    def fetch(self, uri: str) -> bytes:
        """Return the bytes of an image, or raise `SourceError` with the reason."""
        place = parquet_place(uri)
        if place is None:
            raise SourceError(f"no row of a Parquet file is called {uri!r}")
        try:
            column = _group(place)
            found = column[place.row].as_py()
        except (pa.ArrowException, OSError, LookupError, MemoryError) as error:
            said = " ".join(str(error).split())[:200]
            raise SourceError(f"the Parquet file cannot be read ({said})") from error
        data = found.get("bytes") if isinstance(found, dict) else found
        if not isinstance(data, bytes):
            raise SourceError(
                f"there are no bytes in column {place.column!r} of this row"
            )
        return data


def parquet_uri(place: ParquetPlace) -> str:
    """Return the uri of a row.

    Examples
    --------
    >>> parquet_uri(ParquetPlace("/data/a.parquet", 0, 7, "image"))
    'parquet:/data/a.parquet#0/7/image'
    """
    return f"parquet:{escaped(place.path)}#{place.group}/{place.row}/{place.column}"


def parquet_place(uri: str) -> ParquetPlace | None:
    """Return what a uri of `parquet_uri` says; None for any other.

    Examples
    --------
    >>> parquet_place("parquet:/data/a.parquet#0/7/image").row
    7
    """
    found = _URI.fullmatch(uri)
    if found is None:
        return None
    path, group, row, column = found.groups()
    return ParquetPlace(unescaped(path), int(group), int(row), column)


def _group(place: ParquetPlace) -> Any:
    """Return the images of a row group, read once by the threads of a process."""
    status = Path(place.path).stat()
    key = (
        "parquet",
        place.path,
        status.st_mtime_ns,
        status.st_size,
        place.group,
        place.column,
    )
    return HELD.get(key, lambda: _column(place))


def _column(place: ParquetPlace) -> Any:
    """Read the images of a row group: of a struct, its bytes alone."""
    with pq.ParquetFile(place.path) as file:
        kind = file.schema_arrow.field(place.column).type
        name = f"{place.column}.bytes" if pa.types.is_struct(kind) else place.column
        return file.read_row_group(place.group, columns=[name])[place.column]
