"""A cheap look at what inverted lists would have to read, before any are made."""

from __future__ import annotations

import numpy as np

from embedkit.analysis.faiss_adapter import Float32s, nearest_centroid
from embedkit.analysis.ivf_space import parts
from embedkit.analysis.merge import Ids
from embedkit.analysis.near.begin import Begun
from embedkit.analysis.near.found import Aim
from embedkit.analysis.near.ivf_tiles import make_tiles, probed_rows
from embedkit.analysis.recall import spread_sample
from embedkit.analysis.spool import Spool

_ROWS = 8192  # to make lists of; the real ones are of all rows
_PER_LIST = 16
_ROUNDS = 4  # of k-means


def tiles_ahead(database: Spool, begun: Begun, aim: Aim) -> list[tuple[int, int]]:
    """Estimate what tiles of inverted lists would read, from few rows.

    A few coarse lists are made of sampled rows and weighed as if they held all. How many
    of them hold the true neighbors of the rows of `begun.look` says how sharply the lists
    part the rows. The real lists are finer, and read less.

    Parameters
    ----------
    database : Spool
        Rows on disk, shape (N, F).
    begun : Begun
        With exact neighbors of a few rows.
    aim : Aim
        With the recall.

    Returns
    -------
    list of (int, int)
        Queries and rows read, of each tile.
    """
    listed = begun.listed
    if not len(listed):
        return []
    rng = np.random.default_rng((aim.seed, 3))
    points = _points(database, begun, spread_sample(listed, _ROWS, rng=rng))
    centroids = _centroids(points, rng)
    own = nearest_centroid(points, centroids)[0]
    weight = np.bincount(own, minlength=len(centroids)) / len(points)
    sizes = np.rint(weight * len(listed)).astype(np.int64)
    tiles = make_tiles(centroids, sizes)
    ranks = _ranks(database, begun, centroids, tiles.of_list, tiles.ranks)
    nprobe = (
        int(np.quantile(ranks, aim.recall, method="higher")) + 1 if len(ranks) else 1
    )
    queries = np.bincount(tiles.of_list, weights=sizes, minlength=len(tiles.ranks))
    read = probed_rows(tiles, sizes, nprobe=nprobe)
    return list(zip(queries.astype(int).tolist(), read.tolist(), strict=True))


def _points(database: Spool, begun: Begun, rows: Ids) -> Float32s:
    pieces = [
        begun.space.points(database.take(rows[part])).astype(np.float32)
        for part in parts(len(rows), database.shape[1])
    ]
    return np.concatenate(pieces)


def _centroids(points: Float32s, rng: np.random.Generator) -> Float32s:
    """Run a few of Lloyd's rounds; a centroid without rows stays where it is."""
    count = max(1, len(points) // _PER_LIST)
    centroids = points[np.sort(rng.choice(len(points), count, replace=False))]
    for _ in range(_ROUNDS):
        numbers = nearest_centroid(points, centroids)[0]
        order = np.argsort(numbers, kind="stable")
        full, first, sizes = np.unique(
            numbers[order], return_index=True, return_counts=True
        )
        sums = np.add.reduceat(points[order].astype(np.float64), first, axis=0)
        centroids[full] = sums / sizes[:, None]
    return centroids


def _ranks(
    database: Spool,
    begun: Begun,
    centroids: Float32s,
    of_list: Ids,
    ranks: np.ndarray[tuple[int, ...], np.dtype[np.int32]],
) -> Ids:
    """How many lists come before that of each true neighbor, for the tile of its query."""
    truth = begun.look
    asked = ~begun.null[truth.rows]
    rows, ids = truth.rows[asked], truth.ids[asked]
    there = (ids >= 0) & ~begun.null[ids]
    needed = np.unique(np.concatenate([rows, ids[there]]))
    if not len(needed):
        return np.empty(0, np.int64)
    lists = nearest_centroid(_points(database, begun, needed), centroids)[0]
    tile = of_list[lists[np.searchsorted(needed, rows)]]
    tile = np.broadcast_to(tile[:, None], ids.shape)[there]
    return ranks[tile, lists[np.searchsorted(needed, ids[there])]].astype(np.int64)
