"""A look at a few images of many: pixel sizes, small pictures, and what is unreadable."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from PIL import Image

from embedkit.errors import SourceError
from embedkit.images.decode import decode, jpeg_size
from embedkit.images.source import EncodedSource, Source

if TYPE_CHECKING:
    from embedkit.images.imageset import ImageSet

SIDE: Final = 96
"""Pixels of the longer side of a thumbnail (chosen: a dozen fit beside each other)."""

_THREADS: Final = 8
"""Readers (chosen: enough to hide the waiting of a shared disk or an object store)."""

_LARGEST: Final = 50_000_000
"""Bytes of a file that is not read for a look (chosen: a tenth of a second of disk)."""

_TINY: Final = 48
"""Longer side, in pixels, below which a picture is enlarged to be seen at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one look at an image gave.

    Parameters
    ----------
    row : int
        Its row in the set.
    size : tuple of int, optional
        Width and height in pixels, upright; None where there are none.
    thumbnail : bytes
        A file of the kind `kind`, longer side about `SIDE` pixels; empty without one.
    kind : {"jpeg", "png"}
        What `thumbnail` is.
    problem : str
        Why there is none; empty where there is.
    late : bool
        Whether it was left out because it takes too long, readable or not.
    """

    row: int
    size: tuple[int, int] | None = None
    thumbnail: bytes = b""
    kind: Literal["jpeg", "png"] = "jpeg"
    problem: str = ""
    late: bool = False


def spread_rows(n: int, *, most: int) -> list[int]:
    """Return rows at even distances, the first and the last among them.

    Parameters
    ----------
    n : int
        How many rows there are, at least one.
    most : int
        How many to choose at most, at least two.

    Examples
    --------
    >>> spread_rows(1001, most=5)
    [0, 250, 500, 750, 1000]
    >>> spread_rows(3, most=5)
    [0, 1, 2]
    """
    return [int(row) for row in np.linspace(0, n - 1, min(n, most)).round()]


def look_at(images: ImageSet, rows: Sequence[int], *, seconds: float) -> list[Seen]:
    """Look at some images, with threads, for a limited time. Nothing is raised.

    Parameters
    ----------
    images : ImageSet
        The set.
    rows : sequence of int
        Which, the more important ones first.
    seconds : float
        When the look ends. A reader that hangs is left to itself then.

    Returns
    -------
    list of Seen
        One per row, in the order of `rows`.
    """
    uris = images.table["uri"].iloc[list(rows)].tolist()
    sizes = images.sizes[list(rows)].tolist()
    pool = ThreadPoolExecutor(_THREADS, "embedkit-look")
    try:
        futures = [
            pool.submit(_look, images.source, uri, row=row, nbytes=nbytes)
            for row, uri, nbytes in zip(rows, uris, sizes, strict=True)
        ]
        wait(futures, timeout=seconds)
        return [
            _result(each, row, seconds) for row, each in zip(rows, futures, strict=True)
        ]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _result(future: Future[Seen], row: int, seconds: float) -> Seen:
    """Return what a look gave, whatever came of it."""
    if not future.done():
        return Seen(row=row, problem=f"not read within {seconds:g} s", late=True)
    error = future.exception()
    if error is None:
        return future.result()
    said = " ".join(str(error).split())
    named = (
        said if isinstance(error, SourceError) else f"{type(error).__name__}: {said}"
    )
    return Seen(row=row, problem=named)


def _look(source: Source, uri: str, *, row: int, nbytes: int) -> Seen:
    """Read one image and make its thumbnail."""
    if nbytes > _LARGEST and isinstance(source, EncodedSource):
        return Seen(
            row=row, problem=f"not looked at: {nbytes / 1e6:,.0f} MB", late=True
        )
    if isinstance(source, EncodedSource):
        data = source.fetch(uri)
        image = decode(io.BytesIO(data), at_least=SIDE)
        size = jpeg_size(io.BytesIO(data)) or image.size
    else:
        image = source.read(uri)
        size = image.size
    kind: Literal["jpeg", "png"] = "png" if max(size) <= SIDE else "jpeg"
    return Seen(row=row, size=size, thumbnail=_thumbnail(image, kind), kind=kind)


def _thumbnail(image: Image.Image, kind: Literal["jpeg", "png"]) -> bytes:
    """Return a small picture as a file."""
    longer = max(image.size)
    if longer < _TINY:
        times = SIDE // longer
        small = image.resize((image.width * times, image.height * times), 0)
    else:
        small = image.copy()
        small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, kind, quality=80)
    return buffer.getvalue()
