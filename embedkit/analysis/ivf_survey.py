"""What all rows of a file say together, read block by block: which can be listed, their space."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from embedkit.analysis.ivf_space import Floats, Space, parts
from embedkit.analysis.merge import Float64s
from embedkit.analysis.pair_distances import Metric
from embedkit.analysis.rows import usable_rows
from embedkit.analysis.share import run_shared
from embedkit.analysis.spool import Spool
from embedkit.planning.index import SURVEY_ENTRIES

_TASK = SURVEY_ENTRIES  # per task: 64 MiB of float32


def survey(spool: Spool, *, metric: Metric) -> tuple[Any, Any, Space]:
    """Read all rows for what the common space needs to know.

    Parameters
    ----------
    spool : Spool
        Rows on disk, shape (N, F).
    metric : {"euclidean", "cosine", "inner_product"}

    Returns
    -------
    usable, null : ndarray of bool, shape (N,)
        Rows that are finite; those that are zero where the metric is the cosine.
    space : Space
    """
    n_rows, features = spool.shape
    usable, null = np.zeros(n_rows, bool), np.zeros(n_rows, bool)
    peak, total, reach = 0.0, np.zeros(features), 0.0
    blank = Space(metric=metric, scale=1.0, center=total, reach=0.0)
    for part, (finite, zero, top) in over_rows(_look, spool, space=blank, name="look"):
        usable[part], null[part], peak = finite, zero, max(peak, top)
    scale = 1.0 if metric == "cosine" or not peak else 2.0 ** np.frexp(peak)[1]
    scaled = Space(metric=metric, scale=scale, center=total, reach=0.0)
    for _, part_sum in over_rows(_sum, spool, space=scaled, name="average"):
        total = total + part_sum
    center = total / max(1, usable.sum())
    space = Space(metric=metric, scale=scale, center=center, reach=0.0)
    if metric == "inner_product":
        for _, top in over_rows(_furthest, spool, space=space, name="reach"):
            reach = max(reach, top)
        space = Space(metric=metric, scale=scale, center=center, reach=reach)
    return usable, null & usable & (metric == "cosine"), space


def over_rows(
    work: Callable[..., Any],
    spool: Spool,
    *,
    space: Space,
    name: str,
    folder: Path | None = None,
) -> Iterable[tuple[slice, Any]]:
    """Run `work` over blocks of rows, in order, so that sums are reproducible.

    Parameters
    ----------
    work : callable
        From pieces of a block (list of ndarrays, shape (n, F)), the space, and centroids
        where there is a folder.
    spool : Spool
    space : Space
    name : str
        Of the tasks.
    folder : Path, optional
        Where ``centroids.npy`` lies, if `work` needs them.

    Returns
    -------
    list of (slice, answer)
    """
    cuts = list(parts(*spool.shape, entries=_TASK))
    tasks = [(work, spool, space, folder, part.start, part.stop) for part in cuts]
    found = {args[4]: got for args, got in run_shared(_one_block, tasks, name=name)}
    return [(part, found[part.start]) for part in cuts]


def _one_block(
    work: Callable[..., Any],
    spool: Spool,
    space: Space,
    folder: Path | None,
    start: int,
    stop: int,
) -> Any:
    """Do one piece of work in pieces that fit the cache, and join the answers."""
    rows = spool.block(start, stop)
    extra = () if folder is None else (np.load(folder / "centroids.npy"),)
    return work([rows[part] for part in parts(*rows.shape)], space, *extra)


def finite_rows(rows: Floats) -> Floats:
    """Put zeros for rows (n, F) that are not finite: they are counted elsewhere."""
    return np.where(usable_rows(rows)[:, None], rows, 0)


def _look(pieces: list[Floats], _: Space) -> tuple[Any, Any, float]:
    finite = [usable_rows(rows) for rows in pieces]
    null = [~rows.any(axis=1) for rows in pieces]
    peak = max(float(np.abs(finite_rows(rows)).max(initial=0)) for rows in pieces)
    return np.concatenate(finite), np.concatenate(null), peak


def _sum(pieces: list[Floats], space: Space) -> Float64s:
    total = np.zeros(pieces[0].shape[1])
    for rows in pieces:
        total += space.raw(finite_rows(rows)).sum(axis=0)
    return total


def _furthest(pieces: list[Floats], space: Space) -> float:
    squares = []
    for rows in pieces:
        gap = space.raw(rows[usable_rows(rows)]) - space.center
        squares.append(np.einsum("nf,nf->n", gap, gap).max(initial=0))
    return float(np.sqrt(max(squares)))
