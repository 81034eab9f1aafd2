"""Exact neighbors of some rows among all rows of a file, block by block."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embedkit.analysis.ivf_space import Floats, Space, parts
from embedkit.analysis.merge import Float64s, Ids, merge_nearest, nothing_found
from embedkit.analysis.share import run_shared
from embedkit.analysis.spool import Spool
from embedkit.analysis.subset_search import search_subset

_TASK = 2**23  # entries per task: 32 MiB of float32, lifted piece by piece


def true_neighbors(
    queries: Floats,
    spool: Spool,
    *,
    query_ids: Ids,
    k: int,
    space: Space,
    folder: Path,
    leave_out: Ids | None = None,
) -> tuple[Float64s, Ids]:
    """Search all rows of a file exactly, one task per block of them.

    Parameters
    ----------
    queries : ndarray, shape (Q, F), floating
    spool : Spool
        Rows to search among.
    query_ids : ndarray of int64, shape (Q,)
        Row number of each query, which is left out, or -1.
    k : int
    space : Space
        With the metric.
    folder : Path
        Where workers find the queries.
    leave_out : ndarray of int64, optional
        Rows that are nobody's neighbor.

    Returns
    -------
    distances : ndarray of float64, shape (Q, k)
    ids : ndarray of int64, shape (Q, k)
        As an exact search over all rows at once.
    """
    np.save(folder / "truth_queries.npy", queries)
    np.save(folder / "truth_ids.npy", query_ids)
    np.save(folder / "truth_without.npy", [] if leave_out is None else leave_out)
    tasks = [
        (spool, folder, part.start, part.stop, k, space)
        for part in parts(*spool.shape, entries=_TASK)
    ]
    best = nothing_found(len(queries), k)
    for _, found in run_shared(_in_block, tasks, name="exact truth"):
        best = merge_nearest(best, found, k=k)
    return best


def _in_block(
    spool: Spool, folder: Path, start: int, stop: int, k: int, space: Space
) -> tuple[Float64s, Ids]:
    rows = spool.block(start, stop)
    without = np.load(folder / "truth_without.npy").astype(np.int64)
    here = without[(without >= start) & (without < stop)]
    rows[here - start] = np.nan
    query_ids = np.load(folder / "truth_ids.npy")
    near, ids = search_subset(
        np.load(folder / "truth_queries.npy"),
        rows,
        query_places=np.where(
            (query_ids >= start) & (query_ids < stop), query_ids - start, -1
        ),
        k=k,
        space=space,
    )
    return near, np.where(ids >= 0, ids + start, -1)
