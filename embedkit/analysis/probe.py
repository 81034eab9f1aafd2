"""Which layer tells a target best: a linear probe on each, with folds and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Literal, overload

import numpy as np
import pandas as pd
import xarray as xr
from dask.base import compute
from dask.delayed import delayed

import embedkit
from embedkit.analysis.frame import whole
from embedkit.analysis.linear_probe import (
    SCORES,
    LayerScores,
    score_layer,
    t_interval,
    wilson,
)
from embedkit.analysis.planned import planned
from embedkit.analysis.share import run_limited
from embedkit.analysis.table import Table, join_table
from embedkit.analysis.target import Columns, Setup, set_up
from embedkit.analysis.threads import machine, task_slots
from embedkit.errors import InputError, did_you_mean
from embedkit.planning.analysis_models import PROBE
from embedkit.planning.analysis_plan import AnalysisPlan


@overload
def probe(
    store: Mapping[str, xr.DataArray],
    *,
    target: str,
    layers: str | Sequence[str] = "*",
    table: Table | None = None,
    on: str | None = None,
    split: str | None = None,
    folds: int = 5,
    seed: int = 0,
    task: Literal["auto", "classification", "regression"] = "auto",
    memory_limit: int | str | None = None,
    plan_only: Literal[False] = False,
) -> xr.Dataset: ...


@overload
def probe(
    store: Mapping[str, xr.DataArray],
    *,
    target: str,
    layers: str | Sequence[str] = "*",
    table: Table | None = None,
    on: str | None = None,
    split: str | None = None,
    folds: int = 5,
    seed: int = 0,
    task: Literal["auto", "classification", "regression"] = "auto",
    memory_limit: int | str | None = None,
    plan_only: Literal[True],
) -> AnalysisPlan: ...


def probe(  # noqa: PLR0913 - each keyword is one independent choice of the study
    store: Mapping[str, xr.DataArray],
    *,
    target: str,
    layers: str | Sequence[str] = "*",
    table: Table | None = None,
    on: str | None = None,
    split: str | None = None,
    folds: int = 5,
    seed: int = 0,
    task: Literal["auto", "classification", "regression"] = "auto",
    memory_limit: int | str | None = None,
    plan_only: bool = False,
) -> xr.Dataset | AnalysisPlan:
    """Train a linear model on each layer and score it on held-out images.

    Parameters
    ----------
    store : mapping of str to DataArray
        Layers by name, in network order: dims (image, feature), or (image, channel, y,
        x), of which the mean over y and x is probed. An embedkit store is one.
    target : str
        What to predict: a column of `table`, else a coordinate of the images. An image
        where it is missing or infinite counts as unlabelled.
    layers : str or sequence of str, default "*"
        Names or patterns of the layers to probe.
    table : DataFrame or path to CSV or Parquet, optional
        Joined on the image id. Images it does not mention count as unlabelled.
    on : str, optional
        The column of `table` with the ids; found by itself if left out.
    split : str, optional
        Column that says "train" or "test" of each image (others are ignored): one fold.
        By default `folds` folds, stratified for classes.
    folds : int, default 5
        At least 2.
    seed : int, default 0
        Shuffles images into folds, the same for every layer; 0 to 2^32 - 1.
    task : {"auto", "classification", "regression"}, default "auto"
        Logistic regression or ridge. Automatic: regression for floating-point targets
        with fractions and more than 20 distinct values.
    memory_limit : int or str, optional
        What a process may take, such as ``"4GB"``. By default half of what the smallest
        worker has, or half of what is free in this process.
    plan_only : bool, default False
        Return the plan and run nothing.

    Returns
    -------
    Dataset, dims (layer, fold)
        ``accuracy``, ``balanced_accuracy``, ``f1`` (macro) or ``r2``, ``mae``;
        ``n_train``, ``n_test`` (images), ``converged``; and ``interval`` (layer, bound):
        95 % around the accuracy over all held-out images (Wilson), or around the mean R²
        of the folds (Student's t). ``.attrs["best_layer"]`` has the highest mean accuracy
        or R². Computed now, wherever Dask computes: one task per layer, which holds all
        rows of that layer in float64, and only so many of them at once as
        `memory_limit` leaves. With `plan_only` an `AnalysisPlan` instead.

    Raises
    ------
    InputError
        If a layer, column or class is missing, there is too little to train on, or
        `folds` or `seed` is out of range.
    PlanError
        When it cannot be done within `memory_limit`, before anything is computed.

    References
    ----------
    Alain, Bengio (2016), Understanding intermediate layers using linear classifier
    probes, section 3.
    """
    folds, seed = _check_counts(folds, seed)
    chosen = {n: _as_rows(store[n], n) for n in _choose(layers, list(store))}
    plan = _plan(chosen, memory_limit)
    if plan_only:
        return plan
    first, rows = _rows_of_layers(chosen)
    columns = Columns(
        first, None if table is None else join_table(table, _ids(first), on=on)
    )
    setup = set_up(
        columns, target=target, split=split, folds=folds, seed=seed, task=task
    )
    score = delayed(run_limited)
    one = partial(score_layer, n_folds=setup.n_folds, task=setup.task)
    shared = delayed(setup.target), delayed(setup.part)  # sent once, not with each task
    slots = task_slots()
    tasks = [score(slots, one, data, *shared) for data in rows.values()]
    results = _in_turns(tasks, at_once=plan.at_once)
    return _assemble(list(rows), results, setup).assign_attrs(target=target, seed=seed)


def _plan(
    layers: Mapping[str, xr.DataArray], memory_limit: int | str | None
) -> AnalysisPlan:
    """Return the plan for layers of their widths: that of the widest for each."""
    widest = max(layers.values(), key=lambda x: x.shape[1])
    return planned(
        PROBE,
        n_images=len(widest),
        width=widest.shape[1],
        itemsize=widest.dtype.itemsize,
        studies=len(layers),
        memory_limit=memory_limit,
    )


def _in_turns(tasks: Sequence[Any], *, at_once: int) -> list[LayerScores]:
    """Compute tasks, all together where a process has memory for all that it would run.

    Otherwise so many at a time as one process may run: all could meet in the same one.
    """
    turn = len(tasks) if at_once >= machine(None).slots else at_once
    starts = range(0, len(tasks), turn)
    return [one for at in starts for one in compute(*tasks[at : at + turn])]


def _choose(layers: str | Sequence[str], names: list[str]) -> list[str]:
    """Resolve patterns to layers, in network order."""
    patterns = [layers] if isinstance(layers, str) else list(layers)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(
                f"probe found no layer {pattern!r}. {did_you_mean(pattern, names)}"
            )
    chosen = [n for n in names if any(fnmatchcase(n, pattern) for pattern in patterns)]
    if not chosen:
        raise InputError("probe got no layers; pass layers='*' for all.")
    return chosen


def _as_rows(x: xr.DataArray, name: str) -> xr.DataArray:
    """Reduce a layer to one row per image, lazily."""
    if x.dims == ("image", "channel", "y", "x"):
        return x.mean(("y", "x"), dtype=np.float64, skipna=False, keep_attrs=True)
    if x.dims != ("image", "feature"):
        raise InputError(
            f"probe got layer {name!r} with dims {x.dims}; "
            "pass dims ('image', 'feature') or ('image', 'channel', 'y', 'x')."
        )
    return x


def _ids(x: xr.DataArray) -> pd.Index:
    """Image ids as text; row numbers where there are none."""
    values = (
        x.coords["image"].values if "image" in x.coords else np.arange(x.sizes["image"])
    )
    return pd.Index(values).astype(str)


def _rows_of_layers(
    layers: dict[str, xr.DataArray],
) -> tuple[xr.DataArray, dict[str, Any]]:
    """Return the first layer, and the rows of all, which must be of the same images.

    Of the others only the rows are kept: ids that were loaded to compare them can go.
    """
    names = list(layers)
    first = layers.pop(names[0])
    rows = {names[0]: first.data}
    expected: pd.Index | None = None
    for name in names[1:]:
        x = layers.pop(name)
        if not _share_ids(first, x):
            expected = _ids(first) if expected is None else expected
            if not expected.equals(_ids(x)):
                raise InputError(
                    f"probe got layers {names[0]!r} and {name!r} of different images; "
                    "probe layers of one store together."
                )
        rows[name] = x.data
    return first, rows


def _share_ids(one: xr.DataArray, other: xr.DataArray) -> bool:
    """Tell whether the ids are surely equal without loading or comparing any."""
    if one.sizes["image"] != other.sizes["image"]:
        return False
    if "image" not in one.coords or "image" not in other.coords:
        return "image" not in one.coords and "image" not in other.coords
    ours, theirs = one.coords["image"], other.coords["image"]
    if ours.chunks is None or theirs.chunks is None:
        return ours.variable is theirs.variable
    return bool(ours.data.name == theirs.data.name)  # Dask: equal names, equal values


def _check_counts(folds: int, seed: int) -> tuple[int, int]:
    """Return both as integers; raise if they are none, or no seed of scikit-learn."""
    folds = whole(folds, asked="probe", name="folds")
    seed = whole(seed, asked="probe", name="seed")
    if not 0 <= seed < 2**32:
        raise InputError(f"probe got seed={seed}; choose 0 to 2^32 - 1.")
    return folds, seed


def _assemble(
    names: list[str], results: Sequence[LayerScores], setup: Setup
) -> xr.Dataset:
    """Build the Dataset from one result per layer."""
    variables: dict[str, Any] = {
        key: (("layer", "fold"), np.array([result.folds[key] for result in results]))
        for key in (*SCORES[setup.task], "n_train", "n_test", "converged")
    }
    main = SCORES[setup.task][0]
    intervals = [_interval(result, main) for result in results]
    variables["interval"] = (("layer", "bound"), np.array(intervals))
    lost = np.any([result.lost for result in results], axis=0)
    best = int(np.argmax(variables[main][1].mean(axis=1)))  # the earlier one if equal
    return xr.Dataset(
        variables,
        coords={
            "layer": names,
            "fold": np.arange(setup.n_folds),
            "bound": ["low", "high"],
        },
        attrs={
            "best_layer": names[best],
            "task": setup.task,
            "classes": setup.classes,
            "n_images": int(np.sum((setup.part >= 0) & ~lost)),
            "n_excluded": int(np.sum(~setup.readable | lost)),
            "n_unlabelled": int(np.sum(setup.readable & ~setup.labelled)),
            "embedkit": embedkit.__version__,
        },
    )


def _interval(result: LayerScores, main: str) -> tuple[float, float]:
    """Bound the main score of one layer."""
    if main == "accuracy":
        return wilson(result.hits, int(np.sum(result.folds["n_test"])))
    return t_interval(result.folds[main])
