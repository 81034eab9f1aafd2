"""How hard an index tries: tuning on rows, checking on others."""

from dataclasses import dataclass

import numpy as np
import pytest

from embedkit.analysis.index.search import Effort
from embedkit.analysis.index.tune import Tuner
from embedkit.errors import RecallNotReached

K = 10
LADDER = [
    Effort(int(step), 4) for step in np.unique(np.geomspace(8, 2048, 74).astype(int))
]


@dataclass(frozen=True, slots=True, eq=False)
class Simulated(Tuner):
    """An index whose rows find each neighbor with a chance that grows with the effort."""

    seed: int = 0
    most: float = 1.0

    def _shares(self, effort, some):
        rng = np.random.default_rng((self.seed, effort.breadth))
        found = rng.binomial(K, chance(effort.breadth, self.most), len(self.aside))
        return found[some] / K


def chance(breadth, most=1.0):
    """Return the recall that so much effort has in truth."""
    return most * (1 - 0.3 * np.exp(-breadth / 8))


def tuner(seed, *, recall=0.99, rows=6000, most=1.0):
    """Return a tuner of rows that are only numbers."""
    return Simulated(
        None, None, np.arange(rows), None, K, recall, LADDER, seed=seed, most=most
    )


def test_the_effort_is_little_more_than_what_is_needed():
    """Whichever rows were drawn: a check that just fails does not cost the most effort."""
    enough = next(each for each in LADDER if chance(each.breadth) >= 0.99).breadth

    found = [tuner(seed).tuned() for seed in range(200)]

    breadths = np.array([each.effort.breadth for each in found])
    assert breadths.max() <= 2 * enough
    assert np.mean(breadths <= 1.3 * enough) > 0.9
    assert all(each.recall.low >= 0.99 for each in found)
    true = np.array([chance(each) for each in breadths])
    inside = [
        each.recall.low <= one <= each.recall.high
        for each, one in zip(found, true, strict=True)
    ]
    assert np.mean(inside) >= 0.9
    assert np.mean(true >= 0.99) >= 0.95


def test_after_the_last_rows_effort_doubles():
    """Each step is about twice the one before, and the last is the most there is."""
    harder = [each.breadth for each in tuner(0)._harder(LADDER[10])]

    assert harder[-1] == 2048
    steps = np.array(harder[1:-1]) / harder[:-2]
    assert ((steps > 1.8) & (steps < 2.2)).all()
    assert tuner(0)._harder(LADDER[-1]) == [LADDER[-1]]


def test_what_no_effort_reaches_is_refused():
    """With what the most effort reached."""
    with pytest.raises(RecallNotReached, match=r"recall=0.99 and reached 0\.98"):
        tuner(0, most=0.985).tuned()
