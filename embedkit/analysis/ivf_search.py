"""Approximate neighbors whose recall is measured, through inverted lists on disk."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xarray as xr

from embedkit.analysis.frame import labelled, provenance
from embedkit.analysis.ivf_lists import Lists, make_lists
from embedkit.analysis.ivf_queries import Asked, asked_of
from embedkit.analysis.ivf_tasks import Job, publish, search_rows, search_tile
from embedkit.analysis.ivf_tiles import Tiles, make_tiles
from embedkit.analysis.ivf_tune import Sample, Tuner
from embedkit.analysis.merge import Float64s, Ids, nothing_found
from embedkit.analysis.pair_distances import Metric
from embedkit.analysis.recall import EXACT, Recall, found_shares
from embedkit.analysis.share import run_shared
from embedkit.analysis.spool import Spool, spool
from embedkit.errors import RecallNotReached

_TILE = 2048  # queries per task at most: one crowded list may have any number


def approximate(
    x: xr.DataArray,
    *,
    queries: xr.DataArray | None = None,
    n_neighbors: int,
    metric: Metric,
    recall: float,
    scratch: str | Path | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Find near neighbors of every image with a measured recall.

    Rows are sorted into inverted lists around centroids. Queries of neighboring lists
    search the lists nearest to them together, exactly, so that answers are right by
    (distance, row number) among the rows they saw. How many lists that are is tuned on
    sampled rows with exact truth, and the recall is measured on other rows.

    Parameters
    ----------
    x : DataArray, dims (image, feature), floating
        One row per image, in memory or lazy.
    queries : DataArray, dims (image, feature), floating, optional
        Rows to search for; by default those of `x`, each excluded from its own answer.
    n_neighbors : int
        Neighbors per image.
    metric : {"euclidean", "cosine", "inner_product"}
    recall : float
        Share of the exact neighbors to find, below 1.
    scratch : str or Path, optional
        A folder that all workers reach, with room for the rows. By default a temporary
        folder of this machine.
    seed : int, default 0
        Of the samples.

    Returns
    -------
    Dataset, dims (image, neighbor)
        ``indices`` int64 and ``distances`` float32 as of the exact search, and
        ``certified`` bool (image): no list that was skipped can hold a nearer row.
        Attributes: ``recall`` with its 95 % interval ``recall_low`` to ``recall_high``
        over ``n_truth`` rows, ``nprobe`` of ``nlist`` lists.

    Raises
    ------
    RecallNotReached
        When the lower end of the interval stays below `recall`.

    References
    ----------
    Jégou, Douze, Schmid (2011), Product quantization for nearest neighbor search.
    Clopper, Pearson (1934), The use of confidence or fiducial limits.
    """
    if scratch is not None:
        Path(scratch).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="embedkit-", dir=scratch) as place:
        folder = Path(place)
        database = spool(x, folder / "rows")
        lists = make_lists(database, metric=metric, seed=seed, folder=folder)
        asked = asked_of(database, queries, lists=lists, folder=folder)
        counts = np.bincount(
            asked.of_query[asked.of_query >= 0], minlength=len(lists.centroids)
        )
        tiles = make_tiles(lists.centroids, counts)
        tuner = Tuner(database, asked, lists, tiles, n_neighbors, recall, folder)
        nprobe, check = tuner.tuned(np.random.default_rng((seed, 2)))
        search = _Search(database, asked, lists, tiles, n_neighbors, folder)
        near, ids, certified = search.run(nprobe)
        measured = _measured(tuner, ids, check, certified)
    if measured.low < recall:
        error = RecallNotReached(
            f"neighbors was asked for recall={recall} and reached {measured} (95 % of "
            f"{measured.n_rows} rows) with {nprobe} of {len(lists.centroids)} lists; "
            "ask for less, or for recall=1.0, which is exact."
        )
        error.recall = (measured.value, measured.low, measured.high)
        raise error
    return _as_dataset(
        x if queries is None else queries,
        near,
        ids,
        certified,
        attrs=provenance(
            x,
            n_neighbors=n_neighbors,
            metric=metric,
            exact=False,
            recall_asked=recall,
            **measured.attrs(),
            nprobe=nprobe,
            nlist=len(lists.centroids),
            seed=seed,
        ),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    database: Spool
    asked: Asked
    lists: Lists
    tiles: Tiles
    k: int
    folder: Path

    def run(self, nprobe: int) -> tuple[Float64s, Ids, npt.NDArray[np.bool_]]:
        """Search all tiles, as tasks; join the answers by row."""
        of_query = self.asked.of_query
        near, ids = nothing_found(len(of_query), self.k)
        certified = np.ones(len(of_query), bool)
        wanted = np.setdiff1d(self.asked.usable, np.flatnonzero(self.asked.alike))
        tile = self.tiles.of_list[of_query[wanted]]
        order = wanted[np.argsort(tile, kind="stable")]
        publish(self.lists, self.tiles.ranks, of_query, order, self.folder)
        job = self._job(nprobe)
        cuts = np.searchsorted(np.sort(tile), np.arange(len(self.tiles.ranks) + 1))
        tasks = [
            (job, number, start, min(start + _TILE, int(cuts[number + 1])))
            for number in range(len(self.tiles.ranks))
            for start in range(int(cuts[number]), int(cuts[number + 1]), _TILE)
        ]
        for task, found in run_shared(search_tile, tasks, name="search lists"):
            rows = order[task[2] : task[3]]
            near[rows], ids[rows], certified[rows] = found
        alike = np.flatnonzero(self.asked.alike)
        near[alike], ids[alike] = self._alike(job, alike)
        return near, ids, certified

    def _alike(self, job: Job, rows: Ids) -> tuple[Float64s, Ids]:
        """Answer queries at one distance of everything: the first rows are their own."""
        if not len(rows):
            return nothing_found(0, self.k)
        first = self.lists.usable[: self.k + 1]
        queries = self.asked.rows.take(rows)
        return search_rows(job, queries, rows if self.asked.itself else None, first)

    def _job(self, nprobe: int) -> Job:
        return Job(
            database=self.database,
            queries=self.asked.rows,
            itself=self.asked.itself,
            space=self.lists.space,
            folder=self.folder,
            k=self.k,
            nprobe=nprobe,
            zeros=self.lists.zeros[: self.k + 1],
        )


def _measured(
    tuner: Tuner, ids: Ids, check: Sample, certified: npt.NDArray[np.bool_]
) -> Recall:
    """Compare the answers with the truth on the rows that tuning did not use."""
    if certified.all():
        return EXACT
    return tuner.estimate(found_shares(ids[check.rows], check.truth))


def _as_dataset(
    like: xr.DataArray,
    near: Float64s,
    ids: Ids,
    certified: npt.NDArray[np.bool_],
    *,
    attrs: dict[str, object],
) -> xr.Dataset:
    with np.errstate(over="ignore"):  # beyond 3e38 a float32 distance is infinite
        distances = near.astype(np.float32)
    return labelled(
        like,
        {
            "indices": (("image", "neighbor"), ids),
            "distances": (("image", "neighbor"), distances),
            "certified": (("image",), certified),
        },
        attrs=attrs,
    )
