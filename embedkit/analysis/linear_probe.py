"""Fit and score a linear model on held-out rows of one layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, mean_absolute_error, r2_score, recall_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from embedkit.analysis.rows import float64_rows, usable_rows
from embedkit.errors import InputError
from embedkit.quiet import quiet

Task: TypeAlias = Literal["classification", "regression"]
Floats: TypeAlias = npt.NDArray[np.floating[Any]]

SCORES: dict[Task, tuple[str, ...]] = {
    "classification": ("accuracy", "balanced_accuracy", "f1"),
    "regression": ("r2", "mae"),
}
_MAX_ITER = 5000  # standardised rows and an L2 penalty need tens to hundreds

_unconverged = quiet(ConvergenceWarning)  # returned instead, for each fold


@dataclass(frozen=True, slots=True)
class LayerScores:
    """What one layer scored.

    Attributes
    ----------
    folds : dict of str to list of float
        One entry per fold: the scores of the task, and ``n_train``, ``n_test``,
        ``converged``.
    hits : int
        Right predictions over all folds; 0 for regression.
    lost : ndarray of bool, shape (N,)
        Rows that had a target and are not finite.
    """

    folds: dict[str, list[float]]
    hits: int
    lost: npt.NDArray[np.bool_]


def score_layer(
    x: Floats,
    target: npt.NDArray[Any],
    part: npt.NDArray[Any],
    *,
    n_folds: int,
    task: Task,
) -> LayerScores:
    """Train on all parts but one and score on that one, for each fold.

    Parameters
    ----------
    x : ndarray, shape (N, F), floating
        One row per image, converted to float64.
    target : ndarray, shape (N,)
        Class numbers or values, anything where `part` is negative.
    part : ndarray of int, shape (N,)
        The fold that tests an image; numbers from `n_folds` on only train, negative ones
        do neither.
    n_folds : int
        Folds to score.
    task : {"classification", "regression"}
        Logistic regression (L2, C = 1) or ridge (alpha = 1), on standardised features.

    Returns
    -------
    LayerScores

    Raises
    ------
    InputError
        If a fold has no rows to train or test on once rows that are not finite are gone.
    """
    lost = (part >= 0) & ~usable_rows(x)
    used = (part >= 0) & ~lost
    rows = float64_rows(x, np.flatnonzero(used))
    target, part = target[used], part[used]
    folds: dict[str, list[float]] = {}
    hits = 0
    for fold in range(n_folds):
        test = part == fold
        _check_fold(target, test, task)
        model, converged = _fit(rows[~test], target[~test], task)
        predicted, truth = model.predict(rows[test]), target[test]
        hits += int(np.sum(predicted == truth)) if task == "classification" else 0
        scores = _score(truth, predicted, task)
        scores |= {
            "n_train": np.sum(~test),
            "n_test": np.sum(test),
            "converged": converged,
        }
        for name, value in scores.items():
            folds.setdefault(name, []).append(value)
    return LayerScores(folds, hits, lost)


def wilson(hits: int, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Bound a proportion by the score interval, which stays within 0 and 1.

    Parameters
    ----------
    hits, trials : int
        Successes, out of at least one trial.
    confidence : float, default 0.95
        Coverage.

    Returns
    -------
    low, high : float

    References
    ----------
    Wilson (1927), Probable inference, the law of succession, and statistical inference.
    """
    z = float(stats.norm.ppf((1 + confidence) / 2))
    share = hits / trials
    center = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    variance = share * (1 - share) / trials + z**2 / (4 * trials**2)
    reach = z / (1 + z**2 / trials) * variance**0.5
    return max(0.0, center - reach), min(1.0, center + reach)


def t_interval(values: list[float], *, confidence: float = 0.95) -> tuple[float, float]:
    """Bound a mean over folds by Student's t; NaN for a single fold.

    Folds share training rows, so this interval is somewhat too narrow.

    Parameters
    ----------
    values : list of float
        One score per fold.
    confidence : float, default 0.95
        Nominal coverage.

    Returns
    -------
    low, high : float

    References
    ----------
    Student (1908), The probable error of a mean; for the caveat, Bengio, Grandvalet
    (2004), No unbiased estimator of the variance of k-fold cross-validation.
    """
    if len(values) < 2:
        return float("nan"), float("nan")
    quantile = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1))
    reach = quantile * float(np.std(values, ddof=1)) / len(values) ** 0.5
    mean = float(np.mean(values))
    return mean - reach, mean + reach


def _fit(rows: Floats, target: npt.NDArray[Any], task: Task) -> tuple[Pipeline, bool]:
    """Fit, and tell whether the optimiser came to its end.

    The rows are scaled where they are, here and in predictions: nobody needs them again.
    """
    scaler = StandardScaler(copy=False)
    if task == "regression":
        return make_pipeline(scaler, Ridge(copy_X=False)).fit(rows, target), True
    classifier = LogisticRegression(C=1.0, max_iter=_MAX_ITER)
    with _unconverged:
        model = make_pipeline(scaler, classifier).fit(rows, target)
    return model, bool(classifier.n_iter_.max() < _MAX_ITER)


def _score(
    truth: npt.NDArray[Any], predicted: npt.NDArray[Any], task: Task
) -> dict[str, float]:
    """Score one fold."""
    if task == "regression":
        return {
            "r2": r2_score(truth, predicted),
            "mae": mean_absolute_error(truth, predicted),
        }
    seen = np.unique(truth)  # a class that a fold does not hold has no recall
    return {
        "accuracy": float(np.mean(truth == predicted)),
        "balanced_accuracy": recall_score(
            truth, predicted, labels=seen, average="macro", zero_division=0.0
        ),
        "f1": f1_score(truth, predicted, average="macro", zero_division=0.0),
    }


def _check_fold(
    target: npt.NDArray[Any], test: npt.NDArray[np.bool_], task: Task
) -> None:
    """Raise if a fold cannot be trained or scored."""
    fewest = 2 if task == "regression" else 1  # R² of one row is undefined
    if test.sum() < fewest or (~test).sum() < fewest:
        raise InputError(
            f"probe has {(~test).sum()} images to train on and {test.sum()} to test on "
            "once rows that are not finite are left out; label more images."
        )
    if task == "classification" and len(np.unique(target[~test])) < 2:
        raise InputError(
            f"probe has one class among the {(~test).sum()} images to train on; "
            "label images of a second class, or choose another split."
        )
