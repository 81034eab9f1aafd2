"""Sets of images from arrays: of NumPy, Dask, xarray, h5py and Zarr, and from files."""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from embedkit.errors import InputError, SourceError, did_you_mean
from embedkit.images.array_files import (
    DAMAGE,
    ArrayFileSource,
    ArrayPlace,
    Kind,
    array_uri,
    is_images,
    reader_of,
)
from embedkit.images.arrays import ArraySource, chunk_starts
from embedkit.images.imageset import ImageSet
from embedkit.images.lazy_arrays import coordinates, is_closed, place_of
from embedkit.images.npy_file import StoredArray
from embedkit.images.paths import image_table
from embedkit.images.source import Source

_EXTENSIONS: Final[dict[str, Kind]] = {
    ".npy": "npy",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
}

_CALLED: Final = {"npy": "a .npy file", "hdf5": "HDF5", "zarr": "Zarr"}

_ZARR_MARKS: Final = ("zarr.json", ".zarray", ".zgroup")

_NAMED: Final = 8
"""How many arrays a message names."""


def from_array(array: Any) -> ImageSet:
    """Return the rows of an array as images.

    Parameters
    ----------
    array : (N, H, W, 3) array of uint8
        See `is_array`. One that is a file's is read from that file by all processes;
        others go into the store's files, a few chunks at a time, while a store is made.

    Raises
    ------
    InputError
        If it is of another type or shape, or empty, or two coordinates of it would give
        images one id or a column a name of embedkit's own.
    """
    if is_closed(array):
        raise InputError(
            "the array cannot be read, since its file is closed; give the file's path"
        )
    _check(array.shape, array.dtype)
    place = place_of(array)
    if place is not None and _is_there(place, array):
        return _from_place(place)
    uris = [f"array:{row}" for row in range(array.shape[0])]
    source = ArraySource(array, chunk_starts(array))
    ids, columns = coordinates(array)
    return _set(array.shape, uris, source, ids=ids, columns=columns)


def array_kind(path: Path) -> Kind | None:
    """Return the format of a path if it is one of arrays; None for any other.

    Parameters
    ----------
    path : Path
        A file by its extension, or a folder that is a Zarr array or group.

    Raises
    ------
    InputError
        For an ``.npz`` file.
    """
    extension = path.suffix.lower()
    if path.is_dir():
        return "zarr" if any((path / mark).is_file() for mark in _ZARR_MARKS) else None
    if not path.is_file():
        return None
    if extension == ".npz":
        raise InputError(
            f"{str(path)!r} is an archive, of which no row can be read by itself: write "
            "its array with numpy.save('photos.npy', array) and open that"
        )
    return _EXTENSIONS.get(extension)


def from_array_file(path: Path, kind: Kind, *, array: str | None = None) -> ImageSet:
    """Return the rows of an array in a file as images.

    Parameters
    ----------
    path : Path
        Absolute. Nothing but metadata is read.
    kind : "npy", "hdf5" or "zarr"
        Its format.
    array : str, optional
        The name of the array in it; by default the only one of images.

    Raises
    ------
    InputError
        If there is no such array, several of images, it does not hold images, or it is a
        store of embedkit.
    SourceError
        If the file cannot be read.
    MissingDependencyError
        For HDF5, where h5py is not installed.
    """
    reader = reader_of(kind)
    try:
        layers = kind == "zarr" and _in_store(path)
        found = {} if layers else reader.arrays(str(path))
    except DAMAGE as error:
        said = " ".join(str(error).split())[:200]
        raise SourceError(
            f"{str(path)!r} cannot be read as {_CALLED[kind]} ({said}); check the file"
        ) from error
    if layers:
        raise InputError(
            f"{str(path)!r} belongs to a store of embedkit, which holds layers and no "
            "images: open it with open_store, or give the images it was made from"
        )
    name = _chosen(path, found, array)
    _check(found[name].shape, found[name].dtype)
    return _from_place(ArrayPlace(kind, str(path), name, 0))


