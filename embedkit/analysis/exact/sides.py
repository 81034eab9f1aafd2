"""The two sides of an exact search: rows looked at, left out, and prepared in float32."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from embedkit.analysis.exact.score_bounds import MOST_LENGTH, scale_exponent, squares
from embedkit.analysis.exact.search_rows import (
    Side,
    Survey,
    crowds,
    joined,
    prepare,
    survey,
)
from embedkit.analysis.exact.tile_tasks import Search, save
from embedkit.analysis.pair_distances import Metric, lift
from embedkit.analysis.spool import Spool
from embedkit.errors import InputError
from embedkit.planning.neighbors import NeighborsPlan
from embedkit.tasks import run_tasks

Ids: TypeAlias = npt.NDArray[np.int64]

_SAMPLE = 2**21  # float64 entries of the rows around whose mean all are shifted: 16 MiB
_FAR = 3.0  # times the median distance: a row beyond has no say in that mean (chosen)


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
        (spool, start, min(start + height, spool.shape[0]))
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
    exponent = 0
    if metric != "cosine":
        _check_length(known, rows.shape[1], "row")
        _check_length(asked, rows.shape[1], "query")
        peak = max(known.survey.peak, asked.survey.peak)
        exponent = scale_exponent(peak, rows.shape[1])
    center = np.zeros(rows.shape[1])
    if metric != "inner_product":
        center = _center(rows, known.kept, metric=metric, exponent=exponent)
    save(folder / "center.npy", center)
    save(folder / "zeros.npy", known.zeros[:most])  # all at one distance of all rows
    save(folder / "base-kept.npy", known.kept)
    base = Side(rows, str(folder), "base", len(known.kept), metric, exponent)
    if queries is None:
        return base, base
    save(folder / "ask-kept.npy", asked.kept)
    ask = Side(queries, str(folder), "ask", len(asked.kept), metric, exponent)
    return ask, base


def _check_length(known: Known, features: int, what: str) -> None:
    """Raise where distances may not fit into float64, from which ranking them would fail."""
    if known.survey.peak * math.sqrt(features) > MOST_LENGTH:
        raise InputError(
            f"neighbors got {what} {known.survey.longest} with an entry of magnitude "
            f"{known.survey.peak:.3g}, so that distances to it may not fit into float64: "
            "divide all rows by one number, or leave that one out"
        )


def _center(
    spool: Spool, kept: Ids, *, metric: Metric, exponent: int
) -> npt.NDArray[np.float64]:
    """Return about the mean of the rows, which one of extreme length does not move.

    Any center is right. Rounding errors grow with the distance from it.

    Parameters
    ----------
    spool : Spool
        Shape (N, F).
    kept : ndarray of int64
        Rows to look at, some of which are drawn.
    metric : {"euclidean", "cosine"}
    exponent : int
        Rows are scaled by two to this power.

    Returns
    -------
    ndarray of float64, shape (F,)
    """
    if not len(kept):
        return np.zeros(spool.shape[1])
    count = min(len(kept), max(16, _SAMPLE // spool.shape[1]))
    drawn = np.random.default_rng(0).choice(len(kept), count, replace=False)
    rows = lift(spool.take(np.sort(kept[drawn])), metric)
    np.ldexp(rows, exponent, out=rows)
    away = squares(rows - np.median(rows, axis=0))  # (count,)
    near = away <= _FAR**2 * np.median(away)
    return np.asarray(rows[near].mean(axis=0))


def prepared(todo: Search) -> None:
    """Write the float32 rows of both sides, unless that was done.

    Parameters
    ----------
    todo : Search
    """
    for side in {todo.ask.name: todo.ask, todo.base.name: todo.base}.values():
        ready = todo.path(f"{side.name}-sizes.npy")
        if ready.exists():
            continue
        width = (side.spool.shape[1] + 2) * 4
        # Not "wb": the same call in another process may have written rows already.
        with side.path.open("ab") as file:
            file.truncate(side.size * width)
        calls = [
            (side, start, min(start + todo.band, side.size))
            for start in range(0, side.size, todo.band)
        ]
        found = np.empty(side.size)
        for arguments, part in run_tasks(prepare, calls, name="prepare_rows"):
            found[arguments[1] : arguments[2]] = part
        save(ready, found)
