"""Exact nearest rows: products in float32 propose, float64 decides, a bound is the proof.

Every row first gets a lower bound of the score of its neighbors, from a sample. Each pair
of tiles is then multiplied once, for both of its directions, and whatever reaches a bound
becomes a candidate: what does not is proved to be no neighbor (`score_bounds`). Candidates
are measured in float64. Rows with more candidates than float32 can tell apart are searched
again with products in float64, and what these leave open is measured directly.

The result is a function of each pair of rows alone, hence of nothing else: not of the
tiles, the order of summation in BLAS, the workers, or the rows around.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from embedkit.analysis.exact.ranking import (
    copies_of,
    near_dtype,
    nothing,
    self_distances,
)
from embedkit.analysis.exact.score_bounds import lowered
from embedkit.analysis.exact.scratch import KEPT
from embedkit.analysis.exact.search_rows import Side, loaded
from embedkit.analysis.exact.sides import Known, prepared, sides, surveyed
from embedkit.analysis.exact.tile_tasks import (
    Search,
    bound_band,
    finish_band,
    pair_bands,
    save,
    search_again,
    search_band,
)
from embedkit.analysis.pair_distances import Metric
from embedkit.analysis.spool import Spool
from embedkit.planning.neighbors import NeighborsPlan
from embedkit.tasks import run_tasks

Ids: TypeAlias = npt.NDArray[np.int64]

_AGAIN = 256  # rows of a task that searches in float64
_PREPARED = "base-sizes.npy"  # is there until all rows are finished


def search(
    rows: Spool,
    *,
    queries: Spool | None,
    k: int,
    metric: Metric,
    plan: NeighborsPlan,
    folder: Path,
) -> npt.NDArray[Any]:
    """Find the `k` nearest rows of every row, or of every query.

    Parameters
    ----------
    rows : Spool
        Rows to search among, shape (N, F). One with a NaN or an infinity is nobody's
        neighbor and has none.
    queries : Spool, optional
        Rows to search for, (Q, F); else every row, among all others.
    k : int
        Neighbors.
    metric : {"euclidean", "cosine", "inner_product"}
        As in `pair_distances`.
    plan : NeighborsPlan
        Tiles.
    folder : Path
        Files of this search and of no other. What is finished there is not done again.

    Returns
    -------
    ndarray of `near_dtype`, shape (N,) or (Q,)
        Ascending by (distance, row number).
    """
    folder.mkdir(parents=True, exist_ok=True)
    alone = queries is None
    known = surveyed(rows, metric=metric, plan=plan, most=k + 1)
    asked = known
    if queries is not None:
        asked = surveyed(queries, metric=metric, plan=plan, most=1)
    made = sides(rows, queries, known=known, asked=asked, metric=metric,
                 folder=folder, most=k + 1)  # fmt: skip
    todo = Search(*made, alone=alone, k=k, tile=plan.tile_rows,
                  band=plan.band_rows, slots=plan.on_machine)  # fmt: skip
    bands = -(-todo.ask.size // todo.band)
    near = [f"near-{band}.npy" for band in range(bands)]
    if _has(folder, _PREPARED) or not all(_has(folder, name) for name in near):
        prepared(todo)
        if alone:
            _pair_all(todo, bands, plan)
        else:
            _run(search_band, ((todo, band) for band in range(bands)), near, folder)
    done = _gathered(todo, near)
    _again(todo, done)
    _tidy(folder)
    return _whole(todo, done, known, asked)


def _pair_all(todo: Search, bands: int, plan: NeighborsPlan) -> None:
    """Bound all rows, multiply all pairs of bands, rank what came out."""
    folder = todo.path("")
    sample = _sampled(todo, plan.sample_rows)
    cuts = [f"cut-{band}.npy" for band in range(bands)]
    _run(bound_band, ((todo, band, sample) for band in range(bands)), cuts, folder)
    pairs = [
        (todo, first, second)
        for first in range(bands)
        for second in range(first, bands)
        if not _paired(folder, first, second)
    ]
    for _ in run_tasks(pair_bands, pairs, name="multiply_pairs"):
        pass
    left = [band for band in range(bands) if not _has(folder, f"near-{band}.npy")]
    calls = [(todo, band, bands) for band in left]
    for arguments, _ in run_tasks(finish_band, calls, name="rank_candidates"):
        for other in range(bands):
            (folder / f"hits-{arguments[1]}-{other}.npy").unlink(missing_ok=True)


def _paired(folder: Path, first: int, second: int) -> bool:
    """Tell whether what a pair finds is there, or not needed any more."""
    return all(
        _has(folder, f"near-{one}.npy") or _has(folder, f"hits-{one}-{other}.npy")
        for one, other in ((first, second), (second, first))
    )


def _has(folder: Path, name: str) -> bool:
    return (folder / name).exists()


def _sampled(todo: Search, size: int) -> Side:
    """Save some prepared rows as a side of their own, the same ones in every run.

    Lowered: their scores prove how near rows are.
    """
    sample = replace(todo.base, name="sample", size=min(size, todo.base.size))
    rng = np.random.default_rng(0)
    places = np.sort(rng.choice(todo.base.size, sample.size, replace=False))
    width = todo.base.spool.shape[1] + 2
    rows = np.memmap(
        todo.base.path, np.float32, mode="r", shape=(todo.base.size, width)
    )
    with sample.path.open("wb") as file:
        for start in range(0, len(places), 4096):
            some = rows[places[start : start + 4096]]
            file.write(lowered(some, todo.base.metric, "f4").data)
    return sample


def _run(
    task: Callable[..., Any],
    calls: Iterable[tuple[Any, ...]],
    names: list[str],
    folder: Path,
) -> None:
    """Run the tasks whose files are not there yet."""
    missing = (
        call for call, name in zip(calls, names, strict=True) if not _has(folder, name)
    )
    for _ in run_tasks(task, missing, name=task.__name__):
        pass


def _gathered(todo: Search, names: list[str]) -> npt.NDArray[Any]:
    """Read finished rows, in the order of the files."""
    parts = [loaded(todo.path(name)) for name in names]
    return np.concatenate([np.empty(0, near_dtype(todo.k)), *parts])


def _again(todo: Search, done: npt.NDArray[Any]) -> None:
    """Search in float64 for the rows that float32 left open, and fill them in."""
    left = np.flatnonzero(~done["sure"])
    starts = range(0, len(left), _AGAIN)
    names = [f"again-{start}.npy" for start in starts]
    save(todo.path("open.npy"), left)
    calls = ((todo, start, min(start + _AGAIN, len(left))) for start in starts)
    _run(search_again, calls, names, todo.path(""))
    done[left] = _gathered(todo, names)


def _tidy(folder: Path) -> None:
    """Leave the finished rows alone: the first to go says that they all are there."""
    (folder / _PREPARED).unlink(missing_ok=True)
    for each in folder.iterdir():
        if each.name not in KEPT and not each.name.startswith(("near-", "again-")):
            each.unlink(missing_ok=True)


def _whole(
    todo: Search, done: npt.NDArray[Any], known: Known, asked: Known
) -> npt.NDArray[Any]:
    """Return every row, also those that took no part in products."""
    out = nothing(len(asked.survey.usable), todo.k)
    out[asked.kept] = done
    if len(asked.zeros):
        out[asked.zeros] = _of_zeros(todo, asked.zeros, known.survey.usable)
    like = out[asked.first]
    if todo.alone and len(like):
        itself = self_distances(todo.ask.spool, asked.first, todo.ask.metric)
        like = copies_of(like, ids=asked.first, itself=itself)
    out[asked.dropped] = like
    return out


def _of_zeros(
    todo: Search, zeros: Ids, usable: npt.NDArray[np.bool_]
) -> npt.NDArray[Any]:
    """Return the neighbors of zero rows under cosine: the first rows, all at 1."""
    out = nothing(len(zeros), todo.k)
    first = np.flatnonzero(usable)[: todo.need]
    ids = np.broadcast_to(first, (len(zeros), len(first)))
    if todo.alone:  # itself goes, else the last one
        itself = np.argsort(ids == zeros[:, None], axis=1, kind="stable")[:, :-1]
        ids = np.take_along_axis(ids, itself, axis=1)
    out["ids"][:, : ids.shape[1]] = ids
    out["near"][:, : ids.shape[1]] = 1.0
    out["sure"] = True
    return out
