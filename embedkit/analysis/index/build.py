"""Making a search index: trained on rows from all over, tuned on rows left out of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.analysis import faiss_adapter
from embedkit.analysis.index.bytes import with_bytes
from embedkit.analysis.index.choice import Choice, is_small
from embedkit.analysis.index.plan import SETS, n_aside, n_sample
from embedkit.analysis.index.rows import Rows
from embedkit.analysis.index.search import Effort, Searcher
from embedkit.analysis.index.tune import Tuner
from embedkit.analysis.ivf_space import Floats, Space, parts
from embedkit.analysis.ivf_survey import survey
from embedkit.analysis.merge import Float64s, Ids
from embedkit.analysis.pair_distances import Metric
from embedkit.analysis.recall import EXACT, Recall, spread_sample
from embedkit.analysis.share import run_shared
from embedkit.analysis.spool import Spool
from embedkit.analysis.subset_search import search_subset
from embedkit.analysis.truth import true_neighbors
from embedkit.planning.index import QUERY_ENTRIES

_ADD = 2**22  # entries added together
_ASKED = 500  # rows whose neighbors tell how fine bytes have to be
_REACH = 1.5  # room for longer rows that are added later


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A tuned index.

    Attributes
    ----------
    searcher : Searcher
    choice : Choice
        As it was in the end.
    effort : Effort
    recall : Recall
    queries_per_second : float
        Of the last check, NaN where nothing was measured.
    """

    searcher: Searcher
    choice: Choice
    effort: Effort
    recall: Recall
    queries_per_second: float


def make(
    spool: Spool,
    choice: Choice,
    *,
    metric: Metric,
    k: int,
    recall: float,
    seed: int,
    folder: Path,
) -> Made:
    """Make an index over the rows of a file.

    Rows to tune and check on are left out until both are done, so that they are to the
    index what a new image is. Then those that are not checked with are added, the check is
    made again, and what it lost tells what it loses with all rows in.

    Parameters
    ----------
    spool : Spool
    choice : Choice
    metric : {"euclidean", "cosine", "inner_product"}
    k : int
        Neighbors that `recall` is about.
    recall : float
    seed : int
    folder : Path
        For files of this index; all workers reach it.

    Returns
    -------
    Made

    Raises
    ------
    RecallNotReached
        When the most effort leaves the lower end of the interval below `recall`.
    """
    usable, null, space = survey(spool, metric=metric)
    space = replace(space, reach=_REACH * space.reach)
    searcher = Searcher((), space, Rows((spool,)), usable, np.flatnonzero(null))
    rows = np.flatnonzero(usable & ~null)
    if choice.kind == "flat" or is_small(len(rows), of=spool.shape[0]):
        flat = Choice("flat", sharded=False, nbytes=0, shard_rows=spool.shape[0])
        return Made(searcher, flat, Effort(), EXACT, float("nan"))
    rng = np.random.default_rng((seed, 3))
    aside = spread_sample(rows, SETS * n_aside(recall, len(rows)), rng=rng)
    kept = np.setdiff1d(rows, aside)
    near, _ = true_neighbors(
        spool.take(aside),
        spool,
        query_ids=np.full(len(aside), -1),
        k=k,
        space=space,
        folder=folder,
        leave_out=aside,
    )
    sample = _sample(spool, space, choice, kept, seed=seed)
    if choice.kind == "hnsw":
        radii = space.radii(spool.take(aside[:_ASKED]), near[:_ASKED, -1])
        choice = with_bytes(choice, sample, radii, n_rows=len(rows))
    template = _template(sample, choice, seed=seed)
    parts = _filled(spool, space, choice, template, kept, folder)
    searcher = replace(searcher, parts=parts)
    tuner = Tuner(searcher, spool, aside, near, k, recall, _ladder(searcher, choice))
    found = tuner.tuned()
    others = np.setdiff1d(np.arange(len(aside)), found.check)
    searcher = _completed(searcher, spool, aside[others], folder, template)
    sizes = (len(kept), len(kept) + len(others), len(rows))
    truth = _with_more(near, spool.take(aside), others, space)
    found = replace(tuner, searcher=searcher, truth=truth).grown(found, sizes)
    searcher = _completed(searcher, spool, aside[found.check], folder, template)
    return Made(searcher, choice, found.effort, found.recall, found.speed)


def _with_more(near: Float64s, rows: Floats, more: Ids, space: Space) -> Float64s:
    """Return the distances that rows left out have once some of them are in."""
    k, added = near.shape[1], rows[more]
    out = np.empty_like(near)
    for cut in parts(*rows.shape, entries=QUERY_ENTRIES):
        asked, alone = rows[cut], np.full(len(rows[cut]), -1)
        found, _ = search_subset(asked, added, query_places=alone, k=k, space=space)
        out[cut] = np.sort(np.concatenate([near[cut], found], axis=1), axis=1)[:, :k]
    return out


