"""How many inverted lists a recall takes, on sampled queries with exact truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedkit.analysis.ivf_lists import Lists
from embedkit.analysis.ivf_queries import Asked
from embedkit.analysis.ivf_tiles import Tiles
from embedkit.analysis.merge import Float64s, Ids
from embedkit.analysis.recall import Recall, estimate, spread_sample
from embedkit.analysis.spool import Spool
from embedkit.analysis.truth import true_neighbors

_TRIES = 4
_MARGIN = 0.997  # level when tuning, so that the check passes at its own


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Exact truth on some queries, and how many lists each true neighbor takes.

    Attributes
    ----------
    rows : ndarray of int64, shape (n,)
        Numbers of the queries.
    truth : ndarray of int64, shape (n, k)
        Their exact neighbors, -1 for none.
    needed : ndarray of int64, shape (n, k)
        Lists that are nearer than the one of the neighbor, -1 for none.
    """

    rows: Ids
    truth: Ids
    needed: Ids

    def shares(self, nprobe: int) -> Float64s:
        """Return the share of neighbors in the nearest `nprobe` lists, shape (n,)."""
        wanted = (self.truth >= 0).sum(axis=1)
        hit = ((self.needed < nprobe) & (self.truth >= 0)).sum(axis=1)
        return np.where(wanted > 0, hit / np.maximum(wanted, 1), 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Tuner:
    """Finds the fewest lists that reach a recall.

    Attributes
    ----------
    database : Spool
        Rows to search among, shape (N, F).
    asked : Asked
    lists : Lists
    tiles : Tiles
    k : int
    recall : float
    folder : Path
        Where workers find queries.
    """

    database: Spool
    asked: Asked
    lists: Lists
    tiles: Tiles
    k: int
    recall: float
    folder: Path

    @property
    def most(self) -> int:
        """Lists to probe so that every tile reads every row."""
        return int(self.tiles.ranks.max(initial=0)) + 1

    def tuned(self, rng: np.random.Generator) -> tuple[int, Sample]:
        """Return how many lists to probe, and rows to check it on that were not used."""
        every = self.most
        count = _truth_rows(self.recall)
        left, known = self.asked.usable, list[Sample]()
        for _ in range(_TRIES):
            sample, left = self._sample(left, count, rng)
            if known:
                nprobe = self._fewest(known, every)
                if self.estimate(sample.shares(nprobe)).low >= self.recall:
                    return nprobe, sample
            known.append(sample)
        return every, sample

    def _sample(
        self, rows: Ids, count: int, rng: np.random.Generator
    ) -> tuple[Sample, Ids]:
        """Look up the truth of sampled rows; return also the rows that are left."""
        chosen = spread_sample(rows, count, rng=rng)
        if not len(chosen):  # all are known: check on all of them
            chosen = spread_sample(self.asked.usable, count, rng=rng)
        _, truth = true_neighbors(
            self.asked.rows.take(chosen),
            self.database,
            query_ids=chosen if self.asked.itself else np.full(len(chosen), -1),
            k=self.k,
            space=self.lists.space,
            folder=self.folder,
        )
        tile = self.tiles.of_list[self.asked.of_query[chosen]]  # (n,)
        of_neighbor = self.lists.of_row[truth]  # (n, k)
        needed = self.tiles.ranks[tile[:, None], of_neighbor].astype(np.int64)
        needed[of_neighbor < 0] = 0  # rows that every tile sees
        needed[self.asked.alike[chosen]] = 0
        sample = Sample(chosen, truth, np.where(truth >= 0, needed, -1))
        return sample, np.setdiff1d(rows, chosen)

    def _fewest(self, known: list[Sample], every: int) -> int:
        """Return the fewest lists that leave the check a margin on the known rows."""
        rows = sum(len(each.rows) for each in known)
        # So few rows may not be able to say more: then all they have to be right.
        perfect = self.estimate(np.ones(rows), level=_MARGIN).low
        wanted = min(self.recall, perfect)
        low, high = 1, every
        while low < high:
            middle = (low + high) // 2
            shares = np.concatenate([each.shares(middle) for each in known])
            if self.estimate(shares, level=_MARGIN).low >= wanted:
                high = middle
            else:
                low = middle + 1
        return low

    def estimate(self, shares: Float64s, level: float = 0.95) -> Recall:
        """Return the recall that shares (n,) of a sample stand for."""
        return estimate(shares, population=len(self.asked.usable), level=level)


def _truth_rows(recall: float) -> int:
    """How many rows tell `recall` from 1: some tens of misses are to be expected."""
    return int(np.clip(round(10 / (1 - recall)), 500, 5000))
