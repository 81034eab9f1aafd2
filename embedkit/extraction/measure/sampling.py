"""A few images of a set, in a form that another process can read."""

from __future__ import annotations

import math
from collections import Counter
from contextlib import suppress
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from embedkit.errors import SourceError
from embedkit.images.arrays import ArraySource
from embedkit.images.draft import decoded_by
from embedkit.images.imageset import ImageSet
from embedkit.images.source import Source

_MOST = 32
_NEAR = 4
"""Neighbors that are taken together: where a file holds many images, a run reads each part
of it for more than one of them."""


def sample_of(images: ImageSet, *, decode: str) -> tuple[Source, tuple[str, ...]]:
    """Return a source and some 32 images of it, spread over the set.

    Parameters
    ----------
    images : ImageSet
        Of which an array in memory is not sent whole, but these rows of it.
    decode : str
        Name of the rule by which images are decoded.
    """
    rows = _spread(len(images))
    if isinstance(images.source, ArraySource):
        pixels = _rows_of(images, images.source, rows)
        return ArraySource(pixels), tuple(f"array:{row}" for row in range(len(pixels)))
    uris = images.table["uri"].iloc[rows]
    return decoded_by(images.source, decode), tuple(map(str, uris))


def kind_of(images: ImageSet) -> dict[str, str | int]:
    """Return what images have in common that decide how long they take to decode.

    Returns
    -------
    dict
        The kind of ``source``, the commonest ``format`` by its suffix, and the median
        ``size`` of a file in powers of two, -1 where that is not known.
    """
    uris = images.table["uri"].iloc[_spread(len(images))]
    suffixes = Counter(PurePosixPath(urlsplit(str(each)).path).suffix for each in uris)
    known = images.sizes[images.sizes > 0]
    size = int(math.log2(float(np.median(known)))) if len(known) else -1
    return {
        "source": type(images.source).__name__,
        "format": suffixes.most_common(1)[0][0].lower(),
        "size": size,
    }


def _spread(n: int) -> list[int]:
    """Return some row numbers: groups of neighbors, from the first row to the last."""
    if n <= _MOST:
        return list(range(n))
    starts = np.linspace(0, n - _NEAR, _MOST // _NEAR).astype(int)
    return sorted({int(start) + at for start in starts for at in range(_NEAR)})


def _rows_of(
    images: ImageSet, source: ArraySource, rows: list[int]
) -> npt.NDArray[np.uint8]:
    """Return those of some rows that can be computed; a black one where none can."""
    found = []
    for row in rows:
        with suppress(SourceError):
            found.append(images.read(row))
    return np.stack(found or [np.zeros(source.pixels.shape[1:], np.uint8)])
