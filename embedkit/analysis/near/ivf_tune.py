"""How many inverted lists a recall takes, on sampled queries with exact truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedkit.analysis.merge import Float64s, Ids
from embedkit.analysis.near.ivf_lists import Lists
from embedkit.analysis.near.ivf_queries import Asked
from embedkit.analysis.near.ivf_tiles import Tiles
from embedkit.analysis.truth import Truth, Truths

_TRIES = 3


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Exact truth on some queries, and how many lists each true neighbor takes.

    Attributes
    ----------
    truth : Truth
        Of n queries.
    needed : ndarray of int64, shape (n, k)
        Lists that are nearer than the one of the neighbor, -1 for none.
    """

    truth: Truth
    needed: Ids

    def shares(self, nprobe: int) -> Float64s:
        """Return the share of neighbors in the nearest `nprobe` lists, shape (n,)."""
        there = self.truth.ids >= 0
        wanted = there.sum(axis=1)
        hit = ((self.needed < nprobe) & there).sum(axis=1)
        return np.where(wanted > 0, hit / np.maximum(wanted, 1), 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Tuner:
    """Finds the fewest lists that reach a recall.

    Attributes
    ----------
    truths : Truths
        Of the queries.
    asked : Asked
    lists : Lists
    tiles : Tiles
    recall : float
    """

    truths: Truths
    asked: Asked
    lists: Lists
    tiles: Tiles
    recall: float

    @property
    def most(self) -> int:
        """Lists to probe so that every tile reads every row."""
        return int(self.tiles.ranks.max(initial=0)) + 1

    def tuned(
        self, rng: np.random.Generator, *, check: Truth | None
    ) -> tuple[int, Sample]:
        """Return how many lists to probe, and rows to check it on that were not used."""
        every = self.most
        known = self._samples(1 if check else 2, rng)
        sample = self._sample(check) if check else known.pop()
        for _ in range(_TRIES):
            nprobe = self._fewest(known, every)
            if self.truths.estimate(sample.shares(nprobe)).low >= self.recall:
                return nprobe, sample
            known, (sample,) = [*known, sample], self._samples(1, rng)
        return every, sample

    def _samples(self, count: int, rng: np.random.Generator) -> list[Sample]:
        """Look up the truth of sampled rows."""
        drawn = self.truths.draw(count, recall=self.recall, rng=rng)
        return [self._sample(each) for each in drawn]

    def _sample(self, truth: Truth) -> Sample:
        return Sample(truth, self._needed(truth))

    def _needed(self, truth: Truth) -> Ids:
        tile = self.tiles.of_list[self.asked.of_query[truth.rows]]  # (n,)
        of_neighbor = self.lists.of_row[truth.ids]  # (n, k)
        needed = self.tiles.ranks[tile[:, None], of_neighbor].astype(np.int64)
        needed[of_neighbor < 0] = 0  # rows that every tile sees
        needed[self.asked.alike[truth.rows]] = 0
        return np.where(truth.ids >= 0, needed, -1)

    def _fewest(self, known: list[Sample], every: int) -> int:
        """Return the fewest lists that leave the check a margin on the known rows."""
        low, high = 1, every
        while low < high:
            middle = (low + high) // 2
            shares = np.concatenate([each.shares(middle) for each in known])
            if self.truths.enough(shares, recall=self.recall):
                high = middle
            else:
                low = middle + 1
        return low
