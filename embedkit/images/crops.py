"""Boxes in images: one row per box, cut out after the image is decoded and upright.

The uri of a crop is ``<absolute path or URL>#xywh=<x>,<y>,<width>,<height>`` in pixels,
and ``#xywh=none`` for a box that has no numbers.

References
----------
Troncy, R., Mannens, E., Pfeiffer, S., Van Deursen, D. (2012). Media Fragments URI 1.0
(basic). W3C Recommendation, section 4.2.2, Spatial Dimension.
"""

from __future__ import annotations

import collections
import os
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from embedkit.errors import InputError, SourceError
from embedkit.files.files import Files, is_url
from embedkit.images.imageset import ImageSet
from embedkit.images.source import EncodedSource, FileSource, Loaded, content_hash
from embedkit.images.url_source import UrlSource

BOX_COLUMNS: Final = ("x0", "y0", "x1", "y1")
"""Left, top, right, bottom in pixels; right and bottom are the first ones outside."""

_URI: Final = re.compile(r"(.+)#xywh=(none|(\d+),(\d+),(\d+),(\d+))", re.DOTALL)


_FRESH: Final = 10.0
"""Seconds for which a thread cuts from what it fetched from a URL (chosen: all boxes of
one image, without asking the server for each)."""


class Crop(NamedTuple):
    """A box in an image.

    Attributes
    ----------
    path : str
        The image file, or its URL.
    box : tuple of four int, or None
        Left, top, width and height in pixels; None where the table had no numbers.
    """

    path: str
    box: tuple[int, int, int, int] | None


class _Decoded(threading.local):
    """The image that a thread decoded last; rows of one file lie side by side."""

    key: tuple[str, int, int] | None = None
    loaded: Loaded | None = None


_last = _Decoded()


@dataclass(frozen=True, slots=True)
class CropSource:
    """Boxes in image files; the uri is that of the file with the box behind it."""

    def load(self, uri: str) -> Loaded:
        """Decode the file, unless this thread did so last, and cut out the box."""
        crop = crop_of(uri)
        if crop is None:
            return Loaded(SourceError(f"no box in an image is called {uri!r}"), 0)
        whole = _decoded(crop.path)
        content = _content(whole.content, uri)
        if isinstance(whole.image, SourceError):
            return replace(whole, content=content)
        try:
            return Loaded(_cut(whole.image, crop), content)
        except SourceError as error:
            return Loaded(error, content)

    def read(self, uri: str) -> Image.Image:
        """Return the pixels of the box. Raises `SourceError` if there are none."""
        return self.load(uri).unwrap()

    def content(self, uri: str) -> int:
        """Return the hash of the file's bytes and the box; 0 if there are no bytes."""
        crop = crop_of(uri)
        return (
            0 if crop is None else _content(_whole(crop.path).content(crop.path), uri)
        )

    def spooled(self, files: Files) -> CropSource:  # noqa: ARG002 - part of Source
        """Return itself: files are already there for every process."""
        return self


def crop_of(uri: str) -> Crop | None:
    """Return what a uri says of a crop; None for any other.

    Examples
    --------
    >>> crop_of("/data/a.jpg#xywh=10,20,30,40")
    Crop(path='/data/a.jpg', box=(10, 20, 30, 40))
    >>> crop_of("/data/a.jpg") is None
    True
    """
    found = _URI.fullmatch(uri)
    if found is None:
        return None
    path, text, *numbers = found.groups()
    if text == "none":
        return Crop(path, None)
    x, y, width, height = map(int, numbers)
    return Crop(path, (x, y, width, height))


def has_boxes(columns: Sequence[Any]) -> bool:
    """Tell whether a table has the four columns of a box."""
    return set(BOX_COLUMNS) <= set(columns)


