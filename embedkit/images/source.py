"""Where pixels come from: small objects that read one image by its uri."""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from embedkit.errors import SourceError, StoreError
from embedkit.files import whole_file
from embedkit.images.decode import decode

_SAMPLE = 4096
"""Bytes of either end of a file that tell it from another (chosen: one page each)."""


class Source(Protocol):
    """How the pixels behind one uri are read. Small and picklable."""

    def read(self, uri: str) -> Image.Image:
        """Return the image at `uri`, mode RGB, upright, or raise `SourceError`."""
        ...

    def fingerprint(self, uri: str) -> bytes:
        """Return bytes that tell this image from another; none if it cannot be read."""
        ...

    def spooled(self, folder: Path) -> Source:
        """Return a source that another process on the same file system can use.

        Parameters
        ----------
        folder : Path
            Where pixels may be written if they live in this process alone.
        """
        ...


@dataclass(frozen=True, slots=True)
class FileSource:
    """Image files on a file system; the uri is an absolute path."""

    def read(self, uri: str) -> Image.Image:
        """Decode the file at `uri`. Raises `SourceError` if it cannot be decoded."""
        return decode(Path(uri))

    def fingerprint(self, uri: str) -> bytes:
        """Return the first and last 4 KiB of the file."""
        try:
            with Path(uri).open("rb") as file:
                head = file.read(_SAMPLE)
                file.seek(max(len(head), file.seek(0, os.SEEK_END) - _SAMPLE))
                return head + file.read(_SAMPLE)
        except OSError:
            return b""

    def spooled(self, folder: Path) -> FileSource:  # noqa: ARG002 - part of Source
        """Return itself: files are already there for every process."""
        return self


@dataclass(frozen=True, slots=True, eq=False)
class ArraySource:
    """Pixels in memory; the uri of row 3 is ``array:3``.

    Attributes
    ----------
    pixels : (N, H, W, 3) array of uint8
        Held, not copied: do not change it while it is in use.
    """

    pixels: npt.NDArray[np.uint8]

    def read(self, uri: str) -> Image.Image:
        """Return row `uri` of the array. Raises `SourceError` if there is none."""
        return _row(self.pixels, uri)

    def fingerprint(self, uri: str) -> bytes:
        """Return the pixels of the row."""
        return _row(self.pixels, uri).tobytes()

    def spooled(self, folder: Path) -> SpooledArraySource:
        """Write the pixels into `folder`, once, and return a source that maps them."""
        path = folder / f"pixels-{_digest(self.pixels)[:16]}.npy"
        if not path.exists():
            _write(path, self.pixels)
        return SpooledArraySource(path)


@dataclass(frozen=True, slots=True)
class SpooledArraySource:
    """Pixels in a ``.npy`` file, mapped into memory when first read in a process."""

    path: Path

    @property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """The array in the file: (N, H, W, 3), uint8. `StoreError` if it is gone."""
        return _mapped(self.path)

    def read(self, uri: str) -> Image.Image:
        """Return row `uri` of the array. Raises `SourceError` if there is none."""
        return _row(self.pixels, uri)

    def fingerprint(self, uri: str) -> bytes:
        """Return the pixels of the row."""
        return _row(self.pixels, uri).tobytes()

    def spooled(self, folder: Path) -> SpooledArraySource:  # noqa: ARG002 - part of Source
        """Return itself: the file is already there for every process."""
        return self


def array_row(uri: str) -> int:
    """Return the row number in a uri such as ``array:3``, or raise `SourceError`."""
    kind, _, row = uri.partition(":")
    if kind != "array" or not row.isdecimal():
        raise SourceError(
            f"no row of an array is called {uri!r}; rows are 'array:0', …"
        )
    return int(row)


def _row(pixels: npt.NDArray[np.uint8], uri: str) -> Image.Image:
    """Return one row of an array as an image."""
    row = array_row(uri)
    if row >= len(pixels):
        raise SourceError(f"there is no row {row} in an array of {len(pixels)} images")
    return Image.fromarray(np.ascontiguousarray(pixels[row]))  # H W C


@functools.lru_cache(maxsize=4)
def _mapped(path: Path) -> npt.NDArray[np.uint8]:
    """Map a spooled array, once per process; its name holds its digest."""
    try:
        pixels: npt.NDArray[np.uint8] = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        # Not a SourceError, which would pass for so many unreadable images.
        raise StoreError(
            f"the pixels that were spooled to {path} cannot be read ({error}); "
            "run the same call again"
        ) from error
    return pixels


def _digest(pixels: npt.NDArray[np.uint8]) -> str:
    """Return the SHA-256 of an array's shape and bytes."""
    digest = hashlib.sha256(str(pixels.shape).encode())
    for row in pixels:
        digest.update(np.ascontiguousarray(row).data)
    return digest.hexdigest()


def _write(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Write an array so that its file is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        np.save(file, pixels, allow_pickle=False)
