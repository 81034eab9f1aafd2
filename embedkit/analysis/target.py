"""What a probe predicts, and on which images it trains and tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from sklearn.model_selection import KFold, StratifiedKFold

from embedkit.analysis.linear_probe import Task
from embedkit.analysis.rows import missing
from embedkit.errors import InputError, did_you_mean

Array: TypeAlias = npt.NDArray[Any]

_MANY = 20  # distinct fractions above which a target is a quantity, not a name


@dataclass(frozen=True, slots=True)
class Setup:
    """What all layers are scored on.

    Attributes
    ----------
    target : ndarray, shape (N,)
        Class numbers, or values as float64; -1 or NaN for images left out.
    part : ndarray of int, shape (N,)
        The fold that tests an image; `n_folds` trains only, -1 does neither.
    n_folds : int
        Folds to score.
    task : {"classification", "regression"}
        The kind of model.
    classes : list of str
        Name of each class number; empty for regression.
    readable, labelled : ndarray of bool, shape (N,)
        Whose status is "ok", and who has a target, which is finite if it is a number.
    """

    target: Array
    part: Array
    n_folds: int
    task: Task
    classes: list[str]
    readable: Array
    labelled: Array


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns about the images: those of the table first, then the coordinates."""

    x: xr.DataArray
    table: pd.DataFrame | None

    def __getitem__(self, name: str) -> Array:
        """Return one value per image."""
        if self.table is not None and name in self.table:
            return self.table[name].to_numpy()
        if name in self.x.coords and self.x.coords[name].dims == ("image",):
            values = np.asarray(self.x.coords[name].values)
            # NumPy's variable-length text, as Zarr gives it, casts to objects only.
            return values.astype(object) if values.dtype.kind == "T" else values
        names = [
            str(key) for key, value in self.x.coords.items() if value.dims == ("image",)
        ]
        names += [] if self.table is None else [str(key) for key in self.table]
        raise InputError(
            f"probe found no column {name!r} for the images. {did_you_mean(name, names)} "
            "More columns come with table=."
        )


def set_up(
    columns: Columns,
    *,
    target: str,
    split: str | None,
    folds: int,
    seed: int,
    task: str,
) -> Setup:
    """Read the target and deal images out to folds.

    Parameters
    ----------
    columns : Columns
        Where `target`, `split` and ``status`` are found.
    target, split, folds, seed, task
        As in `embedkit.probe`.

    Returns
    -------
    Setup

    Raises
    ------
    InputError
        If a column or class is missing, or there is too little to train on.
    """
    values = columns[target]
    labelled = ~(missing(values) | _infinite(values))
    readable = np.ones(len(values), bool)
    if "status" in columns.x.coords:
        readable = columns["status"] == "ok"
    used = labelled & readable
    chosen = _choose_task(values[used], task)
    target_numbers, classes = _encode(values, used, chosen, name=target)
    if chosen == "regression":  # text may hold "inf" or "nan"
        labelled &= ~used | np.isfinite(target_numbers)
        used &= labelled
    if split is not None:
        part, n_folds = _parts_by_column(columns[split], used, split), 1
    else:
        part, n_folds = (
            _deal(target_numbers, used, classes, folds=folds, seed=seed),
            folds,
        )
    return Setup(target_numbers, part, n_folds, chosen, classes, readable, labelled)


def _choose_task(values: Array, task: str) -> Task:
    """Settle the task: many distinct fractions are a quantity.

    Whole numbers are classes even as floats, which is how pandas stores a column of
    integers with gaps.
    """
    match task:
        case "classification" | "regression":
            return task
        case "auto":
            fractions = values.dtype.kind == "f" and not _whole(values)
            many = len(pd.unique(values)) > _MANY
            return "regression" if fractions and many else "classification"
        case _:
            raise InputError(
                f"probe got task={task!r}; choose 'auto', 'classification' or 'regression'."
            )


def _infinite(values: Array) -> npt.NDArray[np.bool_]:
    """Tell which values are an infinity, which nobody can regress on."""
    return np.asarray(pd.Series(values).isin([np.inf, -np.inf]), dtype=bool)


def _whole(values: Array) -> bool:
    """Tell whether floats are all whole numbers."""
    return bool(np.all(values == np.round(values)))


def _encode(
    values: Array, used: Array, task: Task, *, name: str
) -> tuple[Array, list[str]]:
    """Give each class its number in sorted order, or convert values to float64."""
    if task == "regression":
        numbers = np.full(len(values), np.nan)
        try:
            numbers[used] = values[used].astype(np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"probe cannot regress on {name!r}, which holds {str(values[used][0])!r}; "
                "choose task='classification'."
            ) from error
        return numbers, []
    known = values[used]
    if known.dtype.kind == "f" and _whole(known):
        known = known.astype(np.int64)  # whole numbers that a missing one made float
    classes, codes = np.unique(
        known.astype(str) if known.dtype.kind == "O" else known, return_inverse=True
    )
    if len(classes) < 2:
        raise InputError(
            f"probe found {len(classes)} classes of {name!r} among {used.sum()} labelled, "
            "readable images; label images of at least two."
        )
    numbers = np.full(len(values), -1)
    numbers[used] = codes
    return numbers, [str(each) for each in classes]


def _parts_by_column(split: Array, used: Array, name: str) -> Array:
    """Part 0 tests, part 1 trains."""
    text = split.astype(str)
    test, train = used & (text == "test"), used & (text == "train")
    if not test.any() or not train.any():
        raise InputError(
            f"probe found {train.sum()} images to train on and {test.sum()} to test on in "
            f"column {name!r}; mark both with 'train' and 'test'."
        )
    return np.where(test, 0, np.where(train, 1, -1))


def _deal(
    target: Array, used: Array, classes: list[str], *, folds: int, seed: int
) -> Array:
    """Assign each used image to the fold that tests it."""
    rows = np.flatnonzero(used)
    _check_folds(target[rows], classes, folds)
    kind = StratifiedKFold if classes else KFold
    splits = kind(folds, shuffle=True, random_state=seed).split(rows, target[rows])
    part = np.full(len(target), -1)
    for fold, (_, test) in enumerate(splits):
        part[rows[test]] = fold
    return part


def _check_folds(target: Array, classes: list[str], folds: int) -> None:
    """Raise if a fold could not hold every class, or two values to regress on."""
    if folds < 2:
        raise InputError(f"probe got folds={folds}; choose 2 or more.")
    if not classes:
        if len(target) < 2 * folds:
            raise InputError(
                f"probe has {len(target)} labelled, readable images for {folds} folds; "
                f"label at least {2 * folds}, or choose fewer folds."
            )
        return
    sizes = np.bincount(target, minlength=len(classes))
    if sizes.min() < folds:
        small = [
            f"{name!r} ({n})"
            for name, n in zip(classes, sizes, strict=True)
            if n < folds
        ]
        raise InputError(
            f"probe needs {folds} images of each class and has fewer of "
            f"{', '.join(small[:5])}{' and others' if len(small) > 5 else ''}; choose fewer "
            "folds, label more, clear the labels of these, or choose task='regression'."
        )
