"""Arrays of images in files: ``.npy``, HDF5 and Zarr, read row by row by their path.

The uri of row 3 is ``npy:<absolute path>#3``, ``hdf5:<absolute path>#<dataset>/3`` or
``zarr:<absolute path>#<array>/3``. In the path ``%`` and ``#`` are ``%25`` and ``%23``.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from embedkit.errors import SourceError
from embedkit.images import npy_file
from embedkit.images.held import HELD
from embedkit.images.npy_file import StoredArray
from embedkit.images.pixels import PixelSource
from embedkit.images.uris import escaped, unescaped

Kind: TypeAlias = Literal["npy", "hdf5", "zarr"]
"""Formats that are known."""

_URI: Final = re.compile(
    r"(?:(npy):([^#]+)#|(hdf5|zarr):([^#]+)#(.*)/)(\d+)", re.DOTALL
)

DAMAGE: Final = (
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    RuntimeError,
    EOFError,
    MemoryError,
)
"""What the readers raise on files that are gone or are not what was written."""


class Reader(Protocol):
    """How a format is read: a module with these functions. Threads may call them.

    Files that are gone or damaged are any of OSError, ValueError, KeyError, IndexError,
    TypeError, RuntimeError and EOFError.
    """

    def arrays(self, path: str) -> dict[str, StoredArray]:
        """Return all arrays in a file, by name."""

    def stored(self, path: str, name: str) -> StoredArray:
        """Return what the file says of one array."""

    def read(
        self, path: str, name: str, *, start: int, stop: int
    ) -> npt.NDArray[np.uint8]:
        """Return some rows of an array."""

    def stamp(self, path: str, name: str, *, start: int, stop: int) -> Hashable:
        """Return what changes when these rows are written again."""

    def mtime(self, path: str, name: str) -> int:
        """Return when any row last changed, nanoseconds since 1970; -1 if unknown."""


class ArrayPlace(NamedTuple):
    """Where an image is.

    Attributes
    ----------
    kind : "npy", "hdf5" or "zarr"
        The format of the file.
    path : str
        The file, or the folder of a Zarr array or group, absolute.
    array : str
        The name of the array in it; empty where it is the only one.
    row : int
        From 0.
    """

    kind: Kind
    path: str
    array: str
    row: int


@dataclass(frozen=True, slots=True)
class ArrayFileSource(PixelSource):
    """Rows of arrays in files; the uri says which."""

    def row(self, uri: str) -> npt.NDArray[np.uint8]:
        """Return a row, or raise `SourceError` with the reason."""
        place = array_place(uri)
        if place is None:
            raise SourceError(f"no row of an array in a file is called {uri!r}")
        try:
            return np.ascontiguousarray(_row(place))  # H W C
        except SourceError:
            raise
        except DAMAGE as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise SourceError(
                f"the array in the file cannot be read ({said})"
            ) from error


def array_uri(place: ArrayPlace) -> str:
    """Return the uri of a row.

    Examples
    --------
    >>> array_uri(ArrayPlace("hdf5", "/data/a.h5", "photos", 7))
    'hdf5:/data/a.h5#photos/7'
    >>> array_uri(ArrayPlace("npy", "/data/a.npy", "", 7))
    'npy:/data/a.npy#7'
    """
    inside = "" if place.kind == "npy" else f"{place.array}/"
    return f"{place.kind}:{escaped(place.path)}#{inside}{place.row}"


def array_place(uri: str) -> ArrayPlace | None:
    """Return what a uri of `array_uri` says; None for any other.

    Examples
    --------
    >>> array_place("zarr:/data/a.zarr#train/photos/7")
    ArrayPlace(kind='zarr', path='/data/a.zarr', array='train/photos', row=7)
    """
    found = _URI.fullmatch(uri)
    if found is None:
        return None
    npy, npy_path, kind, path, array, row = found.groups()
    return ArrayPlace(
        cast("Kind", npy or kind), unescaped(npy_path or path), array or "", int(row)
    )


def reader_of(kind: Kind) -> Reader:
    """Return what reads a format.

    Raises
    ------
    MissingDependencyError
        For HDF5, where h5py is not installed.
    """
    # Here, because one is an extra and the other is slow to import.
    if kind == "hdf5":
        from embedkit.images import hdf5_file

        return hdf5_file
    if kind == "zarr":
        from embedkit.images import zarr_file

        return zarr_file
    return npy_file


def is_images(stored: StoredArray) -> bool:
    """Tell whether an array is uint8 of shape (N, H, W, 3)."""
    shape = stored.shape
    return stored.dtype == np.uint8 and len(shape) == 4 and shape[-1] == 3


def _row(place: ArrayPlace) -> npt.NDArray[np.uint8]:
    """Return a row, from the chunk that was read last if it is in there."""
    reader = reader_of(place.kind)
    stored = reader.stored(place.path, place.array)
    if not is_images(stored):
        raise SourceError(
            f"the array in the file has changed: it is {stored.dtype} of shape "
            f"{stored.shape} now, but images are uint8 of shape (N, H, W, 3)"
        )
    n, rows = stored.shape[0], stored.rows
    if place.row >= n:
        raise SourceError(f"there is no row {place.row} in an array of {n} images")
    if rows < 2:
        alone: npt.NDArray[np.uint8] = _rows(reader, place, place.row, place.row + 1)[0]
        return alone
    start = place.row // rows * rows
    stop = min(n, start + rows)
    stamp = reader.stamp(place.path, place.array, start=start, stop=stop)
    key = (*place[:3], start, stop, stamp)
    block = HELD.get(key, lambda: _rows(reader, place, start, stop))
    pixels: npt.NDArray[np.uint8] = block[place.row - start]
    return pixels


def _rows(
    reader: Reader, place: ArrayPlace, start: int, stop: int
) -> npt.NDArray[np.uint8]:
    """Read some rows of the array of a place."""
    return reader.read(place.path, place.array, start=start, stop=stop)
