"""Arrays of images in Zarr, below a folder.

Import this module inside the function that needs it: Zarr is slow to import.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from embedkit.images.npy_file import StoredArray


def arrays(path: str) -> dict[str, StoredArray]:
    """Return all arrays below a folder by name; a folder that is one has no name."""
    root = zarr.open(path, mode="r")
    if isinstance(root, zarr.Array):
        return {"": _told(root)}
    with warnings.catch_warnings():
        # Other files may lie beside the arrays, which Zarr warns of.
        warnings.simplefilter("ignore")
        members = root.members(max_depth=None)
    return {name: _told(each) for name, each in members if isinstance(each, zarr.Array)}


def attributes(path: str) -> dict[str, Any]:
    """Return the attributes of the array or group in a folder."""
    return dict(zarr.open(path, mode="r").attrs)


def stored(path: str, name: str) -> StoredArray:
    """Return what the metadata say of an array."""
    return _told(_array(path, name))


def read(path: str, name: str, *, start: int, stop: int) -> npt.NDArray[np.uint8]:
    """Return some rows of an array."""
    return np.asarray(_array(path, name)[start:stop])


def stamp(path: str, name: str, *, start: int, stop: int) -> Hashable:
    """Return what changes when the files of these rows are written again."""
    array = _array(path, name)
    size = array.shards or array.chunks
    rows = range(start // size[0], -(-stop // size[0]))
    others = (range(-(-n // m)) for n, m in zip(array.shape[1:], size[1:], strict=True))
    folder = Path(path, name)
    keys = map(array.metadata.encode_chunk_key, itertools.product(rows, *others))
    return tuple(_state(folder / key) for key in keys)


def mtime(path: str, name: str) -> int:  # noqa: ARG001 - part of Reader
    """Return -1: rows lie in many files, and no time speaks for all of them."""
    return -1


def _told(array: Any) -> StoredArray:
    return StoredArray(array.shape, array.dtype, array.chunks[0] if array.shape else 0)


def _array(path: str, name: str) -> Any:
    """Return an array, whose metadata are read once per process and state."""
    folder = Path(path, name)
    states = (_state(folder / file) for file in ("zarr.json", ".zarray"))
    return _opened(path, name, tuple(states))


@functools.lru_cache(maxsize=32)
def _opened(path: str, name: str, state: Hashable) -> Any:  # noqa: ARG001 - one state
    return zarr.open_array(path, path=name, mode="r")


def _state(file: Path) -> tuple[int, int] | None:
    """Return what tells one state of a file from another; None where there is none."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
