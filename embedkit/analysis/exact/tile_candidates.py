"""Candidates of many tiles: packed, kept within bounds of memory, thinned out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from embedkit.analysis.exact.tile_hits import Bools, Bound, Float64s, Floats

Packed: TypeAlias = npt.NDArray[Any]
"""Records of `HIT`, shape (H,)."""

HIT = {
    kind: np.dtype([("row", "<u4"), ("place", "<u4"), ("score", kind)])
    for kind in ("f4", "f8")
}
"""One candidate: a row of the band, the place of the other row, and the score."""

LOST = 2**32 - 1
"""Place of a record that says: of this row not all candidates are known."""

_BLOCK = 2**18  # candidates whose float64 scores are there at once


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the rows at successive places; see `score_bounds.sizes`.

    Parameters
    ----------
    values : ndarray of float64, shape (P,)
    first : int, default 0
        Place of the first one.
    """

    values: Float64s
    first: int = 0

    def part(self, start: int, stop: int) -> Float64s:
        """Return those of the places `start` to `stop`."""
        return self.values[start - self.first : stop - self.first]

    def of(self, places: npt.NDArray[Any]) -> Float64s:
        """Return those of some places."""
        return np.asarray(self.values[places - self.first])


class Held:
    """Candidates of some rows, thinned out before they take too much memory.

    Parameters
    ----------
    bound : Bound
        Of the M rows; tightened whenever candidates are thinned out.
    sizes : Sizes
        Of the places that candidates can have.
    kind : {"f4", "f8"}
        Of the scores.
    """

    def __init__(self, bound: Bound, sizes: Sizes, kind: str = "f4") -> None:
        self.bound = bound
        self.sizes = sizes
        self._parts = [np.empty(0, HIT[kind])]
        self._count = 0
        self._most = bound.most * len(bound.cut)  # what thinning out leaves, at most

    def add(self, found: Packed) -> None:
        """Take some more; never are there more than half again as many as allowed."""
        room = max(1, self._most // 2)
        for start in range(0, len(found), room):
            some = found[start : start + room]
            if self._count + len(some) > self._most + room:
                self._thin()
            self._parts.append(some)
            self._count += len(some)

    def packed(self) -> Packed:
        """Hand over what there is: as many as the bound allows each row, at most."""
        if self._count > self._most:
            self._thin()
        return self._all()

    def thinned(self) -> tuple[Packed, Bools]:
        """Hand over what can be among the nearest, and which rows are lost.

        Returns
        -------
        candidates : ndarray of `HIT`, shape (H,)
        lost : ndarray of bool, shape (M,)
            See `thinned`.
        """
        return thinned(self._all(), self.bound, self.sizes)

    def _all(self) -> Packed:
        whole = np.concatenate(self._parts)
        self._parts, self._count = [whole[:0].copy()], 0
        return whole

    def _thin(self) -> None:
        """Rows of which some are lost keep a record that says so, and get no more."""
        kept, lost = self.thinned()
        rows, none = np.flatnonzero(lost), np.empty(0, np.intp)
        self.bound.cut[rows] = np.inf
        self._parts = [kept, records(none, none, kept["score"][:0], rows)]
        self._count = sum(map(len, self._parts))


def records(
    row: npt.NDArray[np.intp],
    place: npt.NDArray[np.intp],
    score: Floats,
    lost: npt.NDArray[np.intp],
) -> Packed:
    """Pack hits, and the rows of which some are lost, as records of `HIT`."""
    out = np.empty(len(row) + len(lost), HIT["f4" if score.itemsize == 4 else "f8"])
    found, gone = out[: len(row)], out[len(row) :]
    found["row"], found["place"], found["score"] = row, place, score
    gone["row"], gone["place"], gone["score"] = lost, LOST, np.inf
    return out


def thinned(candidates: Packed, bound: Bound, sizes: Sizes) -> tuple[Packed, Bools]:
    """Keep what can be among the nearest, now that there are candidates of many tiles.

    Parameters
    ----------
    candidates : ndarray of `HIT`, shape (H,)
        In any order.
    bound : Bound
        Of the M rows; tightened.
    sizes : Sizes
        Of their places.

    Returns
    -------
    candidates : ndarray of `HIT`, shape (less,)
        By row, without those of rows of which some are lost.
    lost : ndarray of bool, shape (M,)
        Rows of which not all candidates are known, or more than `bound` allows are left.
    """
    rows = len(bound.cut)
    lost = np.zeros(rows, bool)
    lost[candidates["row"][candidates["place"] == LOST]] = True
    if lost.any():
        candidates = candidates[~lost[candidates["row"]]]
    lower = _rounded_down(candidates, bound, sizes)
    order = _by_row_and_score(candidates["row"], lower)
    count = np.bincount(candidates["row"], minlength=rows)
    enough = np.flatnonzero(count >= bound.need)
    last = (np.cumsum(count) - count)[enough] + bound.need - 1
    bound.raise_to(enough, lower[order[last]].astype(np.float64))
    candidates = candidates[order]
    candidates = candidates[candidates["score"] >= bound.cut[candidates["row"]]]
    many = np.bincount(candidates["row"], minlength=rows) > bound.most
    if many.any():
        candidates = candidates[~many[candidates["row"]]]
    return candidates, lost | many


def _rounded_down(candidates: Packed, bound: Bound, sizes: Sizes) -> Floats:
    """Return what the scores prove, in their own type, shape (H,)."""
    out = np.empty(len(candidates), candidates["score"].dtype)
    for start in range(0, len(out), _BLOCK):
        some = candidates[start : start + _BLOCK]
        exact = bound.lower(some["row"], some["score"], sizes.of(some["place"]))
        out[start : start + _BLOCK] = exact
    np.nextafter(out, np.array(-np.inf, out.dtype), out=out)
    return out


def _by_row_and_score(
    row: npt.NDArray[np.uint32], score: Floats
) -> npt.NDArray[np.intp]:
    """Order by row, best first; two float32 orders in one integer sort much faster."""
    if score.itemsize == 8:
        return np.asarray(np.lexsort((-score, row)))
    bits = np.negative(score).view(np.uint32)
    # Integers order like floats once negative ones are turned round.
    turned = np.where(bits >> 31, ~bits, bits | np.uint32(2**31))
    key = row.astype(np.uint64) << np.uint64(32) | turned
    return np.argsort(key)
