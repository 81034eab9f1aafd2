"""What a worker does to search inverted lists: one tile of queries at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedkit.analysis.ivf_space import Floats, Space, parts
from embedkit.analysis.merge import Float64s, Ids, merge_nearest, nothing_found
from embedkit.analysis.near.ivf_bounds import proven
from embedkit.analysis.near.ivf_lists import Lists
from embedkit.analysis.spool import Spool
from embedkit.analysis.subset_search import search_subset

_READ = 2**25  # entries of the database searched together: 128 MiB of float32


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A search through lists, small enough to be sent with every task.

    Attributes
    ----------
    database, queries : Spool
    itself : bool
        Whether the queries are the rows of the database, each excluded from its own answer.
    space : Space
    folder : Path
        Where `publish` put the arrays.
    k : int
    nprobe : int
    zeros : ndarray of int64, shape (at most k + 1,)
        Rows at distance 1 of everything, which every tile sees.
    """

    database: Spool
    queries: Spool
    itself: bool
    space: Space
    folder: Path
    k: int
    nprobe: int
    zeros: Ids


def publish(
    lists: Lists, ranks: npt.NDArray[np.int32], of_query: Ids, order: Ids, folder: Path
) -> None:
    """Write what all tiles read: lists, their bounds, and which queries are whose."""
    np.save(folder / "order.npy", lists.order)
    np.save(folder / "starts.npy", lists.starts)
    np.save(folder / "radii.npy", lists.radii)
    np.save(folder / "gaps.npy", lists.gaps)
    np.save(folder / "ranks.npy", ranks)
    np.save(folder / "of_query.npy", of_query)
    np.save(folder / "query_order.npy", order)


def search_tile(
    job: Job, tile: int, start: int, stop: int
) -> tuple[Float64s, Ids, npt.NDArray[np.bool_]]:
    """Search the lists of one tile for the queries `start` to `stop` in its order.

    Returns
    -------
    distances : ndarray of float64, shape (stop - start, k)
    ids : ndarray of int64, shape (stop - start, k)
        Exact among the rows of these lists, by (distance, row number).
    certified : ndarray of bool, shape (stop - start,)
        Whether they are proven exact among all rows.
    """
    rows = _open(job, "query_order")[start:stop]  # ascending
    queries = job.queries.take(np.asarray(rows))
    chosen = _open(job, "ranks")[tile] < job.nprobe  # (L,)
    starts = _open(job, "starts")
    ids = _members(job, np.flatnonzero(chosen), starts)
    near, found = search_rows(job, queries, rows if job.itself else None, ids)
    certified = proven(
        job.space.queries(queries),
        job.space.radii(queries, near[:, -1]),
        own=np.asarray(_open(job, "of_query")[rows], np.int64),
        centroids=np.load(job.folder / "centroids.npy").astype(np.float64),
        skipped=np.flatnonzero(~chosen & (np.diff(starts) > 0)),
        radii=np.load(job.folder / "radii.npy"),
        gaps=np.load(job.folder / "gaps.npy"),
    )
    return near, found, certified


def search_rows(
    job: Job, queries: Floats, query_rows: Ids | None, ids: Ids
) -> tuple[Float64s, Ids]:
    """Search the rows `ids` (ascending) exactly, as many at a time as memory allows."""
    best = nothing_found(len(queries), job.k)
    for part in parts(len(ids), queries.shape[1], entries=_READ):
        here = ids[part]
        near, places = search_subset(
            queries,
            job.database.take(here),
            query_places=_places(here, query_rows, len(queries)),
            k=job.k,
            space=job.space,
        )
        found = np.where(places >= 0, here[places], -1)
        best = merge_nearest(best, (near, found), k=job.k)
    return best


def _places(ids: Ids, rows: Ids | None, count: int) -> Ids:
    """Return where each query stands among `ids`, -1 if it does not."""
    if rows is None:
        return np.full(count, -1, np.int64)
    places = np.minimum(np.searchsorted(ids, rows), len(ids) - 1)
    return np.where(ids[places] == rows, places, -1)


def _members(job: Job, chosen: Ids, starts: Ids) -> Ids:
    order = _open(job, "order")
    runs = [order[starts[each] : starts[each + 1]] for each in chosen]
    return np.sort(np.concatenate([job.zeros, *runs]))


def _open(job: Job, name: str) -> Ids:
    found: Ids = np.load(job.folder / f"{name}.npy", mmap_mode="r")
    return found