def _is_there(place: ArrayPlace, array: Any) -> bool:
    """Tell whether what other processes would read at a place is this array."""
    try:
        stored = reader_of(place.kind).stored(place.path, place.array)
    except DAMAGE:
        return False
    return (stored.shape, stored.dtype) == (array.shape, array.dtype)


def _from_place(place: ArrayPlace) -> ImageSet:
    """Return all rows of the array that a place names."""
    reader = reader_of(place.kind)
    shape = reader.stored(place.path, place.array).shape
    uris = [array_uri(place._replace(row=row)) for row in range(shape[0])]
    mtime = reader.mtime(place.path, place.array)
    return _set(shape, uris, ArrayFileSource(), mtime=mtime)


def _set(
    shape: tuple[int, ...],
    uris: Sequence[str],
    source: Source,
    *,
    ids: Sequence[str] | None = None,
    columns: pd.DataFrame | None = None,
    mtime: int = -1,
) -> ImageSet:
    """Return the set of rows of one array."""
    n = shape[0]
    width = max(4, len(str(n - 1)))
    return ImageSet(
        image_table(
            ids or [f"{row:0{width}d}" for row in range(n)],
            uris,
            columns=pd.DataFrame(index=range(n)) if columns is None else columns,
        ),
        source,
        np.full(n, math.prod(shape[1:]), np.int64),
        np.full(n, mtime, np.int64),
    )


def _chosen(path: Path, found: dict[str, StoredArray], asked: str | None) -> str:
    """Return the name of the array of images in a file."""
    if asked is not None:
        name = asked.strip("/")
        if name not in found:
            near = did_you_mean(name, found)
            raise InputError(f"array={asked!r} is no array in {str(path)!r}. {near}")
        return name
    if len(found) == 1:
        return next(iter(found))
    fitting = [name for name, stored in found.items() if is_images(stored)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise InputError(
            f"{str(path)!r} has {len(fitting)} arrays of images, {_some(fitting)}; say "
            "which with array="
        )
    told = [f"{name} {each.dtype} {each.shape}" for name, each in found.items()]
    raise InputError(
        f"{str(path)!r} has no array of images, which is uint8 of shape (N, H, W, 3); "
        f"it has {_some(told) or 'no array at all'}"
    )


def _some(names: Sequence[str]) -> str:
    """Return the first names in one line."""
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")


def _in_store(path: Path) -> bool:
    """Tell whether a Zarr array or group is a store of embedkit, or lies in one."""
    from embedkit.images import zarr_file  # slow to import

    groups = itertools.takewhile(
        lambda folder: folder == path or (folder / "zarr.json").is_file(),
        (path, *path.parents),
    )
    return any("embedkit" in zarr_file.attributes(str(each)) for each in groups)


def _check(shape: tuple[Any, ...], dtype: Any) -> None:
    """Refuse arrays that are not of images."""
    if dtype != np.uint8 or len(shape) != 4 or shape[-1] != 3:
        raise InputError(
            f"an array of images must be uint8 of shape (N, H, W, 3), found "
            f"{dtype} of shape {shape}; {_remedy(shape, dtype)}"
        )
    if not all(isinstance(n, numbers.Integral) for n in shape):
        raise InputError(
            f"the array of images has the unknown shape {shape}; call "
            "array.compute_chunk_sizes() first"
        )
    if 0 in shape:
        raise InputError(f"the array of images is empty: its shape is {shape}")


def _remedy(shape: tuple[Any, ...], dtype: Any) -> str:
    """Say how an array becomes one of images."""
    if dtype != np.uint8:
        return "scale the values to 0..255 and use .astype(np.uint8)"
    if len(shape) == 4 and shape[1] == 3:
        return "the channels come last: use .transpose(0, 2, 3, 1)"
    if len(shape) == 3 and shape[-1] == 3:
        return "one image is pixels[np.newaxis]"
    if len(shape) == 3:
        return "for gray images use np.repeat(pixels[..., np.newaxis], 3, axis=-1)"
    return "bring it into that shape"
