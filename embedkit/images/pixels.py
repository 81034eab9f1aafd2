"""Images that lie somewhere as pixels, with no file format around them."""

from __future__ import annotations

import abc

import numpy as np
import numpy.typing as npt
from PIL import Image

from embedkit.errors import SourceError
from embedkit.files.files import Files
from embedkit.images.source import Loaded, Source, content_hash


class PixelSource(abc.ABC):
    """Images of which every one is an array.

    A kind of place is a frozen dataclass that says how the pixels at a uri are fetched.
    The same pixels have the same content hash wherever they lie.
    """

    __slots__ = ()

    @abc.abstractmethod
    def row(self, uri: str) -> npt.NDArray[np.uint8]:
        """Return the pixels at `uri`, or raise `SourceError` with the reason.

        Returns
        -------
        (H, W, 3) array of uint8
            Contiguous in memory.
        """

    def load(self, uri: str) -> Loaded:
        """Return the pixels at `uri` and their hash, or why there are none."""
        try:
            pixels = self.row(uri)
        except SourceError as error:
            return Loaded(error, 0)
        return Loaded(Image.fromarray(pixels), pixels_hash(pixels))

    def read(self, uri: str) -> Image.Image:
        """Return the pixels at `uri`. Raises `SourceError` if there are none."""
        return self.load(uri).unwrap()

    def content(self, uri: str) -> int:
        """Return the hash of shape and pixels; 0 if there are none."""
        try:
            return pixels_hash(self.row(uri))
        except SourceError:
            return 0

    def spooled(self, files: Files) -> Source:  # noqa: ARG002 - part of Source
        """Return itself: what it reads is already there for every process."""
        return self


def pixels_hash(pixels: npt.NDArray[np.uint8]) -> int:
    """Return the content hash of an image's shape and pixels.

    Parameters
    ----------
    pixels : (H, W, 3) array of uint8
        Contiguous in memory.
    """
    return content_hash(str(pixels.shape).encode(), pixels.data)
