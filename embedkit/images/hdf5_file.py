"""Datasets in HDF5 files; the owner of h5py.

Import this module inside the function that needs it: h5py is the extra ``hdf5``.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
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

# HDF5 does one thing at a time in a process anyhow.
_lock: Final = threading.Lock()


def arrays(path: str) -> dict[str, StoredArray]:
    """Return all datasets with a shape in a file and its groups, by name."""
    found: dict[str, StoredArray] = {}

    def note(name: str, each: Any) -> None:
        if isinstance(each, h5py.Dataset) and each.shape:
            found[name] = _told(each)

    with _opened(path) as file:
        file.visititems(note)
    return found


def stored(path: str, name: str) -> StoredArray:
    """Return what the file says of a dataset."""
    return _stored(path, name, _state(path))


def read(path: str, name: str, *, start: int, stop: int) -> npt.NDArray[np.uint8]:
    """Return some rows of a dataset."""
    with _opened(path) as file:
        return np.asarray(_dataset(file, name)[start:stop])


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
    with _opened(path) as file:
        dataset = _dataset(file, name)
        elsewhere = dataset.is_virtual or dataset.external
    return -1 if elsewhere else Path(path).stat().st_mtime_ns


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """Open a file for one errand.

    It takes half a millisecond. As long as it is open, HDF5 lets nobody write it anew,
    not even this process.
    """
    with _lock, h5py.File(path, "r") as file:
        yield file


@functools.lru_cache(maxsize=64)
def _stored(path: str, name: str, state: Hashable) -> StoredArray:  # noqa: ARG001
    with _opened(path) as file:
        return _told(_dataset(file, name))


def _told(dataset: Any) -> StoredArray:
    rows = dataset.chunks[0] if dataset.chunks else 0
    return StoredArray(dataset.shape, dataset.dtype, rows)


def _dataset(file: Any, name: str) -> Any:
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or not dataset.shape:
        raise KeyError(f"{name!r} is no array")
    return dataset


def _state(path: str) -> tuple[int, int]:
    """Return what tells one state of a file from another."""
    status = Path(path).stat()
    return status.st_mtime_ns, status.st_size