def cropped(images: ImageSet, *, ids: Sequence[str]) -> ImageSet:
    """Return one image per row of a table of files, cut to the box that stands there.

    Parameters
    ----------
    images : ImageSet
        Files, with the columns `BOX_COLUMNS`, in pixels of the upright image. Fractions
        are rounded outwards, and what lies outside of the image is cut off.
    ids : sequence of str
        The id of each row.

    Raises
    ------
    InputError
        If a column of the box does not hold numbers, or an id occurs twice.
    """
    for name in BOX_COLUMNS:
        if not pd.api.types.is_numeric_dtype(images.table[name]):
            raise InputError(
                f"column {name!r} must hold pixels as numbers, found "
                f"{images.table[name].dtype}; turn it into numbers or rename it"
            )
    boxes = images.table[[*BOX_COLUMNS]].to_numpy(np.float64, na_value=np.nan)
    uris = [
        f"{uri}#xywh={_fragment(box)}"
        for uri, box in zip(images.table["uri"], boxes.tolist(), strict=True)
    ]
    table = images.table.assign(uri=uris).set_axis(pd.Index([*ids], name="image"))
    return ImageSet(table, CropSource(), images.sizes, images.mtimes)


def numbered(files: Sequence[str]) -> list[str]:
    """Return ids of boxes from the ids of their files, counted within each file.

    Examples
    --------
    >>> numbered(["a.jpg", "b.jpg", "a.jpg"])
    ['a.jpg#0', 'b.jpg#0', 'a.jpg#1']
    """
    seen: collections.Counter[str] = collections.Counter()
    ids: list[str] = []
    for name in files:
        ids.append(f"{name}#{seen[name]}")
        seen[name] += 1
    return ids


def _fragment(box: Sequence[float]) -> str:
    """Return a box as it stands in a uri, rounded outwards and without negative numbers."""
    if not np.isfinite(box).all():
        return "none"
    left, top = (max(0, int(np.floor(value))) for value in box[:2])
    right, bottom = (int(np.ceil(value)) for value in box[2:])
    # A box turned inside out, or without extent, stays empty however it is rounded.
    full = box[0] < box[2] and box[1] < box[3]
    width, height = max(0, right - left) * full, max(0, bottom - top) * full
    return f"{left},{top},{width},{height}"


def _decoded(path: str) -> Loaded:
    """Return a decoded file, from this thread's memory if it is the same as last time."""
    try:
        key = _version(path)
    except (OSError, ValueError):  # ValueError: a path with a null character
        return _whole(path).load(path)
    if _last.loaded is None or _last.key != key:
        _last.key, _last.loaded = None, None  # before the next: only one is held
        _last.loaded = _whole(path).load(path)
        _last.key = key
    return _last.loaded


def _whole(path: str) -> EncodedSource:
    """Return what reads a whole image."""
    return UrlSource() if is_url(path) else FileSource()


def _version(path: str) -> tuple[str, int, int]:
    """Return what tells a file from what it was; for a URL, only for a few seconds."""
    if is_url(path):
        return (path, int(time.monotonic() / _FRESH), 0)
    status = Path(path).stat()
    return (os.fspath(path), status.st_mtime_ns, status.st_size)


def _cut(image: Image.Image, crop: Crop) -> Image.Image:
    """Return the part of an image within a box."""
    if crop.box is None:
        raise SourceError(
            "the box has no numbers: x0, y0, x1 or y1 is empty or infinite"
        )
    x, y, width, height = crop.box
    right, bottom = min(x + width, image.width), min(y + height, image.height)
    if right <= x or bottom <= y:
        raise SourceError(
            f"the box is empty: from ({x}, {y}), {width} wide and {height} high, it holds "
            f"no pixel of an image of {image.width}x{image.height}"
        )
    return image.crop((x, y, right, bottom))


def _content(of_file: int, uri: str) -> int:
    """Return the hash of a file and of the box in it; 0 if the file has none."""
    fragment = uri.rpartition("#")[2]
    return of_file and content_hash(of_file.to_bytes(8, "big"), fragment.encode())
