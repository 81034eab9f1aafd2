"""Inverted lists of rows on disk: centroids, assignment, and what bounds each list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedkit.analysis.faiss_adapter import Float32s, nearest_centroid
from embedkit.analysis.ivf_space import Floats, Space, parts
from embedkit.analysis.ivf_survey import finite_rows, over_rows, survey
from embedkit.analysis.merge import Float64s, Ids
from embedkit.analysis.near.ivf_bounds import squared_floor
from embedkit.analysis.pair_distances import Metric
from embedkit.analysis.recall import spread_sample
from embedkit.analysis.rows import usable_rows
from embedkit.analysis.share import run_shared
from embedkit.analysis.spool import Spool

_ROUNDS = 6  # of k-means; more of them change recall by less than its interval
_TRAIN = 32  # rows per list to train on


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """Rows by the centroid that is nearest.

    Attributes
    ----------
    space : Space
    centroids : ndarray of float32, shape (L, F')
    order : ndarray of int64, shape (M,)
        Row numbers by (list, row number).
    starts : ndarray of int64, shape (L + 1,)
        Where each list begins in `order`.
    of_row : ndarray of int32, shape (N,)
        List of each row; -1 for rows in none.
    radii : ndarray of float64, shape (L,)
        Distance of the furthest row of each list to its centroid.
    gaps : ndarray of float64, shape (L,)
        How much further, squared, a row of the list can be from its own centroid than
        from another one: what rounding to float32 may have got wrong.
    zeros : ndarray of int64, shape (Z,)
        All-zero rows under cosine: at distance 1 of everything, in no list.
    usable : ndarray of int64, shape (U,)
        Finite rows, ascending.
    """

    space: Space
    centroids: Float32s
    order: Ids
    starts: Ids
    of_row: np.ndarray[Any, np.dtype[np.int32]]
    radii: Float64s
    gaps: Float64s
    zeros: Ids
    usable: Ids

    @property
    def sizes(self) -> Ids:
        """Rows per list, shape (L,)."""
        return np.diff(self.starts)


def make_lists(spool: Spool, *, metric: Metric, seed: int, folder: Path) -> Lists:
    """Sort the rows of a spool into inverted lists.

    Parameters
    ----------
    spool : Spool
        Rows on disk, shape (N, F).
    metric : {"euclidean", "cosine", "inner_product"}
    seed : int
        Of the rows that centroids are trained on.
    folder : Path
        Where workers find what is too large to send.

    Returns
    -------
    Lists
        A function of the rows, metric and seed: blocks of work depend on the shape alone.

    References
    ----------
    Jégou, Douze, Schmid (2011), Product quantization for nearest neighbor search,
    section IV (inverted files).
    """
    usable, null, space = survey(spool, metric=metric)
    listed = usable & ~null
    rows = np.flatnonzero(listed)
    count = max(1, min(int(4 * np.sqrt(len(rows))), len(rows) // 48))
    centroids = _train(spool, space, rows, count=count, seed=seed, folder=folder)
    np.save(folder / "centroids.npy", centroids)
    of_row = np.full(len(listed), -1, np.int32)
    radii, gaps = np.zeros(len(centroids)), np.zeros(len(centroids))
    for part, found in over_rows(
        _assign, spool, space=space, name="assign rows", folder=folder
    ):
        numbers, own, excess = found
        numbers = np.where(listed[part], numbers, -1)
        of_row[part] = numbers
        kept = numbers >= 0
        np.maximum.at(radii, numbers[kept], own[kept])
        np.maximum.at(gaps, numbers[kept], excess[kept])
    order = rows[np.argsort(of_row[rows], kind="stable")]
    starts = np.searchsorted(of_row[order], np.arange(len(centroids) + 1))
    return Lists(
        space=space,
        centroids=centroids,
        order=order,
        starts=starts,
        of_row=of_row,
        radii=radii,
        gaps=gaps,
        zeros=np.flatnonzero(null),
        usable=np.flatnonzero(usable),
    )


def kinds_of(queries: Spool, space: Space, *, folder: Path) -> tuple[Ids, Any, Any]:
    """Return the nearest list of each query, whether it is finite, whether it is zero.

    Returns
    -------
    numbers : ndarray of int64, shape (Q,)
    usable, null : ndarray of bool, shape (Q,)
    """
    count = queries.shape[0]
    numbers, usable = np.zeros(count, np.int64), np.zeros(count, bool)
    null = np.zeros(count, bool)
    for part, found in over_rows(
        _nearest, queries, space=space, name="assign queries", folder=folder
    ):
        numbers[part], usable[part], null[part] = found
    return numbers, usable, null


def _nearest(
    pieces: list[Floats], space: Space, centroids: Float32s
) -> tuple[Ids, Any, Any]:
    points = [space.queries(finite_rows(rows)).astype(np.float32) for rows in pieces]
    numbers = [nearest_centroid(each, centroids)[0] for each in points]
    finite = [usable_rows(rows) for rows in pieces]
    null = [~rows.any(axis=1) for rows in pieces]
    return np.concatenate(numbers), np.concatenate(finite), np.concatenate(null)


def _assign(
    pieces: list[Floats], space: Space, centroids: Float32s
) -> tuple[Ids, Float64s, Float64s]:
    """List of each row, its distance to the centroid, and what rounding may hide."""
    found = [_assign_piece(rows, space, centroids) for rows in pieces]
    numbers, own, excess = zip(*found, strict=True)
    return np.concatenate(numbers), np.concatenate(own), np.concatenate(excess)


def _assign_piece(
    rows: Floats, space: Space, centroids: Float32s
) -> tuple[Ids, Float64s, Float64s]:
    points = space.points(finite_rows(rows))  # (n, F')
    rounded = points.astype(np.float32)
    numbers, squared = nearest_centroid(rounded, centroids)
    gap = points - centroids[numbers]
    own = np.einsum("nf,nf->n", gap, gap)
    floor = squared_floor(rounded, centroids, squared)
    excess = np.maximum(own - floor, 0)
    return numbers, np.sqrt(own), excess


def _train(
    spool: Spool, space: Space, rows: Ids, *, count: int, seed: int, folder: Path
) -> Float32s:
    """Train centroids on rows from all over, by Lloyd's rounds over blocks of them."""
    rng = np.random.default_rng((seed, 1))
    chosen = spread_sample(rows, _TRAIN * count, rng=rng)
    if not len(chosen):
        width = len(space.center) + (space.metric == "inner_product")
        return np.zeros((1, width), np.float32)
    sample = np.concatenate(
        [
            space.points(spool.take(chosen[part])).astype(np.float32)
            for part in parts(len(chosen), spool.shape[1])
        ]
    )
    np.save(folder / "sample.npy", sample)
    centroids = sample[np.sort(rng.choice(len(sample), count, replace=False))]
    for _ in range(_ROUNDS):
        np.save(folder / "centroids.npy", centroids)
        centroids = _round(centroids, folder, sample.shape)
    (folder / "sample.npy").unlink()
    return centroids


def _round(centroids: Float32s, folder: Path, shape: tuple[int, ...]) -> Float32s:
    """Move every centroid to the mean of its rows; an empty one to a row far from its own."""
    cuts = [(folder, part.start, part.stop) for part in parts(*shape)]
    done = dict(run_shared(_sums, cuts, name="train centroids"))
    total, size = np.zeros(centroids.shape), np.zeros(len(centroids), np.int64)
    far: list[tuple[float, int]] = []
    for cut in cuts:
        numbers, sums, counts, furthest = done[cut]
        total[numbers] += sums
        size[numbers] += counts
        far += furthest
    moved = centroids.copy()
    full = size > 0
    moved[full] = (total[full] / size[full, None]).astype(np.float32)
    sample = np.load(folder / "sample.npy", mmap_mode="r")
    empty = np.flatnonzero(~full)
    for number, (_, row) in zip(empty, sorted(far, reverse=True), strict=False):
        moved[number] = sample[row]
    return moved


def _sums(folder: Path, start: int, stop: int) -> tuple[Ids, Float64s, Ids, list[Any]]:
    """Sum the sampled rows of each centroid; name those furthest from theirs."""
    points = np.load(folder / "sample.npy", mmap_mode="r")[start:stop]
    numbers, squared = nearest_centroid(
        np.ascontiguousarray(points), np.load(folder / "centroids.npy")
    )
    order = np.argsort(numbers, kind="stable")
    present, first, counts = np.unique(
        numbers[order], return_index=True, return_counts=True
    )
    sums = np.add.reduceat(points[order].astype(np.float64), first, axis=0)
    furthest = np.argsort(-squared, kind="stable")[:64]
    far = [(float(squared[row]), start + int(row)) for row in furthest]
    return present, sums, counts, far
