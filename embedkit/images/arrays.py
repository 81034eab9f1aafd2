"""Images that are rows of an array, in memory or spooled to a file."""

from __future__ import annotations

import functools
import hashlib
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from embedkit.errors import SourceError, StoreError
from embedkit.files.files import Files, files_at
from embedkit.images.source import Loaded, content_hash


@dataclass(frozen=True, slots=True, eq=False)
class ArraySource:
    """Pixels in memory; the uri of row 3 is ``array:3``.

    Attributes
    ----------
    pixels : (N, H, W, 3) array of uint8
        Held, not copied: do not change it while it is in use.
    """

    pixels: npt.NDArray[np.uint8]

    def load(self, uri: str) -> Loaded:
        """Return row `uri` of the array and its hash, or why there is none."""
        return _load(self.pixels, uri)

    def read(self, uri: str) -> Image.Image:
        """Return row `uri` of the array. Raises `SourceError` if there is none."""
        return self.load(uri).unwrap()

    def content(self, uri: str) -> int:
        """Return the hash of the row's shape and pixels; 0 if there is no such row."""
        return _content(self.pixels, uri)

    def spooled(self, files: Files) -> SpooledArraySource:
        """Write the pixels into `files`, once, and return a source that maps them."""
        name = f"pixels-{_digest(self.pixels)[:16]}.npy"
        if not files.exists(name):
            files.create(name, _as_npy(self.pixels))
        return SpooledArraySource(files.url, name)


@dataclass(frozen=True, slots=True)
class SpooledArraySource:
    """Pixels in a ``.npy`` file, mapped into memory when first read in a process.

    Attributes
    ----------
    url : str
        Where the file is, for `files_at`.
    name : str
        What it is called there. The name holds its digest.
    """

    url: str
    name: str

    @property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """The array in the file: (N, H, W, 3), uint8. `StoreError` if it is gone."""
        return _mapped(self.url, self.name)

    def load(self, uri: str) -> Loaded:
        """Return row `uri` of the array and its hash, or why there is none."""
        return _load(self.pixels, uri)

    def read(self, uri: str) -> Image.Image:
        """Return row `uri` of the array. Raises `SourceError` if there is none."""
        return self.load(uri).unwrap()

    def content(self, uri: str) -> int:
        """Return the hash of the row's shape and pixels; 0 if there is no such row."""
        return _content(self.pixels, uri)

    def spooled(self, files: Files) -> SpooledArraySource:  # noqa: ARG002 - part of Source
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


def _row(pixels: npt.NDArray[np.uint8], uri: str) -> npt.NDArray[np.uint8]:
    """Return one row of an array, contiguous in memory."""
    row = array_row(uri)
    if row >= len(pixels):
        raise SourceError(f"there is no row {row} in an array of {len(pixels)} images")
    return np.ascontiguousarray(pixels[row])  # H W C


def _load(pixels: npt.NDArray[np.uint8], uri: str) -> Loaded:
    """Return one row of an array as an image, with its hash."""
    try:
        row = _row(pixels, uri)
    except SourceError as error:
        return Loaded(error, 0)
    return Loaded(Image.fromarray(row), _hashed(row))


def _content(pixels: npt.NDArray[np.uint8], uri: str) -> int:
    """Return the hash of one row of an array; 0 if there is no such row."""
    try:
        return _hashed(_row(pixels, uri))
    except SourceError:
        return 0


def _hashed(row: npt.NDArray[np.uint8]) -> int:
    """Return the content hash of an image's shape and pixels."""
    return content_hash(str(row.shape).encode(), row.data)


@functools.lru_cache(maxsize=4)
def _mapped(url: str, name: str) -> npt.NDArray[np.uint8]:
    """Map a spooled array, once per process; its name holds its digest."""
    files = files_at(url)
    try:
        path = files.local_copy(name)
        pixels: npt.NDArray[np.uint8] = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        # Not a SourceError, which would pass for so many unreadable images.
        said = " ".join(str(error).split())
        raise StoreError(
            f"the pixels that were spooled to {url}/{name} cannot be read ({said}); "
            "run the same call again"
        ) from error
    return pixels


def _digest(pixels: npt.NDArray[np.uint8]) -> str:
    """Return the SHA-256 of an array's shape and bytes."""
    digest = hashlib.sha256(str(pixels.shape).encode())
    for row in pixels:
        digest.update(np.ascontiguousarray(row).data)
    return digest.hexdigest()


def _as_npy(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return the bytes of a ``.npy`` file of an array."""
    buffer = io.BytesIO()
    np.save(buffer, pixels, allow_pickle=False)
    return buffer.getvalue()
