"""One Euclidean space for every metric, in which inverted lists order like the metric.

Cosine: unit rows. Inner product: a last entry makes all rows equally long, so that the
nearest row has the largest product with the query. Rows are shifted to mean zero and
scaled by a power of two, so that float32 can hold them; neither changes an order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merge import Float64s
from embedkit.analysis.pair_distances import Metric
from embedkit.analysis.rows import usable_rows

Floats: TypeAlias = npt.NDArray[np.floating[Any]]

_BLOCK = 2**22  # float64 entries worked on together: 32 MiB


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """How rows and queries become points of the common space.

    Attributes
    ----------
    metric : {"euclidean", "cosine", "inner_product"}
    scale : float
        A power of two that divides rows; 1 for cosine.
    center : ndarray of float64, shape (F,)
        Mean of the scaled rows.
    reach : float
        Length that inner products give to every row, 0 for other metrics.
    """

    metric: Metric
    scale: float
    center: Float64s
    reach: float

    def raw(self, rows: Floats) -> Float64s:
        """Scale rows (n, F) in float64, or bring them to unit length."""
        raw = np.asarray(rows, np.float64) / self.scale
        return unit(raw) if self.metric == "cosine" else raw

    def points(self, rows: Floats) -> Float64s:
        """Return rows of the database as points, shape (n, F) or (n, F + 1)."""
        points = self.raw(rows) - self.center
        if self.metric != "inner_product":
            return points
        left = self.reach**2 - np.einsum("nf,nf->n", points, points)  # (n,)
        return np.column_stack([points, np.sqrt(np.maximum(left, 0))])

    def queries(self, rows: Floats) -> Float64s:
        """Return queries as points; for inner products as long as the rows are."""
        if self.metric != "inner_product":
            return self.points(rows)
        ends = unit(self.raw(rows)) * self.reach
        return np.column_stack([ends, np.zeros(len(ends))])

    def radii(self, rows: Floats, distances: Float64s) -> Float64s:
        """Return distances under the metric as distances between points.

        Parameters
        ----------
        rows : ndarray, shape (n, F)
            The queries.
        distances : ndarray of float64, shape (n,)
            One of each.

        Returns
        -------
        ndarray of float64, shape (n,)
        """
        if self.metric == "euclidean":
            return distances / self.scale
        if self.metric == "cosine":
            return np.sqrt(2 * distances)
        raw = self.raw(rows)
        length = np.sqrt(np.einsum("nf,nf->n", raw, raw))
        product = -distances / self.scale**2 - raw @ self.center  # q·(y-c)
        with np.errstate(invalid="ignore", divide="ignore"):
            cosine = product / (length * self.reach)
        return np.asarray(self.reach * np.sqrt(np.maximum(2 - 2 * cosine, 0)))


def unit(rows: Float64s) -> Float64s:
    """Bring rows (n, F) to unit length, zero rows staying zero."""
    # By the peak first: the square of 1e-200 or 1e200 is not a float64.
    peak = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    rows = rows / np.where(peak > 0, peak, 1)
    length = np.sqrt(np.einsum("nf,nf->n", rows, rows))[:, None]
    return np.asarray(rows / np.where(length > 0, length, 1))


def parts(count: int, features: int, *, entries: int = _BLOCK) -> Iterator[slice]:
    """Cut `count` rows of `features` entries into slices of at most `entries`."""
    height = max(1, entries // max(1, features))
    for start in range(0, count, height):
        yield slice(start, min(count, start + height))


def space_of(rows: Floats, *, metric: Metric) -> Space:
    """Return a space that suits rows in memory.

    Parameters
    ----------
    rows : ndarray, shape (n, F), floating
        Those with a NaN or an infinity do not count.
    metric : {"euclidean", "cosine", "inner_product"}

    Returns
    -------
    Space
        Around the origin, which inner products need no better than that.
    """
    usable = usable_rows(rows)
    peak = max(
        (
            float(np.abs(rows[part][usable[part]]).max(initial=0.0))
            for part in _cut(rows)
        ),
        default=0.0,
    )
    scale = 1.0 if metric == "cosine" or not peak else 2.0 ** np.frexp(peak)[1]
    center = np.zeros(rows.shape[1])
    space = Space(metric=metric, scale=scale, center=center, reach=0.0)
    if metric != "inner_product":
        return space
    squares = (
        np.einsum("nf,nf->n", raw, raw).max(initial=0.0)
        for raw in (space.raw(rows[part][usable[part]]) for part in _cut(rows))
    )
    return replace(space, reach=float(np.sqrt(max(squares, default=0.0))))


def _cut(rows: Floats) -> Iterator[slice]:
    return parts(*rows.shape)
