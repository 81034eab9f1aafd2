"""Where pixels come from: small objects that read one image by its uri."""

from __future__ import annotations

import abc
import hashlib
import io
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self

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


class EncodedSource(abc.ABC):
    """Images that lie somewhere as the bytes of an image file.

    A kind of place is a frozen dataclass that says how the bytes at a uri are fetched.
    """

    __slots__ = ()

    @abc.abstractmethod
    def fetch(self, uri: str) -> bytes:
        """Return the bytes at `uri`, or raise `SourceError` with the reason."""

    def load(self, uri: str) -> Loaded:
        """Fetch the bytes at `uri` once, hash and decode them."""
        content = 0
        try:
            data = self.fetch(uri)
            content = content_hash(data)
            return Loaded(self.decoded(data), content)
        except SourceError as error:
            # Without a hash the image is looked at again: memory may be there then.
            passing = isinstance(error.__cause__, MemoryError)
            return Loaded(error, 0 if passing else content)

    def decoded(self, data: bytes) -> Image.Image:
        """Return the image in the bytes of a file, or raise `SourceError`."""
        return decode(io.BytesIO(data))

    def read(self, uri: str) -> Image.Image:
        """Decode the image at `uri`. Raises `SourceError` if it cannot be decoded."""
        return self.load(uri).unwrap()

    def content(self, uri: str) -> int:
        """Return the hash of the bytes at `uri`; 0 if they cannot be read."""
        try:
            return content_hash(self.fetch(uri))
        except SourceError:
            return 0

    def spooled(self, files: Files) -> Self:  # noqa: ARG002 - part of Source
        """Return itself: what it reads is already there for every process."""
        return self


@dataclass(frozen=True, slots=True)
class FileSource(EncodedSource):
    """Image files on a file system; the uri is an absolute path."""

    def fetch(self, uri: str) -> bytes:
        """Return the bytes of the file at `uri`. Raises `SourceError`."""
        return read_bytes(uri)

    def content(self, uri: str) -> int:
        """Return the hash of the file's bytes; 0 if they cannot be read."""
        try:
            with io.FileIO(uri) as file:
                # Piece by piece: many large files may be hashed at a time.
                return _as_number(hashlib.file_digest(file, _hasher))
        except (OSError, ValueError):  # ValueError: a path with a null character
            return 0


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


def _hasher() -> Any:
    """Return a new BLAKE2b hash object of `HASH_BYTES`."""
    return hashlib.blake2b(digest_size=HASH_BYTES)


def _as_number(digest: Any) -> int:
    """Return the number that a hash object comes to; never 0."""
    return int.from_bytes(digest.digest(), "big") or 1
