"""The pairs of a tile that may be among the nearest, from one product for both sides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from embedkit.analysis.exact.score_bounds import Margins

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Float64s: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Rows: TypeAlias = npt.NDArray[np.intp]
Hits: TypeAlias = tuple[Rows, Rows, Floats, Rows]
"""Rows, columns and scores of pairs; rows that have too many."""

FOLDED = 32  # groups per wanted score: hardly two of the best fall into one group
_THINNED = 2**19  # scores of crowded rows that are looked at together


@dataclass(frozen=True, slots=True)
class Bound:
    """What a score has to reach, for some rows, and how it is tightened.

    Parameters
    ----------
    cut : ndarray of float32 or float64, shape (M,)
        Lower scores cannot belong to one of the nearest; infinite where no more pairs are
        looked for.
    margins : Margins
        How uncertain the scores of the M rows are.
    need : int
        Nearest rows that are wanted, itself included where it is among the others.
    most : int
        Candidates of a row in one tile that are kept; beyond, the product does not tell
        its pairs apart.
    """

    cut: Floats
    margins: Margins
    need: int
    most: int

    def part(self, start: int, stop: int) -> Bound:
        """Return the bound of some of the rows; it shares their cuts."""
        margins = self.margins.part(start, stop)
        return Bound(self.cut[start:stop], margins, self.need, self.most)

    def lower(self, rows: Rows, scores: Floats, sizes: Float64s) -> Float64s:
        """Return what scores prove of keys, up to what is the same for all of a row.

        Parameters
        ----------
        rows : ndarray of intp, shape (...)
            Of the bound.
        scores : ndarray, shape (...), floating
            Of pairs of theirs.
        sizes : ndarray of float64, shape (...)
            Of the other rows of these pairs; see `score_bounds.sizes`.

        Returns
        -------
        ndarray of float64, shape (...)
        """
        return np.asarray(scores - self.margins.rate[rows] * sizes)

    def raise_to(self, rows: Rows, worst: Float64s) -> None:
        """Use that `need` pairs of `rows` have a `lower` of `worst` or more, shape (R,)."""
        exact = worst - self.margins.base[rows]
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

    def hits(self, bound: Bound, sizes: Float64s) -> Hits:
        """Find the pairs that reach the cut of their row, and their scores; see `hits`."""
        row, column, lost = hits(self.scores, self.mask, bound, sizes)
        return row, column, self.scores[row, column], lost

    def tighten(self, bound: Bound, sizes: Float64s) -> None:
        """Raise the cuts of all rows to what these scores prove; see `tighten`."""
        for rows in _slices(np.arange(len(self.scores)), self.scores):
            tighten(bound, rows, self.scores[rows], sizes)

    def folded(self, need: int) -> Floats:
        """Return the best of groups of scores, which are overwritten; see `folded`."""
        return folded(self.scores, need)


def hits(
    scores: Floats, mask: Bools, bound: Bound, sizes: Float64s
) -> tuple[Rows, Rows, Rows]:
    """Find the pairs that reach the cut of their row.

    Parameters
    ----------
    scores : ndarray, shape (M, P), floating
        Of the rows of `bound` with P others; may be the transpose of an array.
    mask : ndarray of bool, shape (M, P)
        Room to work in, laid out like `scores`.
    bound : Bound
        Tightened where a row has more pairs than it allows.
    sizes : ndarray of float64, shape (P,)
        Of the others; see `score_bounds.sizes`.

    Returns
    -------
    row, column : ndarray of intp, shape (H,)
        The pairs.
    lost : ndarray of intp, shape (L,)
        Rows that have too many, which are left out, now and with this bound for ever.
    """
    np.greater_equal(scores, bound.cut[:, None], out=mask)
    lost = np.empty(0, np.intp)
    crowded = np.count_nonzero(mask) > bound.most * len(scores)
    row, column = (lost, lost) if crowded else _where(mask)
    if crowded or (np.bincount(row, minlength=1) > bound.most).any():
        over = np.flatnonzero(np.count_nonzero(mask, axis=1) > bound.most)
        parts = [
            _thin_out(scores, mask, bound, sizes, rows)
            for rows in _slices(over, scores)
        ]
        lost = np.concatenate([lost, *parts])
        row, column = _where(mask)
    return row, column, lost


def _slices(rows: Rows, scores: Floats) -> Iterator[Rows]:
    """Cut rows so that copies of their scores stay small."""
    height = max(1, _THINNED // max(1, scores.shape[1]))
    for start in range(0, len(rows), height):
        yield rows[start : start + height]


def _thin_out(
    scores: Floats, mask: Bools, bound: Bound, sizes: Float64s, over: Rows
) -> Rows:
    """Tighten the cut of rows with too many pairs; drop rows for which that is no help."""
    few = scores[over]  # (O, P)
    tighten(bound, over, few, sizes)
    fewer = few >= bound.cut[over, None]
    still = np.count_nonzero(fewer, axis=1) > bound.most
    fewer[still] = False
    mask[over] = fewer
    gone: Rows = over[still]
    bound.cut[gone] = np.inf
    return gone


def tighten(bound: Bound, rows: Rows, scores: Floats, sizes: Float64s) -> None:
    """Raise cuts to what the scores of some rows with others prove.

    Parameters
    ----------
    bound : Bound
    rows : ndarray of intp, shape (R,)
        Of the bound.
    scores : ndarray, shape (R, P), floating
        Of theirs with P others. Where these are too few nothing is proved.
    sizes : ndarray of float64, shape (P,)
        Of the others.
    """
    at = scores.shape[1] - bound.need
    if at < 0:
        return
    # Any pairs prove something. Which prove most is found well enough in float32.
    doubt = np.multiply.outer(bound.margins.rate[rows], sizes).astype(scores.dtype)
    chosen = np.argpartition(scores - doubt, at, axis=1)[:, at:]  # (R, need)
    picked = np.take_along_axis(scores, chosen, axis=1)
    bound.raise_to(rows, bound.lower(rows[:, None], picked, sizes[chosen]).min(axis=1))


def _where(mask: Bools) -> tuple[Rows, Rows]:
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
