"""Fits of one layer and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from embedkit.analysis import linear_probe
from embedkit.analysis.linear_probe import score_layer, t_interval, wilson
from embedkit.errors import InputError


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (10, 10), (7, 10), (500, 1000)])
def test_wilson_equals_scipy(hits: int, trials: int) -> None:
    """Within 0 and 1 at the ends, too."""
    expected = stats.binomtest(hits, trials).proportion_ci(method="wilson")
    assert wilson(hits, trials) == pytest.approx(
        (expected.low, expected.high), abs=1e-12
    )
    assert 0 <= wilson(hits, trials)[0] < wilson(hits, trials)[1] <= 1


def test_wilson_of_another_confidence() -> None:
    """A wider interval is surer."""
    assert wilson(7, 10, confidence=0.99)[0] < wilson(7, 10)[0]


def test_t_interval_equals_scipy() -> None:
    """Of four values; of one there is none."""
    values = [0.5, 0.6, 0.55, 0.7]
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert t_interval(values) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(t_interval([0.5])).all()


def test_an_unfinished_fit_is_recorded_not_shown(monkeypatch) -> None:
    """With too few iterations a fold is marked; no warning escapes."""
    monkeypatch.setattr(linear_probe, "_MAX_ITER", 1)
    rng = np.random.default_rng(0)
    scores = score_layer(
        rng.normal(size=(40, 5)),
        np.arange(40) % 2,
        np.arange(40) // 2 % 2,
        n_folds=2,
        task="classification",
    )
    assert scores.folds["converged"] == [False, False]


def test_a_class_that_a_fold_does_not_test() -> None:
    """Balanced accuracy is over the classes that are there, without a warning."""
    x = np.arange(12.0)[:, None]
    target = np.array([0] * 4 + [1] * 4 + [2] * 4)
    part = np.array([0, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1])
    scores = score_layer(x, target, part, n_folds=1, task="classification")
    assert scores.folds["n_test"] == [2]
    assert scores.folds["balanced_accuracy"] == scores.folds["accuracy"]


def test_rows_lost_in_one_layer_are_reported() -> None:
    """A row that overflowed is not trained on, tested on, or forgotten."""
    x = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float16)
    x[[3, 4]] = np.inf
    part = np.where(np.arange(20) == 4, -1, np.arange(20) // 2 % 2)
    scores = score_layer(x, np.arange(20) % 2, part, n_folds=2, task="classification")
    assert np.flatnonzero(scores.lost).tolist() == [3]
    assert sum(scores.folds["n_test"]) == 18
    assert 0 <= scores.hits <= 18


def test_a_fold_that_lost_all_its_rows() -> None:
    """Counts and what to do."""
    x = np.random.default_rng(0).normal(size=(8, 2))
    x[:4] = np.nan
    with pytest.raises(
        InputError, match=r"4 images to train on and 0 to test on once rows"
    ):
        score_layer(
            x, np.arange(8) % 2, np.arange(8) // 4, n_folds=2, task="classification"
        )
    x[:4] = 1
    part = np.array([0, -1, 1, 1, 1, 1, 1, 1])
    with pytest.raises(InputError, match=r"6 images to train on and 1 to test on"):
        score_layer(x, np.arange(8.0), part, n_folds=1, task="regression")
