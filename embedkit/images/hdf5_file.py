"""Datasets in HDF5 files; the owner of h5py.

Import this module inside the function that needs it: h5py is the extra ``hdf5``.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from embedkit.errors import MissingDependencyError
from embedkit.images.npy_file import StoredArray

try:
    import h5py
except ImportError as _error:
    _message = (
        f"HDF5 files need h5py, which cannot be imported ({_error}): "
        "pip install 'embedkit[hdf5]'"
    )
    raise MissingDependencyError(_message) from _error

_OPEN: Final = 4
"""Files that each process has open at a time."""

# HDF5 does one thing at a time in a process; and no file may be closed while it is read.
_lock = threading.RLock()
_files: collections.OrderedDict[str, tuple[Hashable, Any]] = collections.OrderedDict()


def arrays(path: str) -> dict[str, StoredArray]:
    """Return all datasets with a shape in a file and its groups, by name."""
    found: dict[str, StoredArray] = {}

    def note(name: str, each: Any) -> None:
        if isinstance(each, h5py.Dataset) and each.shape:
            found[name] = _told(each)

    with _lock:
        _file(path).visititems(note)
    return found


def stored(path: str, name: str) -> StoredArray:
    """Return what the file says of a dataset."""
    with _lock:
        return _told(_dataset(path, name))


def read(path: str, name: str, *, start: int, stop: int) -> npt.NDArray[np.uint8]:
    """Return some rows of a dataset."""
    with _lock:
        return np.asarray(_dataset(path, name)[start:stop])


def stamp(
    path: str,
    name: str,  # noqa: ARG001 - part of Reader
    *,
    start: int,  # noqa: ARG001
    stop: int,  # noqa: ARG001
) -> Hashable:
    """Return what changes when the file is written again."""
    return _state(path)


def mtime(path: str, name: str) -> int:
    """Return when the file was last modified; -1 if the pixels lie in other files."""
    with _lock:
        dataset = _dataset(path, name)
        elsewhere = dataset.is_virtual or dataset.external
    return -1 if elsewhere else Path(path).stat().st_mtime_ns


def _told(dataset: Any) -> StoredArray:
    rows = dataset.chunks[0] if dataset.chunks else 0
    return StoredArray(dataset.shape, dataset.dtype, rows)


def _dataset(path: str, name: str) -> Any:
    """Return a dataset. The lock must be held as long as it is used."""
    dataset = _file(path)[name]
    if not isinstance(dataset, h5py.Dataset) or not dataset.shape:
        raise KeyError(f"{name!r} is no array")
    return dataset


def _file(path: str) -> Any:
    """Return an open file, which is closed when four others were asked for."""
    state = _state(path)
    known = _files.pop(path, None)
    if known is not None and known[0] != state:
        known[1].close()  # before it is opened again: HDF5 would give the old one
        known = None
    _files[path] = known or (state, h5py.File(path, "r"))
    while len(_files) > _OPEN:
        _files.popitem(last=False)[1][1].close()
    return _files[path][1]


def _state(path: str) -> tuple[int, int]:
    """Return what tells one state of a file from another."""
    status = Path(path).stat()
    return status.st_mtime_ns, status.st_size
