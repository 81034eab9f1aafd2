"""Many queries to a search index: batches as tasks where there is a cluster."""

from __future__ import annotations

import pickle
import uuid
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from embedkit.analysis import faiss_adapter
from embedkit.analysis.index.search import Effort, Searcher
from embedkit.analysis.ivf_space import Floats
from embedkit.analysis.merge import Float64s, Ids, nothing_found
from embedkit.analysis.share import run_shared
from embedkit.workers import active_client

MANY = 2**15
"""Queries from which sending the index to workers pays (chosen)."""

_BATCH = 4096


def search_many(
    searcher: Searcher,
    queries: Floats,
    query_ids: Ids,
    *,
    k: int,
    effort: Effort,
    home: Path,
) -> tuple[Float64s, Ids]:
    """Answer queries here, or many of them on the workers of the active cluster.

    Parameters
    ----------
    searcher : Searcher
    queries : ndarray, shape (Q, F), floating
    query_ids : ndarray of int64, shape (Q,)
    k : int
    effort : Effort
    home : Path
        A folder that all workers reach.

    Returns
    -------
    distances : ndarray of float64, shape (Q, k)
    ids : ndarray of int64, shape (Q, k)
        As of `Searcher.answer`; workers change nothing but the time.
    """
    if len(queries) < MANY or active_client() is None:
        return searcher.answer(queries, query_ids, k=k, effort=effort)
    folder = home / f"search-{uuid.uuid4().hex}"
    folder.mkdir()
    parts = tuple(_as_file(part, folder, i) for i, part in enumerate(searcher.parts))
    (folder / "searcher").write_bytes(
        pickle.dumps(replace(searcher, parts=parts, threads=1))
    )
    np.save(folder / "queries.npy", queries)
    np.save(folder / "ids.npy", query_ids)
    near, ids = nothing_found(len(queries), k)
    tasks = [(folder, at, k, effort) for at in range(0, len(queries), _BATCH)]
    for (_, at, *_), found in run_shared(_answer, tasks, name="search"):
        near[at : at + _BATCH], ids[at : at + _BATCH] = found
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    return near, ids


def _as_file(part: object, folder: Path, number: int) -> Path:
    if isinstance(part, Path):
        return part
    path = folder / f"part-{number}.faiss"
    faiss_adapter.write(part, path)
    return path


def _answer(folder: Path, start: int, k: int, effort: Effort) -> tuple[Float64s, Ids]:
    """Answer one batch, a task."""
    part = slice(start, start + _BATCH)
    queries = np.array(np.load(folder / "queries.npy", mmap_mode="r")[part])
    ids = np.array(np.load(folder / "ids.npy", mmap_mode="r")[part])
    return _searcher(folder).answer(queries, ids, k=k, effort=effort)


@lru_cache(maxsize=1)
def _searcher(folder: Path) -> Searcher:
    found: Searcher = pickle.loads((folder / "searcher").read_bytes())
    return found
