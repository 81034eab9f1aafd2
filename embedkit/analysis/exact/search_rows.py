"""The rows of a search: which can be used, and all of them scaled, shifted, in float32."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from embedkit.analysis.exact.score_bounds import Kind, extended, sizes
from embedkit.analysis.pair_distances import Metric, lift
from embedkit.analysis.rows import usable_rows
from embedkit.analysis.spool import Spool, unseen

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Float64s: TypeAlias = npt.NDArray[np.float64]
Ids: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

_BLOCK = 2**21  # float64 entries converted together: 16 MiB
_parsing = (
    threading.Lock()
)  # threads of CPython 3.11 that parse disturb each other (106905)


@dataclass(frozen=True, slots=True)
class Side:
    """The rows that are searched for, or among, and what of them is in files.

    Their *places* number the rows that are kept: usable, not one of a crowd of copies,
    and under cosine not zero.

    Parameters
    ----------
    spool : Spool
        All rows.
    folder : str
        Where the files of this search are.
    name : str
        Of this side among them.
    size : int
        Rows that are kept.
    metric : {"euclidean", "cosine", "inner_product"}
        Of the search.
    exponent : int
        Rows are scaled by two to this power.
    """

    spool: Spool
    folder: str
    name: str
    size: int
    metric: Metric
    exponent: int

    @property
    def path(self) -> Path:
        """File of the float32 rows, extended, shape (size, F + 2)."""
        return Path(self.folder) / f"{self.name}.f4"

    def ids(self, start: int, stop: int) -> Ids:
        """Return the row numbers of the places `start` to `stop`."""
        kept = loaded(Path(self.folder) / f"{self.name}-kept.npy", mapped=True)
        return np.array(kept[start:stop])

    def ids_of(self, places: Ids) -> Ids:
        """Return the row numbers of some places."""
        kept = loaded(Path(self.folder) / f"{self.name}-kept.npy", mapped=True)
        return np.array(kept[places])

    def tile(self, start: int, stop: int, kind: Kind = "f4") -> Floats:
        """Return the extended rows of the places `start` to `stop`, the right ones."""
        if kind == "f8":
            return self.made(self.ids(start, stop))
        width = self.spool.shape[1] + 2
        try:
            flat = np.fromfile(
                self.path,
                np.float32,
                count=(stop - start) * width,
                offset=start * width * 4,
            )
        except FileNotFoundError as error:
            raise unseen(self.path) from error
        return flat.reshape(stop - start, width)

    def sizes(self, start: int, stop: int) -> Float64s:
        """Return the sizes of the places `start` to `stop`; see `score_bounds.sizes`."""
        return np.array(self._sizes(mapped=True)[start:stop])

    def sizes_of(self, places: Ids) -> Float64s:
        """Return the sizes of some places."""
        return np.array(self._sizes(mapped=True)[places])

    def all_sizes(self) -> Float64s:
        """Return the sizes of all places, shape (size,)."""
        return self._sizes()

    def _sizes(self, *, mapped: bool = False) -> Float64s:
        path = Path(self.folder) / f"{self.name}-sizes.npy"
        return np.asarray(loaded(path, mapped=mapped))

    def shifted(self, ids: Ids) -> Float64s:
        """Lift, scale and shift rows in float64."""
        rows = lift(self.spool.take(ids), self.metric)
        np.ldexp(rows, self.exponent, out=rows)
        rows -= loaded(Path(self.folder) / "center.npy")
        return rows

    def made(self, ids: Ids) -> Float64s:
        """Return extended rows in float64, the right ones, a block at a time."""
        out = np.empty((len(ids), self.spool.shape[1] + 2))
        for first, last in _blocks(0, len(ids), self.spool.shape[1]):
            rows = self.shifted(ids[first:last])
            out[first:last] = extended(rows, self.metric, "f8")
        return out


def prepare(side: Side, start: int, stop: int) -> Float64s:
    """Write the float32 rows of the places `start` to `stop`, a task.

    Parameters
    ----------
    side : Side
        Its file is there, of the right size.
    start, stop : int
        Places.

    Returns
    -------
    ndarray of float64, shape (stop - start,)
        Their sizes; see `score_bounds.sizes`.
    """
    found = np.empty(stop - start)
    try:
        with side.path.open("r+b") as file:
            file.seek(start * (side.spool.shape[1] + 2) * 4)
            for first, last in _blocks(start, stop, side.spool.shape[1]):
                rows = side.shifted(side.ids(first, last))
                found[first - start : last - start] = sizes(rows, side.metric)
                file.write(extended(rows, side.metric, "f4").data)
    except FileNotFoundError as error:
        raise unseen(side.path) from error
    return found


def _blocks(start: int, stop: int, features: int) -> Iterator[tuple[int, int]]:
    height = max(1, _BLOCK // max(1, features))
    for first in range(start, stop, height):
        yield first, min(first + height, stop)


@dataclass(frozen=True, slots=True)
class Survey:
    """What is to be known of rows before they are prepared, one entry a row.

    Parameters
    ----------
    usable, zero : ndarray of bool, shape (M,)
        All entries finite; all of them zero.
    prints : ndarray of uint64, shape (M,)
        Equal for equal rows, and hardly ever for others.
    peak : float
        Largest magnitude of an entry of a usable row.
    longest : int
        Which of the M rows has it.
    """

    usable: Bools
    zero: Bools
    prints: npt.NDArray[np.uint64]
    peak: float
    longest: int


def survey(spool: Spool, start: int, stop: int) -> Survey:
    """Look at the rows `start` to `stop`, a task.

    Parameters
    ----------
    spool : Spool
        All rows.
    start, stop : int
        Row numbers.

    Returns
    -------
    Survey
    """
    blocks = _blocks(start, stop, spool.shape[1])
    return joined([_surveyed(spool.block(first, last)) for first, last in blocks])


def joined(parts: list[Survey]) -> Survey:
    """Put surveys of successive rows together, in this order."""
    starts = np.cumsum([0, *(len(part.usable) for part in parts)])
    best = int(np.argmax([part.peak for part in parts]))
    return Survey(
        usable=np.concatenate([part.usable for part in parts]),
        zero=np.concatenate([part.zero for part in parts]),
        prints=np.concatenate([part.prints for part in parts]),
        peak=parts[best].peak,
        longest=int(starts[best]) + parts[best].longest,
    )


def _surveyed(rows: Floats) -> Survey:
    usable = usable_rows(rows)
    finite = rows if usable.all() else np.where(usable[:, None], rows, 0)
    lifted = lift(finite, "euclidean")
    peaks = np.abs(lifted).max(axis=1, initial=0)  # (M,)
    longest = int(peaks.argmax())
    zero = usable & (peaks == 0)
    return Survey(usable, zero, _fingerprints(lifted), float(peaks[longest]), longest)


def _fingerprints(lifted: Float64s) -> npt.NDArray[np.uint64]:
    """Mix the bits of each row into a number."""
    weights = np.random.default_rng(0).integers(
        2**64, size=lifted.shape[1], dtype=np.uint64
    )
    bits = (lifted + 0.0).view(np.uint64)  # -0 becomes 0, to which it is equal
    return np.asarray(((bits ^ (bits >> np.uint64(32))) * weights).sum(axis=1))


def crowds(
    spool: Spool, rows: Ids, prints: npt.NDArray[np.uint64], *, most: int
) -> tuple[Ids, Ids]:
    """Find copies of rows that stand `most` times or more before them.

    Nobody needs more than `k` equal rows other than itself: whatever the distance, those
    of lower number come first. Left in, a few thousand black frames would be candidates of
    each other, where no product can tell them apart.

    Parameters
    ----------
    spool : Spool
        All rows.
    rows : ndarray of int64, shape (R,)
        The rows to look at, ascending.
    prints : ndarray of uint64, shape (R,)
        Their fingerprints.
    most : int
        Copies to keep of each row.

    Returns
    -------
    dropped : ndarray of int64, shape (D,)
        Row numbers, in no order.
    first : ndarray of int64, shape (D,)
        For each the first row that is equal to it, which is kept.
    """
    order = np.argsort(prints, kind="stable")
    cuts = np.flatnonzero(np.diff(prints[order])) + 1
    edges = np.concatenate([[0], cuts, [len(rows)]])
    dropped: list[Ids] = []
    first: list[Ids] = []
    for crowd in np.flatnonzero(np.diff(edges) > most):
        members = rows[order[edges[crowd] : edges[crowd + 1]]]  # ascending
        pattern = spool.take(members[:1])
        equal = [(block == pattern).all(axis=1) for block in _taken(spool, members)]
        copies = members[np.concatenate(equal)][most:]
        dropped.append(copies)
        first.append(np.full(len(copies), members[0]))
    none = np.empty(0, np.int64)
    return np.concatenate([none, *dropped]), np.concatenate([none, *first])


def _taken(spool: Spool, ids: Ids) -> Iterator[Floats]:
    height = max(1, _BLOCK // max(1, spool.shape[1]))
    for start in range(0, len(ids), height):
        yield spool.take(ids[start : start + height])


def loaded(path: Path, *, mapped: bool = False) -> npt.NDArray[Any]:
    """Read an array that the run has saved.

    Raises
    ------
    InputError
        When this process cannot see it.
    """
    try:
        with path.open("rb") as file:
            with _parsing:
                np.lib.format.read_magic(file)
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            size = int(np.prod(shape))
            if mapped and size:
                return np.memmap(path, dtype, "r", offset=file.tell(), shape=shape)
            found = np.fromfile(file, dtype, count=size)
    except FileNotFoundError as error:
        raise unseen(path) from error
    return found.reshape(shape)
