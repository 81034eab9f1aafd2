"""`ImageSet`: a table of images, in a fixed order, and the source of their pixels."""

from __future__ import annotations

import operator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, SupportsIndex

import numpy as np
import numpy.typing as npt
import pandas as pd

from embedkit.errors import InputError, SourceError, did_you_mean
from embedkit.images.html import as_html
from embedkit.images.source import Source

__all__ = ["ImageSet", "Source"]

_HASHERS: Final = 8
"""Threads that hash files (chosen: enough to hide the waiting of a shared disk)."""

_HASHED_AT_ONCE: Final = 16
"""Files per errand of such a thread (chosen: a million images are 60,000 errands)."""

_NEAR_IDS: Final = 10_000
"""How many ids are compared with one that is not there (chosen: well under a second)."""


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Images by stable id, in a fixed order. Nothing is decoded until it is read.

    Attributes
    ----------
    table : DataFrame
        One row per image. The index, named ``image``, holds unique ids (str); column
        ``uri`` (str) stands first, then ``label`` and ``split`` if known, then the rest.
    source : Source
        Reads the pixels behind one uri.
    sizes : (N,) array of int64
        Bytes of each file, -1 where unknown; for arrays, bytes of the pixels.
    mtimes : (N,) array of int64, optional
        When each file was last modified, nanoseconds since 1970-01-01 UTC; -1 where
        unknown, as for arrays and missing files, and for all if left out.

    Raises
    ------
    InputError
        If there is no image, an id is not text or occurs twice, or parts disagree.

    Examples
    --------
    >>> import numpy as np
    >>> from embedkit.images.open import open_images
    >>> images = open_images(np.zeros((3, 20, 50, 3), np.uint8))
    >>> images
    3 images · 9 kB
    >>> images[1:].table["uri"].to_dict()
    {'0001': 'array:1', '0002': 'array:2'}
    """

    table: pd.DataFrame
    source: Source
    sizes: npt.NDArray[np.int64]
    # None stands for "all unknown" among the arguments only, never in the attribute.
    mtimes: npt.NDArray[np.int64] = field(default=None)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        _check_table(self.table)
        _check_ids(self.table.index)
        given: Any = self.mtimes
        if given is None:
            unknown = np.full(len(self.table), -1, np.int64)
            object.__setattr__(self, "mtimes", unknown)
        _check_length("sizes", self.sizes, len(self.table))
        _check_length("mtimes", self.mtimes, len(self.table))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, rows: slice | npt.ArrayLike) -> ImageSet:
        """Return the images at `rows`: a slice, row numbers, or a boolean mask."""
        chosen = rows if isinstance(rows, slice) else _row_numbers(rows, len(self))
        table, sizes, mtimes = self.table.iloc, self.sizes, self.mtimes
        return ImageSet(table[chosen], self.source, sizes[chosen], mtimes[chosen])

    def __repr__(self) -> str:
        parts = [_count(len(self), "image")]
        if "label" in self.table:
            parts.append(_count(self.table["label"].nunique(), "label"))
        known = self.sizes[self.sizes >= 0]
        if len(known):
            parts.append(_in_bytes(int(known.sum())))
        if "split" in self.table:
            counts = self.table["split"].value_counts().head(6).items()
            parts.append("split: " + ", ".join(f"{n} {name}" for name, n in counts))
        return " · ".join(parts)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: see `embedkit.images.html.as_html`."""
        return as_html(self)

    def read(self, i: int | str) -> npt.NDArray[np.uint8]:
        """Decode one image.

        Parameters
        ----------
        i : int or str
            Row number (negative ones count from the end) or id.

        Returns
        -------
        (H, W, 3) array of uint8
            Its RGB pixels, upright.

        Raises
        ------
        InputError
            If there is no such image.
        SourceError
            If it cannot be decoded.
        """
        row = self._row(i)
        try:
            image = self.source.read(self.table["uri"].iloc[row])
        except SourceError as error:
            name = self.table.index[row]
            raise SourceError(f"image {name!r} cannot be read: {error}") from error
        return np.array(image)  # H W C

    def contents(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """Hash what some images are made of, without decoding them.

        Parameters
        ----------
        rows : (n,) array of int64
            Row numbers (negative ones count from the end), in any order.

        Returns
        -------
        (n,) array of uint64
            `Source.content` of each: equal where the bytes of two files are equal,
            wherever they lie; 0 where they cannot be read.

        Raises
        ------
        InputError
            If there is no such row.
        """
        chosen = self.table["uri"].iloc[_row_numbers(rows, len(self))].tolist()
        starts = range(0, len(chosen), _HASHED_AT_ONCE)
        errands = [chosen[start : start + _HASHED_AT_ONCE] for start in starts]
        # Threads are enough: hashing and reading both let go of the interpreter.
        with ThreadPoolExecutor(_HASHERS, "embedkit-hash") as pool:
            found = pool.map(lambda uris: [*map(self.source.content, uris)], errands)
            return np.array([hash_ for part in found for hash_ in part], np.uint64)

    def _row(self, i: SupportsIndex | str) -> int:
        """Return the row number of an image given by number or id."""
        if isinstance(i, str):
            return self._row_of_id(i)
        row = operator.index(i)
        if not -len(self) <= row < len(self):
            raise InputError(f"there is no image {row}: rows are 0 to {len(self) - 1}")
        return row

    def _row_of_id(self, name: str) -> int:
        """Return the row number of an id."""
        if name not in self.table.index:
            near = did_you_mean(name, self.table.index[:_NEAR_IDS])
            raise InputError(f"there is no image {name!r}. {near}")
        return int(self.table.index.get_indexer_for(pd.Index([name]))[0])


def _check_table(table: pd.DataFrame) -> None:
    """Refuse tables that are empty or not laid out as promised."""
    if not len(table):
        raise InputError("a set of images needs at least one image, found none")
    if table.index.name != "image" or [*table.columns][:1] != ["uri"]:
        raise InputError(
            "a table of images has its ids in an index named 'image' and 'uri' as first "
            f"column, found index {table.index.name!r} and columns {[*table.columns]}"
        )


def _check_ids(ids: pd.Index[Any]) -> None:
    """Refuse ids that are not text, and ids that occur more than once."""
    if ids.inferred_type != "string" or ids.hasnans:
        raise InputError(
            f"image ids must be text, found {ids.inferred_type} values; "
            "turn them into str"
        )
    twice = ids[ids.duplicated()].unique()
    if len(twice):
        named = ", ".join(repr(each) for each in twice[:5])
        raise InputError(
            f"{_count(len(twice), 'image id')} given to more than one image: {named}"
            f"{', …' if len(twice) > 5 else ''}; drop the repeated rows, "
            "or name a column of unique ids with id_column="
        )


def _check_length(name: str, values: npt.NDArray[np.int64], n: int) -> None:
    """Refuse an array that does not hold one value per image."""
    if values.shape != (n,):
        raise InputError(
            f"{n} images need as many {name}, but `{name}` has shape {values.shape}"
        )


def _row_numbers(rows: npt.ArrayLike, n: int) -> npt.NDArray[np.int64]:
    """Return row numbers 0..n-1 from row numbers or a boolean mask."""
    given = np.asarray(rows)
    if given.dtype == bool and given.shape == (n,):
        return np.flatnonzero(given)
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise InputError(
            "images are chosen with a slice, row numbers, or a boolean mask of shape "
            f"({n},), found {given.dtype} of shape {given.shape}; "
            "for the pixels of one image use read()"
        )
    outside = given[(given < -n) | (given >= n)]
    if len(outside):
        raise InputError(f"there is no image {outside[0]}: rows are 0 to {n - 1}")
    return given.astype(np.int64) % n


def _count(n: int, noun: str) -> str:
    """Say how many, with the noun in the right number."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _in_bytes(n: int) -> str:
    """Say a number of bytes in decimal units, to two or three digits."""
    size = float(n)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
