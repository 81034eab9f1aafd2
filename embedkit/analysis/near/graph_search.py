"""Approximate neighbors by a graph grown in one process, measured and put right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.analysis.faiss_adapter import Float32s
from embedkit.analysis.ivf_space import Space, parts
from embedkit.analysis.merge import Float64s, Ids, nothing_found
from embedkit.analysis.near.begin import Begun
from embedkit.analysis.near.found import Aim, Found, check_reached
from embedkit.analysis.near.graph_points import points_of
from embedkit.analysis.recall import found_shares
from embedkit.analysis.share import run_shared
from embedkit.analysis.spool import Spool
from embedkit.analysis.subset_search import ranked
from embedkit.analysis.truth import Truth
from embedkit.planning.near import graph_widths
from embedkit.tasks import run_tasks

_TASK = 2**22  # entries of the queries that one task measures again: 16 MiB of float32

_NEAR = 1 + 2.0**-10
"""Points this much further than the last neighbor, in float32, are measured again, too: a
sum of squared differences is off by far less."""


_ALIKE = -2
"""Instead of a point: a row at one distance of everything."""


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A search, small enough to be sent with every task."""

    spool: Spool
    space: Space
    folder: Path
    k: int

    def opened(self, name: str) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        return found


def by_graph(
    database: Spool, aim: Aim, *, begun: Begun, threads: int, folder: Path
) -> Found:
    """Find near neighbors of every row through neighbors of neighbors.

    One task grows the graph in memory; tasks measure what it found in float64. Sampled
    rows measure the recall. Where that is too little, the graph grows wider, and other
    rows measure it.

    Parameters
    ----------
    database : Spool
        Rows on disk, shape (N, F).
    aim : Aim
        What is to be found; not by inner products.
    begun : Begun
        Space and sampled rows.
    threads : int
        For the task that grows the graph.
    folder : Path
        Where workers find what is too large to send.

    Returns
    -------
    Found
        Nothing is certified: the graph proves nothing.

    Raises
    ------
    RecallNotReached
        When the widest graph did not find enough.
    """
    rows = np.flatnonzero(begun.usable)
    np.save(folder / "listed.npy", begun.listed)
    np.save(folder / "alike.npy", np.flatnonzero(begun.null))
    np.save(folder / "first.npy", rows[: aim.k + 1])
    job = _Job(database, begun.space, folder, aim.k)
    rng = np.random.default_rng((aim.seed, 2))
    check: Truth | None = begun.check
    for width in graph_widths(aim.k):
        near, ids = _answers(job, width=width, seed=aim.seed, threads=threads)
        check = check or begun.truths.draw(1, recall=aim.recall, rng=rng)[0]
        measured = begun.truths.estimate(found_shares(ids[check.rows], check.ids))
        if measured.low >= aim.recall:
            break
        check = None  # what has made a graph grow does not judge the next one
    nothing_proven = np.zeros(len(begun.usable), bool)
    found = Found(near, ids, nothing_proven, measured, {"graph_width": width})
    return check_reached(found, aim.recall, told=f"a graph of {width} neighbors")


def _answers(job: _Job, *, width: int, seed: int, threads: int) -> tuple[Float64s, Ids]:
    """Grow a graph and measure what it found; rows that are not finite find nothing."""
    near, ids = nothing_found(job.spool.shape[0], job.k)
    for _ in run_tasks(_grow, [(job, width, seed, threads)], name="neighbor graph"):
        pass
    cuts = [
        (job, part.start, part.stop) for part in parts(*job.spool.shape, entries=_TASK)
    ]
    for (_, start, stop), found in run_shared(_measured, cuts, name="measure"):
        near[start:stop], ids[start:stop] = found
    return near, ids


