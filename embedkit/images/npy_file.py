"""Arrays in ``.npy`` files, mapped into memory."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class StoredArray:
    """What a file says of an array in it.

    Attributes
    ----------
    shape : tuple of int
        How long each dimension is.
    dtype : dtype
        The type of each number.
    rows : int
        Rows of a chunk, that are read together; 0 where each is read by itself.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows: int


def arrays(path: str) -> dict[str, StoredArray]:
    """Return the one array of a file, under no name."""
    return {"": stored(path, "")}


def stored(path: str, name: str) -> StoredArray:  # noqa: ARG001 - part of Reader
    """Return what the file says of its array."""
    pixels = _mapped(path, stamp(path, "", start=0, stop=0))
    return StoredArray(pixels.shape, pixels.dtype, 0)


def read(
    path: str,
    name: str,
    *,
    start: int,
    stop: int,
) -> npt.NDArray[np.uint8]:
    """Return some rows of the array, mapped."""
    pixels: npt.NDArray[np.uint8] = _mapped(path, stamp(path, name, start=0, stop=0))
    return pixels[start:stop]


def stamp(
    path: str,
    name: str,  # noqa: ARG001 - part of Reader
    *,
    start: int,  # noqa: ARG001
    stop: int,  # noqa: ARG001
) -> Hashable:
    """Return what changes when the file is written again."""
    status = Path(path).stat()
    return status.st_mtime_ns, status.st_size


def mtime(path: str, name: str) -> int:  # noqa: ARG001 - part of Reader
    """Return when the file was last modified, in nanoseconds since 1970."""
    return Path(path).stat().st_mtime_ns


@functools.lru_cache(maxsize=8)
def _mapped(path: str, stamp: Hashable) -> Any:  # noqa: ARG001 - one state of the file
    """Map a file, once per process and state."""
    return np.load(path, mmap_mode="r", allow_pickle=False)