def _sample(
    spool: Spool, space: Space, choice: Choice, rows: Ids, *, seed: int
) -> npt.NDArray[np.float32]:
    """Return points from all over, for what is trained: all kinds but some graphs."""
    rng = np.random.default_rng((seed, 4))
    count = n_sample(choice, spool.shape[1])
    return _points(spool, space, spread_sample(rows, count, rng=rng))


def _template(sample: npt.NDArray[np.float32], choice: Choice, *, seed: int) -> Any:
    """Return an empty index, trained where its kind needs it."""
    if choice.kind == "hnsw":
        known = sample if choice.code_bytes else None
        return faiss_adapter.graph_index(sample.shape[1], sample=known)
    return faiss_adapter.list_index(
        sample,
        kind=choice.kind,
        n_lists=min(choice.n_lists, len(sample)),
        code_bytes=choice.code_bytes,
        seed=seed,
    )


def _points(spool: Spool, space: Space, rows: Ids) -> npt.NDArray[np.float32]:
    cuts = parts(len(rows), spool.shape[1])
    width = len(space.center) + (space.metric == "inner_product")
    found = [space.points(spool.take(rows[cut])).astype(np.float32) for cut in cuts]
    return np.concatenate([np.empty((0, width), np.float32), *found])


def _filled(
    spool: Spool, space: Space, choice: Choice, template: Any, rows: Ids, folder: Path
) -> tuple[Any, ...]:
    """Add rows: to the index itself, or to copies of it in files, one task each."""
    if not choice.sharded:
        add_rows(template, spool, space, rows)
        return (template,)
    faiss_adapter.write(template, folder / "empty.faiss")
    np.save(folder / "kept.npy", rows)
    tasks = [
        (folder, spool, space, start, min(start + choice.shard_rows, len(rows)))
        for start in range(0, len(rows), choice.shard_rows)
    ]
    made = {
        task[3]: path for task, path in run_shared(_shard, tasks, name="fill shards")
    }
    return tuple(made[task[3]] for task in tasks)


def _shard(folder: Path, spool: Spool, space: Space, start: int, stop: int) -> Path:
    """Write the rows `start` to `stop` of those that are kept into a file of their own."""
    rows = np.load(folder / "kept.npy", mmap_mode="r")[start:stop]
    return write_shard(folder, spool, space, np.asarray(rows), name=f"{start:012d}")


def write_shard(
    folder: Path,
    spool: Spool,
    space: Space,
    rows: Ids,
    *,
    name: str,
    first: int = 0,
    template: Path | None = None,
) -> Path:
    """Write an index file over some rows, with the lists that all files share.

    Parameters
    ----------
    folder : Path
        Where the file goes.
    spool : Spool
    space : Space
    rows : ndarray of int64
        Their numbers in `spool`.
    name : str
        Of the file.
    first : int, default 0
        Number that row 0 of `spool` has in the index.
    template : Path, optional
        The trained, empty index; by default ``empty.faiss`` in `folder`.

    Returns
    -------
    Path
    """
    index = faiss_adapter.read(template or folder / "empty.faiss")
    add_rows(index, spool, space, rows, first=first)
    path = folder / f"shard-{name}.faiss"
    faiss_adapter.write(index, path)
    return path


def add_rows(
    index: Any, spool: Spool, space: Space, rows: Ids, *, first: int = 0
) -> None:
    """Add rows of a file under their numbers, plus `first`, some at a time."""
    for cut in parts(len(rows), spool.shape[1], entries=_ADD):
        some = rows[cut]
        faiss_adapter.add(index, _points(spool, space, some), some + first)


def _completed(
    searcher: Searcher, spool: Spool, rows: Ids, folder: Path, template: Any
) -> Searcher:
    """Add rows that were left out."""
    made, space = searcher.parts, searcher.space
    if made and isinstance(made[0], Path):
        path = write_shard(folder, spool, space, rows, name=f"more-{len(made)}")
        return replace(searcher, parts=(*made, path))
    add_rows(template, spool, space, rows)
    return searcher


def _ladder(searcher: Searcher, choice: Choice) -> list[Effort]:
    """Return efforts from least to most."""
    part = searcher.parts[0]
    index = faiss_adapter.read(part, mapped=True) if isinstance(part, Path) else part
    most = faiss_adapter.n_lists(index) or 2048
    least = 1 if choice.kind != "hnsw" else 8
    count = int(np.ceil(np.log(most / least) / np.log(1.08))) + 1
    steps = np.unique(np.round(np.geomspace(least, most, count)).astype(int))
    return [Effort(int(step), _spare(choice, int(step))) for step in steps]


def _spare(choice: Choice, breadth: int) -> int:
    """How many candidates too many: the coarser the rows, the more change places."""
    if choice.kind == "hnsw" and choice.code_bytes:
        return 4 + breadth // 8
    return {"ivf_sq8": 32, "ivf_pq": 256}.get(choice.kind, 2)
