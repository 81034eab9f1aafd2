"""The two sides of an exact search: rows looked at, left out, and prepared in float32."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from embedkit.analysis.pair_distances import Metric
from embedkit.analysis.score_bounds import scale_exponent
from embedkit.analysis.search_rows import (
    Side,
    Survey,
    crowds,
    joined,
    loaded,
    prepare,
    survey,
)
from embedkit.analysis.spool import Spool
from embedkit.analysis.tile_tasks import Search, save
from embedkit.planning.neighbors import NeighborsPlan
from embedkit.tasks import run_tasks

Ids: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Known:
    """What the survey says of the rows of one side.

    Attributes
    ----------
    survey : Survey
    kept : ndarray of int64
        Rows that take part in products.
    dropped : ndarray of int64, shape (D,)
        Copies of a row that has enough of them already.
    first : ndarray of int64, shape (D,)
        The row that each dropped one equals.
    zeros : ndarray of int64
        All-zero rows under cosine.
    """

    survey: Survey
    kept: Ids
    dropped: Ids
    first: Ids
    zeros: Ids


def surveyed(spool: Spool, *, metric: Metric, plan: NeighborsPlan, most: int) -> Known:
    """Look at all rows, in tasks, and choose which take part in products.

    Parameters
    ----------
    spool : Spool
        Rows on disk, shape (N, F).
    metric : {"euclidean", "cosine", "inner_product"}
    plan : NeighborsPlan
        How many rows a task reads.
    most : int
        Copies of a row to keep.

    Returns
    -------
    Known
    """
    height = plan.band_rows
    parts: dict[int, Survey] = {}
    calls = [
        (spool, start, min(start + height, spool.shape[0]), metric)
        for start in range(0, spool.shape[0], height)
    ]
    for arguments, part in run_tasks(survey, calls, name="survey_rows"):
        parts[arguments[1]] = part
    found = joined([parts[start] for start in sorted(parts)])
    rows = np.flatnonzero(found.usable & ~(found.zero & (metric == "cosine")))
    zeros = np.flatnonzero(found.zero & (metric == "cosine"))
    dropped, first = crowds(spool, rows, found.prints[rows], most=most)
    kept = np.setdiff1d(rows, dropped, assume_unique=True)
    return Known(found, kept, dropped, first, zeros)


def sides(
    rows: Spool,
    queries: Spool | None,
    *,
    known: Known,
    asked: Known,
    metric: Metric,
    folder: Path,
    most: int,
) -> tuple[Side, Side]:
    """Save what tasks need of both sides, and return them.

    Parameters
    ----------
    rows : Spool
        Rows to search among, shape (N, F).
    queries : Spool, optional
        Rows to search for; else `rows`.
    known, asked : Known
        Of `rows` and of the queries.
    metric : {"euclidean", "cosine", "inner_product"}
    folder : Path
        Where tasks find the files.
    most : int
        Zero rows that a search can need.

    Returns
    -------
    ask, base : Side
        One and the same where there are no queries.
    """
    exponent, features = 0, rows.shape[1]
    if metric != "cosine":
        peak = max(known.survey.peak, asked.survey.peak)
        exponent = scale_exponent(peak, features)
    center = np.zeros(features)
    if metric != "inner_product" and np.isfinite(known.survey.total).all():
        usable = max(1, int(known.survey.usable.sum()))
        center = np.ldexp(known.survey.total / usable, exponent)
    save(folder / "center.npy", center)
    save(folder / "zeros.npy", known.zeros[:most])  # all at one distance of all rows
    save(folder / "base-kept.npy", known.kept)
    base = Side(rows, str(folder), "base", len(known.kept), metric, exponent)
    if queries is None:
        return base, base
    save(folder / "ask-kept.npy", asked.kept)
    ask = Side(queries, str(folder), "ask", len(asked.kept), metric, exponent)
    return ask, base


def prepared(todo: Search) -> float:
    """Write the float32 rows of both sides, unless that was done.

    Parameters
    ----------
    todo : Search

    Returns
    -------
    float
        The largest squared length in the base.
    """
    ready = todo.path("reach.npy")
    if ready.exists():
        return float(loaded(ready))
    reach = 0.0
    for side in {todo.ask.name: todo.ask, todo.base.name: todo.base}.values():
        width = (side.spool.shape[1] + 2) * 4
        # Not "wb": the same call in another process may have written rows already.
        with side.path.open("ab") as file:
            file.truncate(side.size * width)
        calls = [
            (side, start, min(start + todo.band, side.size))
            for start in range(0, side.size, todo.band)
        ]
        found = [each for _, each in run_tasks(prepare, calls, name="prepare_rows")]
        if side == todo.base:
            reach = max(found, default=0.0)
    save(ready, np.array(reach))
    return reach
