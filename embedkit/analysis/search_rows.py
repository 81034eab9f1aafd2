"""The rows of a search: which can be used, and all of them scaled, shifted, in float32."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from embedkit.analysis.pair_distances import Metric, lift
from embedkit.analysis.rows import usable_rows
from embedkit.analysis.score_bounds import Kind, extended, squares
from embedkit.analysis.spool import Spool, unseen

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Float64s: TypeAlias = npt.NDArray[np.float64]
Ids: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

_BLOCK = 2**21  # float64 entries converted together: 16 MiB


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
            return self.made(self.ids(start, stop), "f8")
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

    def made(self, ids: Ids, kind: Kind) -> Floats:
        """Lift, scale and shift rows in float64, and extend them in `kind`."""
        rows = lift(self.spool.take(ids), self.metric)
        np.ldexp(rows, self.exponent, out=rows)
        rows -= loaded(Path(self.folder) / "center.npy")
        return extended(rows, self.metric, kind)


def prepare(side: Side, start: int, stop: int) -> float:
    """Write the float32 rows of the places `start` to `stop`, a task.

    Parameters
    ----------
    side : Side
        Its file is there, of the right size.
    start, stop : int
        Places.

    Returns
    -------
    float
        Largest squared length among them.
    """
    reach = 0.0
    height = max(1, _BLOCK // side.spool.shape[1])
    try:
        with side.path.open("r+b") as file:
            file.seek(start * (side.spool.shape[1] + 2) * 4)
            for first in range(start, stop, height):
                rows = side.made(side.ids(first, min(first + height, stop)), "f4")
                file.write(rows.data)
                reach = max(reach, float(squares(rows[:, :-2]).max()))
    except FileNotFoundError as error:
        raise unseen(side.path) from error
    return reach


@dataclass(frozen=True, slots=True)
class Survey:
    """What is to be known of rows before they are prepared, one entry a row.

    Parameters
    ----------
    usable, zero : ndarray of bool, shape (M,)
        All entries finite; all of them zero.
    prints : ndarray of uint64, shape (M,)
        Equal for equal rows, and hardly ever for others.
    total : ndarray of float64, shape (F,)
        Sum of the lifted usable rows.
    peak : float
        Largest magnitude of an entry of them, before lifting.
    """

    usable: Bools
    zero: Bools
    prints: npt.NDArray[np.uint64]
    total: Float64s
    peak: float


def survey(spool: Spool, start: int, stop: int, metric: Metric) -> Survey:
    """Look at the rows `start` to `stop`, a task.

    Parameters
    ----------
    spool : Spool
        All rows.
    start, stop : int
        Row numbers.
    metric : {"euclidean", "cosine", "inner_product"}
        Of the search.

    Returns
    -------
    Survey
    """
    height = max(1, _BLOCK // max(1, spool.shape[1]))
    parts = [
        _surveyed(spool.block(first, min(first + height, stop)), metric)
        for first in range(start, stop, height)
    ]
    return joined(parts)


def joined(parts: list[Survey]) -> Survey:
    """Put surveys of successive rows together, in this order."""
    with np.errstate(over="ignore", invalid="ignore"):  # a mean beyond float64
        total = np.sum([part.total for part in parts], axis=0)
    return Survey(
        usable=np.concatenate([part.usable for part in parts]),
        zero=np.concatenate([part.zero for part in parts]),
        prints=np.concatenate([part.prints for part in parts]),
        total=total,
        peak=max(part.peak for part in parts),
    )


def _surveyed(rows: Floats, metric: Metric) -> Survey:
    usable = usable_rows(rows)
    finite = rows if usable.all() else np.where(usable[:, None], rows, 0)
    lifted = lift(finite, "euclidean")
    peak = float(np.abs(lifted).max(initial=0))
    zero = usable & ~lifted.any(axis=1)
    prints = _fingerprints(lifted)
    if metric == "cosine":
        lifted = lift(finite, metric)
    with np.errstate(over="ignore", invalid="ignore"):
        total = lifted.sum(axis=0)
    return Survey(usable, zero, prints, total, peak)


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
        found = np.load(path, mmap_mode="r" if mapped else None)
    except FileNotFoundError as error:
        raise unseen(path) from error
    return cast("npt.NDArray[Any]", found)
