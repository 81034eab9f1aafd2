"""Pixels that were in one process, written to files that every process can reach.

They lie in parts, ``pixels-<digest>.npy``, so that neither the one who writes them nor
the one who reads them needs room for all. ``pixels-<digest>.json`` lists the parts.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.errors import SourceError, StoreError
from embedkit.files.files import Files, files_at
from embedkit.images.pixels import PixelSource


@dataclass(frozen=True, slots=True)
class SpooledArraySource(PixelSource):
    """Pixels in ``.npy`` files, mapped into memory when first read in a process.

    Attributes
    ----------
    url : str
        Where the files are, for `files_at`.
    name : str
        What the list of them is called there. The name holds its digest.
    """

    url: str
    name: str

    def row(self, uri: str) -> npt.NDArray[np.uint8]:
        """Return row `uri` of the array, or raise `SourceError` if there is none.

        Raises
        ------
        StoreError
            If the files are gone: that is no fault of the image.
        """
        starts, names, n = _listed(self.url, self.name)
        row = array_row(uri, n)
        part = bisect_right(starts, row) - 1
        pixels = _mapped(self.url, names[part])
        return np.ascontiguousarray(pixels[row - starts[part]])  # H W C


def spool(parts: Iterable[npt.NDArray[np.uint8]], files: Files) -> SpooledArraySource:
    """Write pixels into `files`, each part once, and return a source that maps them.

    Parameters
    ----------
    parts : iterable of (n, H, W, 3) arrays of uint8
        All images, in their order.
    files : Files
        Where the pixels shall lie.
    """
    starts, names, n = [], [], 0
    for part in parts:
        names.append(_kept_part(files, part))
        starts.append(n)
        n += len(part)
    told = json.dumps({"starts": starts, "parts": names, "images": n}).encode()
    name = f"pixels-{hashlib.sha256(told).hexdigest()[:16]}.json"
    if not files.exists(name):
        files.create(name, told)
    return SpooledArraySource(files.url, name)


def array_row(uri: str, n: int) -> int:
    """Return the row number in a uri such as ``array:3``.

    Parameters
    ----------
    uri : str
        ``array:`` and a number from 0.
    n : int
        How many rows there are.

    Raises
    ------
    SourceError
        If it is the uri of something else, or there is no such row.
    """
    kind, _, row = uri.partition(":")
    if kind != "array" or not row.isdecimal():
        raise SourceError(
            f"no row of an array is called {uri!r}; rows are 'array:0', …"
        )
    if int(row) >= n:
        raise SourceError(f"there is no row {int(row)} in an array of {n} images")
    return int(row)


def _kept_part(files: Files, part: npt.NDArray[np.uint8]) -> str:
    """Write a part under a name that holds its digest, unless it is there."""
    pixels = np.ascontiguousarray(part)
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(pixels.data)
    name = f"pixels-{digest.hexdigest()[:16]}.npy"
    if not files.exists(name):
        buffer = io.BytesIO()
        np.save(buffer, pixels, allow_pickle=False)
        files.create(name, buffer.getvalue())
    return name


@functools.lru_cache(maxsize=4)
def _listed(url: str, name: str) -> tuple[list[int], list[str], int]:
    """Return first rows and names of the parts, and how many rows there are in all."""
    try:
        told: dict[str, Any] = json.loads(files_at(url).read(name))
        return told["starts"], told["parts"], told["images"]
    except (OSError, ValueError) as error:
        raise _lost(url, name, error) from error


@functools.lru_cache(maxsize=64)
def _mapped(url: str, name: str) -> npt.NDArray[np.uint8]:
    """Map a part, once per process; its name holds its digest."""
    try:
        path = files_at(url).local_copy(name)
        pixels: npt.NDArray[np.uint8] = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise _lost(url, name, error) from error
    return pixels


def _lost(url: str, name: str, error: Exception) -> StoreError:
    """Say that spooled pixels are gone."""
    # Not a SourceError, which would pass for so many unreadable images.
    said = " ".join(str(error).split())
    return StoreError(
        f"the pixels that were spooled to {url}/{name} cannot be read ({said}); "
        "run the same call again"
    )
