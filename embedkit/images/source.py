"""Where pixels come from: small objects that read one image by its uri."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final, Protocol

from PIL import Image

from embedkit.errors import SourceError
from embedkit.files.files import Files
from embedkit.images.decode import decode, read_bytes

HASH_BYTES: Final = 8
"""Length of a content hash: among a million images, two that differ have the same one
with a probability of 3e-8."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """One image, and what tells its content from any other.

    Attributes
    ----------
    image : PIL.Image.Image or SourceError
        Mode RGB, upright; or why there is none.
    content : int
        The hash of the very bytes that were decoded, as in `Source.content`.
    """

    image: Image.Image | SourceError
    content: int

    def unwrap(self) -> Image.Image:
        """Return the image, or raise the `SourceError` that stands in its place."""
        if isinstance(self.image, SourceError):
            raise self.image
        return self.image


class Source(Protocol):
    """How the pixels behind one uri are read. Small and picklable."""

    def load(self, uri: str) -> Loaded:
        """Return the image at `uri`, or why there is none, and its content hash.

        What the image is made of is read once, so both speak of the same bytes.
        """
        ...

    def read(self, uri: str) -> Image.Image:
        """Return the image at `uri`, mode RGB, upright, or raise `SourceError`."""
        ...

    def content(self, uri: str) -> int:
        """Return the content hash of the image at `uri` without decoding it.

        Returns
        -------
        int
            1 to 2**64 - 1, also for what cannot be decoded; 0 if it cannot be read.
            See `content_hash`.
        """
        ...

    def spooled(self, files: Files) -> Source:
        """Return a source that any process which reaches `files` can use.

        Parameters
        ----------
        files : Files
            Where pixels may be written if they live in this process alone.
        """
        ...


@dataclass(frozen=True, slots=True)
class FileSource:
    """Image files on a file system; the uri is an absolute path."""

    def load(self, uri: str) -> Loaded:
        """Read the file at `uri` once, hash its bytes and decode them."""
        content = 0
        try:
            data = read_bytes(uri)
            content = content_hash(data)
            return Loaded(decode(io.BytesIO(data)), content)
        except SourceError as error:
            return Loaded(error, content)

    def read(self, uri: str) -> Image.Image:
        """Decode the file at `uri`. Raises `SourceError` if it cannot be decoded."""
        return self.load(uri).unwrap()

    def content(self, uri: str) -> int:
        """Return the hash of the file's bytes; 0 if they cannot be read."""
        try:
            with io.FileIO(uri) as file:
                # Piece by piece: many large files may be hashed at a time.
                return _as_number(hashlib.file_digest(file, _hasher))
        except (OSError, ValueError):  # ValueError: a path with a null character
            return 0

    def spooled(self, files: Files) -> FileSource:  # noqa: ARG002 - part of Source
        """Return itself: files are already there for every process."""
        return self


def content_hash(*parts: bytes | memoryview) -> int:
    """Hash what an image is made of.

    Parameters
    ----------
    *parts : bytes-like
        Hashed one after the other, as if they were one.

    Returns
    -------
    int
        BLAKE2b of 8 bytes as a big-endian number; 1 if that is 0, which means "none".

    References
    ----------
    RFC 7693, The BLAKE2 Cryptographic Hash and Message Authentication Code, 2015.

    Examples
    --------
    >>> content_hash(b"pixels") == content_hash(b"pix", b"els") != content_hash(b"")
    True
    """
    digest = _hasher()
    for part in parts:
        digest.update(part)
    return _as_number(digest)


def restored(uris: Sequence[str]) -> Source | None:
    """Return what can read the images that a store remembers by their uris.

    Parameters
    ----------
    uris : sequence of str
        As in the ``uri`` column of `ImageSet.table`.

    Returns
    -------
    Source or None
        A `FileSource` if all are absolute paths; None for the rows of an array, whose
        pixels were in memory and are gone.

    Examples
    --------
    >>> restored(["array:0", "array:1"]) is None
    True
    """
    return FileSource() if all(PurePath(uri).is_absolute() for uri in uris) else None


def _hasher() -> Any:
    """Return a new BLAKE2b hash object of `HASH_BYTES`."""
    return hashlib.blake2b(digest_size=HASH_BYTES)


def _as_number(digest: Any) -> int:
    """Return the number that a hash object comes to; never 0."""
    return int.from_bytes(digest.digest(), "big") or 1
