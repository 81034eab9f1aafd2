"""The pairs of a tile that may be among the nearest, from one product for both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Float64s: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Rows: TypeAlias = npt.NDArray[np.intp]
Hits: TypeAlias = tuple[Rows, Rows, Floats, Rows]
"""Rows, columns and scores of pairs; rows that have too many."""

HIT = {
    kind: np.dtype([("row", "<u4"), ("place", "<u4"), ("score", kind)])
    for kind in ("f4", "f8")
}
"""One candidate: a row of the band, the place of the other row, and the score."""

LOST = 2**32 - 1
"""Place of a record that says: of this row not all candidates are known."""

FOLDED = 32  # groups per wanted score: hardly two of the best fall into one group


@dataclass(slots=True)
class Bound:
    """What a score has to reach, for some rows, and how it is tightened.

    Parameters
    ----------
    cut : ndarray of float32 or float64, shape (M,)
        Lower scores cannot belong to one of the nearest.
    margin : ndarray of float64, shape (M,)
        How far below the worst of `need` scores `cut` has to be.
    need : int
        Nearest rows that are wanted, itself included where it is among the others.
    most : int
        Candidates of a row in one tile that are kept; beyond, the product does not tell
        its pairs apart.
    """

    cut: Floats
    margin: Float64s
    need: int
    most: int

    def part(self, start: int, stop: int) -> Bound:
        """Return the bound of some of the rows; it shares their cuts."""
        return Bound(
            self.cut[start:stop], self.margin[start:stop], self.need, self.most
        )

    def raise_to(self, rows: npt.NDArray[np.intp], worst: Floats) -> None:
        """Use that there are `need` scores of `worst` or more, shape (R,), for `rows`."""
        exact = worst.astype(np.float64) - self.margin[rows]
        lower = np.nextafter(
            exact.astype(self.cut.dtype), np.array(-np.inf, self.cut.dtype)
        )
        self.cut[rows] = np.maximum(self.cut[rows], lower)


class Room:
    """Scores and mask of a tile, used again for the next one.

    Parameters
    ----------
    size : int
        Scores of a tile, at most.
    kind : {"f4", "f8"}, default "f4"
        Type of the product.
    """

    def __init__(self, size: int, kind: Literal["f4", "f8"] = "f4") -> None:
        self._scores = np.empty(size, kind)
        self._mask = np.empty(size, bool)

    def product(self, turned: Floats, other: Floats) -> Scores:
        """Multiply left rows (M, F + 2) by right ones (P, F + 2)."""
        shape = len(turned), len(other)
        size = shape[0] * shape[1]
        scores = self._scores[:size].reshape(shape)
        np.matmul(turned, other.T, out=scores)
        return Scores(scores, self._mask[:size].reshape(shape))


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of M rows with P others, until the room is used again.

    Parameters
    ----------
    scores : ndarray, shape (M, P), floating
        May be the transpose of an array.
    mask : ndarray of bool, shape (M, P)
        Room to work in, laid out like `scores`.
    """

    scores: Floats
    mask: Bools

    def transposed(self) -> Scores:
        """Return the scores of the P others with the M rows; no copy."""
        return Scores(self.scores.T, self.mask.T)

    def hits(self, bound: Bound) -> Hits:
        """Find the pairs that reach the cut of their row, and their scores; see `hits`."""
        row, column, lost = hits(self.scores, self.mask, bound)
        return row, column, self.scores[row, column], lost

    def best(self, need: int) -> Floats:
        """Return the best scores of each row; see `best`."""
        return best(self.scores, need)

    def folded(self, need: int) -> Floats:
        """Return the best of groups of scores, which are overwritten; see `folded`."""
        return folded(self.scores, need)