def _grow(job: _Job, width: int, seed: int, threads: int) -> None:
    """Write the graph: for each point others and their distances, and its rows."""
    # Imported here: it compiles for seconds, where the task runs.
    from embedkit.analysis.pynndescent_adapter import descend

    rows = np.array(job.opened("listed"))
    points = points_of(job.spool, rows, space=job.space, k=job.k)
    count = len(points.values)
    if count > width + 1:
        graph = descend(points.values, width=width, seed=seed, threads=threads)
    else:
        graph = _all_pairs(points.values)
    of_row = np.full(job.spool.shape[0], -1, np.int64)
    of_row[rows] = points.of_row
    of_row[job.opened("alike")] = _ALIKE
    for name, value in (
        ("graph", graph[0]),
        ("graph_distances", graph[1]),
        ("members", points.members),
        ("of_row", of_row),
    ):
        np.save(job.folder / f"{name}.npy", value)


def _all_pairs(points: Float32s) -> tuple[Ids, Float32s]:
    """Return the graph of so few points that everyone is a neighbor."""
    gap = points[:, None] - points[None]  # (P, P, F)
    distances = np.sqrt(np.einsum("pqf,pqf->pq", gap, gap))
    np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, axis=1, kind="stable")[:, :-1]
    return order.astype(np.int64), np.take_along_axis(distances, order, axis=1)


def _measured(job: _Job, start: int, stop: int) -> tuple[Float64s, Ids]:
    """Measure the candidates of some rows in float64, and order them."""
    numbers = np.arange(start, stop)
    queries, rows = job.spool.block(start, stop), job.spool.rows
    near, ids = nothing_found(len(numbers), job.k)
    for some, wanted in _wanted(job, start, stop):
        wanted = np.where(wanted == numbers[some, None], -1, wanted)
        near[some], ids[some] = ranked(
            queries[some],
            lambda at: rows[at],
            wanted,
            k=job.k,
            metric=job.space.metric,
        )
    return near, ids


def _wanted(job: _Job, start: int, stop: int) -> Iterator[tuple[Ids, Ids]]:
    """Yield places among the rows `start` to `stop`, and the candidates of each."""
    of_row = np.array(job.opened("of_row")[start:stop])
    alike, listed = np.flatnonzero(of_row == _ALIKE), np.flatnonzero(of_row >= 0)
    first, zeros = job.opened("first"), job.opened("alike")[: job.k + 1]
    yield alike, _each(first, len(alike))
    if not len(listed):
        return
    points = of_row[listed]
    graph = np.column_stack([points, job.opened("graph")[points]])  # (q, 1 + W)
    itself = np.zeros(len(points), np.float32)
    near = np.column_stack([itself, job.opened("graph_distances")[points]])
    rows = np.where(graph[:, :, None] < 0, -1, job.opened("members")[graph])
    near = np.broadcast_to(near[:, :, None], rows.shape)  # (q, 1 + W, m)
    shape = len(points), rows.shape[1] * rows.shape[2]
    cut = _nearest(rows.reshape(shape), near.reshape(shape), job.k)
    yield listed, np.concatenate([cut, _each(zeros, len(listed))], axis=1)


def _each(rows: Ids, count: int) -> Ids:
    return np.broadcast_to(rows, (count, len(rows)))


def _nearest(rows: Ids, near: Float32s, k: int) -> Ids:
    """Keep candidates that may be among the `k` nearest, the query itself besides.

    Parameters
    ----------
    rows : ndarray of int64, shape (q, C)
        Row numbers, -1 for none.
    near : ndarray of float32, shape (q, C)
        Their distances.
    k : int

    Returns
    -------
    ndarray of int64, shape (q, at most C)
    """
    near = np.where(rows < 0, np.inf, near)
    order = np.argsort(near, axis=1, kind="stable")
    rows = np.take_along_axis(rows, order, axis=1)
    near = np.take_along_axis(near, order, axis=1)
    last = near[:, min(k, near.shape[1] - 1)]
    kept = (near <= last[:, None] * _NEAR) & (rows >= 0)
    most = int(kept.sum(axis=1).max(initial=0))
    return np.where(kept, rows, -1)[:, :most]
