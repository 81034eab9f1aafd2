"""Neighbors through inverted lists on disk: the nearest lists of every query, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xarray as xr

from embedkit.analysis.merge import Float64s, Ids, nothing_found
from embedkit.analysis.near.begin import Begun
from embedkit.analysis.near.found import Aim, Found, check_reached
from embedkit.analysis.near.ivf_lists import Lists, make_lists
from embedkit.analysis.near.ivf_queries import Asked, asked_of
from embedkit.analysis.near.ivf_tasks import Job, publish, search_rows, search_tile
from embedkit.analysis.near.ivf_tiles import Tiles, make_tiles, probed_rows
from embedkit.analysis.near.ivf_tune import Sample, Tuner
from embedkit.analysis.recall import EXACT, found_shares
from embedkit.analysis.share import run_shared
from embedkit.analysis.spool import Spool
from embedkit.analysis.truth import Truths

_TILE = 2048  # queries per task at most: one crowded list may have any number


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """Inverted lists, and how many of them a query has to search. Made by `tune_lists`.

    Attributes
    ----------
    search : Search
    truths : Truths
        Of the queries.
    check : Sample
        Queries that the choice was not made with.
    nprobe : int
        Lists to search.
    """

    search: Search
    truths: Truths
    check: Sample
    nprobe: int

    @property
    def tiles(self) -> list[tuple[int, int]]:
        """Queries and rows read, of each tile."""
        search = self.search
        queries = np.bincount(
            search.tiles.of_list[search.asked.of_query[search.wanted]],
            minlength=len(search.tiles.ranks),
        )
        read = probed_rows(search.tiles, search.lists.sizes, nprobe=self.nprobe)
        return list(zip(queries.tolist(), read.tolist(), strict=True))

    def found(self, recall: float) -> Found:
        """Search.

        Parameters
        ----------
        recall : float
            Share of the exact neighbors to find.

        Raises
        ------
        RecallNotReached
            When the check says less.
        """
        near, ids, certified = self.search.run(self.nprobe)
        truth, lists = self.check.truth, len(self.search.lists.centroids)
        shares = found_shares(ids[truth.rows], truth.ids)
        found = Found(
            near,
            ids,
            certified,
            EXACT if certified.all() else self.truths.estimate(shares),
            {"nprobe": self.nprobe, "nlist": lists},
        )
        return check_reached(found, recall, told=f"{self.nprobe} of {lists} lists")


def tune_lists(
    database: Spool,
    queries: xr.DataArray | None,
    aim: Aim,
    *,
    begun: Begun | None = None,
    folder: Path,
) -> Tuned:
    """Sort rows into inverted lists, and find how many lists a recall takes.

    Queries of neighboring lists search the lists nearest to them together, exactly, so
    that answers are right by (distance, row number) among the rows they saw.

    Parameters
    ----------
    database : Spool
        Rows on disk, shape (N, F).
    queries : DataArray, dims (image, feature), optional
        Rows to search for; by default those of the database.
    aim : Aim
        What is to be found.
    begun : Begun, optional
        Of the rows of the database: the check is one that is known already.
    folder : Path
        Where workers find what is too large to send.

    References
    ----------
    Jégou, Douze, Schmid (2011), Product quantization for nearest neighbor search.
    """
    lists = make_lists(database, metric=aim.metric, seed=aim.seed, folder=folder)
    asked = asked_of(database, queries, lists=lists, folder=folder)
    counts = np.bincount(
        asked.of_query[asked.of_query >= 0], minlength=len(lists.centroids)
    )
    tiles = make_tiles(lists.centroids, counts)
    if begun is not None:
        truths = begun.truths
    else:
        truths = Truths(
            asked.rows,
            database,
            itself=asked.itself,
            k=aim.k,
            space=lists.space,
            rows=asked.usable,
            folder=folder,
        )
    tuner = Tuner(truths, asked, lists, tiles, aim.recall)
    rng = np.random.default_rng((aim.seed, 2))
    nprobe, check = tuner.tuned(rng, check=None if begun is None else begun.check)
    return Tuned(
        Search(database, asked, lists, tiles, aim.k, folder), truths, check, nprobe
    )


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """A search through lists, ready to run."""

    database: Spool
    asked: Asked
    lists: Lists
    tiles: Tiles
    k: int
    folder: Path

    @property
    def wanted(self) -> Ids:
        """The queries that search lists."""
        return np.setdiff1d(self.asked.usable, np.flatnonzero(self.asked.alike))

    def run(self, nprobe: int) -> tuple[Float64s, Ids, npt.NDArray[np.bool_]]:
        """Search all tiles, as tasks; join the answers by row."""
        of_query = self.asked.of_query
        near, ids = nothing_found(len(of_query), self.k)
        certified = np.ones(len(of_query), bool)
        wanted = self.wanted
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