def hits(
    scores: Floats, mask: Bools, bound: Bound
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Find the pairs that reach the cut of their row.

    Parameters
    ----------
    scores : ndarray, shape (M, P), floating
        Of the rows of `bound` with P others; may be the transpose of an array.
    mask : ndarray of bool, shape (M, P)
        Room to work in, laid out like `scores`.
    bound : Bound
        Tightened where a row has more pairs than it allows.

    Returns
    -------
    row, column : ndarray of intp, shape (H,)
        The pairs.
    lost : ndarray of intp, shape (L,)
        Rows that have too many, which are left out.
    """
    np.greater_equal(scores, bound.cut[:, None], out=mask)
    lost = np.empty(0, np.intp)
    crowded = np.count_nonzero(mask) > bound.most * len(scores)
    row, column = (lost, lost) if crowded else _where(mask)
    if crowded or (np.bincount(row, minlength=1) > bound.most).any():
        lost = _thin_out(scores, mask, bound)
        row, column = _where(mask)
    return row, column, lost


def _thin_out(scores: Floats, mask: Bools, bound: Bound) -> npt.NDArray[np.intp]:
    """Tighten the cut of rows with too many pairs; drop rows for which that is no help."""
    over = np.flatnonzero(np.count_nonzero(mask, axis=1) > bound.most)
    few = scores[over]  # (O, P)
    bound.raise_to(over, best(few, bound.need)[:, 0])
    fewer = few >= bound.cut[over, None]
    still = np.count_nonzero(fewer, axis=1) > bound.most
    fewer[still] = False
    mask[over] = fewer
    gone: npt.NDArray[np.intp] = over[still]
    return gone


def _where(mask: Bools) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return rows and columns of what is set, in the order of memory."""
    if mask.flags.c_contiguous:
        row, column = np.divmod(np.flatnonzero(mask), mask.shape[1])
    else:  # the transpose of an array
        column, row = np.divmod(np.flatnonzero(mask.T), mask.shape[0])
    return row, column


def best(scores: Floats, need: int) -> Floats:
    """Return the `need` best scores of each row, the worst of them first.

    Parameters
    ----------
    scores : ndarray, shape (M, P), floating
    need : int
        How many.

    Returns
    -------
    ndarray, shape (M, need), floating
        ``-inf`` where there are not as many.
    """
    if scores.shape[1] < need:
        room = np.full((len(scores), need - scores.shape[1]), -np.inf, scores.dtype)
        scores = np.concatenate([room, scores], axis=1)
    at = scores.shape[1] - need
    return np.partition(scores, at, axis=1)[:, at:]


def folded(scores: Floats, need: int) -> Floats:
    """Keep the best of groups of scores: less to sort, and a bound still.

    Parameters
    ----------
    scores : ndarray, shape (M, P), floating
        Overwritten.
    need : int
        Scores that will be wanted of each row.

    Returns
    -------
    ndarray, shape (M, less than P), floating
        Scores of as many different pairs.
    """
    while scores.shape[1] > 2 * FOLDED * need:
        half = scores.shape[1] // 2
        np.maximum(
            scores[:, :half],
            scores[:, half : 2 * half],
            out=scores[:, :half],
        )
        scores = scores[:, :half]
    return scores


def records(
    row: npt.NDArray[np.intp],
    place: npt.NDArray[np.intp],
    score: Floats,
    lost: npt.NDArray[np.intp],
) -> npt.NDArray[Any]:
    """Pack hits, and the rows of which some are lost, as records of `HIT`."""
    out = np.empty(len(row) + len(lost), HIT["f4" if score.itemsize == 4 else "f8"])
    found, gone = out[: len(row)], out[len(row) :]
    found["row"], found["place"], found["score"] = row, place, score
    gone["row"], gone["place"], gone["score"] = lost, LOST, np.inf
    return out


def thinned(
    candidates: npt.NDArray[Any], bound: Bound
) -> tuple[npt.NDArray[Any], Bools]:
    """Keep what can be among the nearest, now that there are candidates of many tiles.

    Parameters
    ----------
    candidates : ndarray of `HIT`, shape (H,)
        In any order.
    bound : Bound
        Of the M rows; tightened.

    Returns
    -------
    candidates : ndarray of `HIT`, shape (less,)
        By row, best first, without those of rows of which some are lost.
    lost : ndarray of bool, shape (M,)
        Rows of which not all candidates are known, or more than `bound` allows are left.
    """
    rows = len(bound.cut)
    lost = np.zeros(rows, bool)
    lost[candidates["row"][candidates["place"] == LOST]] = True
    if lost.any():
        candidates = candidates[~lost[candidates["row"]]]
    candidates = candidates[_by_row_and_score(candidates)]
    count = np.bincount(candidates["row"], minlength=rows)
    enough = np.flatnonzero(count >= bound.need)
    starts = np.cumsum(count) - count
    bound.raise_to(enough, candidates["score"][starts[enough] + bound.need - 1])
    candidates = candidates[candidates["score"] >= bound.cut[candidates["row"]]]
    many = np.bincount(candidates["row"], minlength=rows) > bound.most
    if many.any():
        candidates = candidates[~many[candidates["row"]]]
    return candidates, lost | many


def _by_row_and_score(candidates: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Order by row, best first; two float32 orders in one integer sort much faster."""
    score = candidates["score"]
    if score.itemsize == 8:
        return np.asarray(np.lexsort((-score, candidates["row"])))
    bits = np.negative(score).view(np.uint32)
    # Integers order like floats once negative ones are turned round.
    turned = np.where(bits >> 31, ~bits, bits | np.uint32(2**31))
    key = candidates["row"].astype(np.uint64) << np.uint64(32) | turned
    return np.argsort(key)
