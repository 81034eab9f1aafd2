"""Images at URLs: objects of object stores and files of web servers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from PIL import Image

from embedkit.errors import InputError, SourceError
from embedkit.files.files import cloud
from embedkit.files.reasons import said
from embedkit.images.source import EncodedSource

if TYPE_CHECKING:
    from types import ModuleType

_PIXEL_BYTES: Final = 8
"""Bytes of a pixel of the largest kind that is decoded: four channels of 16 bits."""


@dataclass(frozen=True, slots=True)
class UrlSource(EncodedSource):
    """Images at URLs; the uri is the URL of one image.

    ``s3://``, ``gs://`` and ``az://`` take credentials, endpoint and region from the
    environment of the process that reads. ``memory://`` is seen by the process alone that
    wrote it, so that workers in other processes find nothing there. What stands in a URL,
    the signature of a signed one too, is stored with the images.
    """

    def fetch(self, uri: str) -> bytes:
        """Return the bytes at a URL.

        Parameters
        ----------
        uri : str
            As in `embedkit.files.places.place_of`.

        Returns
        -------
        bytes
            At most 8 for each of ``PIL.Image.MAX_IMAGE_PIXELS``; what is larger is not
            downloaded, since no image of so many pixels would be decoded.

        Raises
        ------
        SourceError
            With the reason in one line. See `embedkit.files.objects.read_object` for
            servers that are away.
        """
        try:
            return bytes(objects(uri).read_object(uri, limit=_limit()))
        except FileNotFoundError as error:
            raise SourceError("there is no such file at this URL") from error
        except PermissionError as error:
            raise SourceError(f"it may not be read: {said(error)}") from error
        except (OSError, InputError, MemoryError) as error:
            raise SourceError(said(error) or "not enough memory for it") from error


def objects(url: str) -> ModuleType:
    """Return `embedkit.files.objects`.

    Raises
    ------
    MissingDependencyError
        Where obstore is not installed.
    """
    with cloud(url):
        # here, because obstore is an extra that local files do not need
        from embedkit.files import objects as found
    return found


def _limit() -> float:
    """Return how many bytes an image may have."""
    pixels = Image.MAX_IMAGE_PIXELS
    return float("inf") if pixels is None else _PIXEL_BYTES * pixels
