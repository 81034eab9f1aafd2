"""Tiles of queries that search the same inverted lists, so that one product serves all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.analysis.faiss_adapter import Float32s
from embedkit.analysis.merge import Float64s, Ids

_QUERIES = 1024  # per tile: enough for BLAS, few enough that their lists are alike


@dataclass(frozen=True, slots=True, eq=False)
class Tiles:
    """Groups of neighboring lists, and how near every list is to each group.

    Attributes
    ----------
    of_list : ndarray of int64, shape (L,)
        Tile of the queries in each list.
    ranks : ndarray of int32, shape (T, L)
        How many lists are nearer to some list of the tile; 0 for its own. The lists that
        a tile probes are those with a rank below ``nprobe``.
    """

    of_list: Ids
    ranks: npt.NDArray[np.int32]


def make_tiles(centroids: Float32s, counts: Ids) -> Tiles:
    """Group lists so that each group has about a thousand queries.

    The mean squared distance from the queries of a list to another centroid is that
    between both centroids plus a constant: so one order of lists serves all queries of
    the list, and what a group probes is the union over its lists.

    Parameters
    ----------
    centroids : ndarray of float32, shape (L, F)
    counts : ndarray of int64, shape (L,)
        Queries per list.

    Returns
    -------
    Tiles
    """
    points = centroids.astype(np.float64)
    groups = list(_halves(points, counts, np.arange(len(points))))
    of_list = np.empty(len(points), np.int64)
    ranks = np.empty((len(groups), len(points)), np.int32)
    for tile, members in enumerate(groups):
        of_list[members] = tile
        ranks[tile] = _rank_lists(points, members)
    return Tiles(of_list=of_list, ranks=ranks)


def probed_rows(tiles: Tiles, sizes: Ids, *, nprobe: int) -> Ids:
    """Return how many rows each tile reads, shape (T,)."""
    return np.asarray((tiles.ranks < nprobe) @ sizes)


def _rank_lists(points: Float64s, members: Ids) -> npt.NDArray[np.int32]:
    """Least rank of each list among the lists ordered by distance to each member."""
    lengths = np.einsum("lf,lf->l", points, points)
    squared = lengths - 2 * points[members] @ points.T  # (M, L), less a constant
    squared[np.arange(len(members)), members] = -np.inf  # itself before any copy
    order = np.argsort(squared, axis=1, kind="stable")
    ranks = np.empty(order.shape, np.int32)
    places = np.arange(len(points), dtype=np.int32)
    np.put_along_axis(ranks, order, places[None], axis=1)
    return np.asarray(ranks.min(axis=0))


def _halves(points: Float64s, counts: Ids, members: Ids) -> Iterator[Ids]:
    """Cut lists in two along their longest extent until the queries of each are few."""
    if len(members) == 1 or counts[members].sum() <= _QUERIES:
        yield members
        return
    spread = points[members] - points[members].mean(axis=0)
    along = spread @ _longest(spread)
    order = members[np.argsort(along, kind="stable")]
    filled = np.cumsum(counts[order])
    middle = int(np.searchsorted(filled, filled[-1] / 2)) + 1
    middle = min(max(1, middle), len(members) - 1)
    yield from _halves(points, counts, order[:middle])
    yield from _halves(points, counts, order[middle:])


def _longest(spread: Float64s) -> Float64s:
    """Return about the first principal axis, by a few rounds of the power method."""
    axis = spread[np.argmax(np.einsum("nf,nf->n", spread, spread))]
    for _ in range(8):
        axis = spread.T @ (spread @ axis)
        length = np.linalg.norm(axis)
        if not length:
            break
        axis = axis / length
    return np.asarray(axis)
