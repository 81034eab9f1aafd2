"""Images that are rows of an array in memory, or of one that is computed when asked."""

from __future__ import annotations

import itertools
import uuid
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from embedkit.errors import SourceError
from embedkit.files.files import Files
from embedkit.images.held import HELD
from embedkit.images.pixels import PixelSource
from embedkit.images.spooled_arrays import SpooledArraySource, array_row, spool

PART_BYTES: Final = 32 * 2**20
"""Pixels are spooled in parts of at most so many bytes, or of one chunk if that is larger
(chosen: little beside what a worker needs, and few files)."""


@dataclass(frozen=True, slots=True, eq=False)
class ArraySource(PixelSource):
    """Rows of an array in this process; the uri of row 3 is ``array:3``.

    Attributes
    ----------
    pixels : (N, H, W, 3) array of uint8
        A NumPy array, or anything whose slices become one: of Dask, xarray, h5py or
        Zarr. Held, not copied: do not change it while it is in use.
    starts : tuple of int
        The row at which each of its chunks begins, from 0. A chunk is computed or read
        as a whole and held. Empty: rows are taken one by one.
    """

    pixels: Any
    starts: tuple[int, ...] = ()
    _token: str = field(
        default_factory=lambda: uuid.uuid4().hex, init=False, repr=False
    )
    _spools: dict[str, SpooledArraySource] = field(
        default_factory=dict, init=False, repr=False
    )

    def row(self, uri: str) -> npt.NDArray[np.uint8]:
        """Return row `uri` of the array, or raise `SourceError` with the reason."""
        n = int(self.pixels.shape[0])
        row = array_row(uri, n)
        if not self.starts:
            return np.ascontiguousarray(_block(self.pixels, row, row + 1)[0])
        chunk = bisect_right(self.starts, row) - 1
        start, stop = (*self.starts, n)[chunk : chunk + 2]
        block = HELD.get((self._token, chunk), lambda: _block(self.pixels, start, stop))
        return np.ascontiguousarray(block[row - start])  # H W C

    def spooled(self, files: Files) -> SpooledArraySource:
        """Write the pixels into `files`, once, and return a source that maps them.

        Part after part is computed and written: all of it is never in memory.

        Raises
        ------
        SourceError
            If a part cannot be computed.
        """
        known = self._spools.get(files.url)
        if known is None or not files.exists(known.name):
            known = self._spools[files.url] = spool(self._parts(), files)
        return known

    def _parts(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield all pixels in order, whole chunks at a time."""
        n, *image = self.pixels.shape
        rows = max(1, PART_BYTES // int(np.prod(image)))
        starts = part_starts(self.starts or range(n), n, rows=rows)
        for start, stop in itertools.pairwise([*starts, n]):
            yield _block(self.pixels, start, stop)


def chunk_starts(array: Any) -> tuple[int, ...]:
    """Return the rows at which the chunks of an array begin; none where it has none.

    Parameters
    ----------
    array : array
        Of NumPy, Dask, xarray, h5py or Zarr.

    Examples
    --------
    >>> import dask.array as da
    >>> chunk_starts(da.zeros((7, 2), chunks=(3, 2)))
    (0, 3, 6)
    >>> chunk_starts(np.zeros(7))
    ()
    """
    n = int(array.shape[0])
    chunks = getattr(array, "chunks", None)
    if chunks is None and hasattr(array, "encoding"):  # of xarray, from a file
        preferred = array.encoding.get("preferred_chunks") or {}
        chunks = [preferred.get(array.dims[0])]
    first: Any = chunks[0] if chunks else None
    if first is None:
        return ()
    sizes = first if isinstance(first, tuple) else [first] * -(-n // first)
    starts = tuple(sorted({0, *itertools.accumulate(sizes)} - {n}))
    starts = tuple(start for start in starts if start < n)
    return starts if len(starts) < n else ()


def part_starts(starts: Sequence[int], n: int, *, rows: int) -> list[int]:
    """Return where parts of whole chunks begin, each of at most `rows` rows if it can.

    Examples
    --------
    >>> part_starts((0, 3, 6, 9), 10, rows=6)
    [0, 6]
    >>> part_starts((0, 8), 10, rows=6)
    [0, 8]
    """
    kept = [0]
    for start, after in itertools.pairwise([*starts, n]):
        if after - kept[-1] > rows and start > kept[-1]:
            kept.append(start)
    return kept


def _block(pixels: Any, start: int, stop: int) -> npt.NDArray[np.uint8]:
    """Return some rows of an array, computed if need be."""
    try:
        block = np.asarray(pixels[start:stop])
    except Exception as error:  # what computes an array may raise anything
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise SourceError(
            f"rows {start} to {stop - 1} of the array cannot be computed ({said})"
        ) from error
    expected = (stop - start, *pixels.shape[1:])
    if block.dtype != np.uint8 or block.shape != expected:
        raise SourceError(
            f"rows {start} to {stop - 1} of the array are {block.dtype} of shape "
            f"{block.shape}, but it promised uint8 of shape {expected}"
        )
    return block
