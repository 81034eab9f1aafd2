"""How far neighbors, clusters and labels agree."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from dask.base import compute
from dask.delayed import delayed

from embedkit.analysis.frame import check_same_images, check_variables
from embedkit.analysis.planned import planned
from embedkit.analysis.rows import missing
from embedkit.errors import InputError
from embedkit.planning.analysis_models import NEIGHBOR_ACCURACY
from embedkit.planning.analysis_plan import AnalysisPlan

LabelsLike: TypeAlias = xr.DataArray | npt.ArrayLike


@overload
def neighbor_accuracy(
    nn: xr.Dataset,
    labels: LabelsLike,
    *,
    memory_limit: int | str | None = None,
    plan_only: Literal[False] = False,
) -> float: ...


@overload
def neighbor_accuracy(
    nn: xr.Dataset,
    labels: LabelsLike,
    *,
    memory_limit: int | str | None = None,
    plan_only: Literal[True],
) -> AnalysisPlan: ...


def neighbor_accuracy(
    nn: xr.Dataset,
    labels: LabelsLike,
    *,
    memory_limit: int | str | None = None,
    plan_only: bool = False,
) -> float | AnalysisPlan:
    """Score how often the neighbors of an image outvote to its own label.

    Parameters
    ----------
    nn : Dataset, dims (image, neighbor)
        What `neighbors` returned; no image is its own neighbor, so this is
        leave-one-out.
    labels : DataArray or array_like, shape (N,)
        Label of each image. Missing ones (None, NaN, an empty string) neither vote nor
        are scored.
    memory_limit : int or str, optional
        What a process may take, such as ``"4GB"``. By default half of what the smallest
        worker has, or half of what is free in this process.
    plan_only : bool, default False
        Return the plan and run nothing.

    Returns
    -------
    float
        Share of labelled images with a labelled neighbor whose majority of neighbors has
        their label; of equally frequent labels, that of the nearest wins. NaN if there is
        no such image. Computed now, some rows a task. With `plan_only` an
        `AnalysisPlan` instead.

    Raises
    ------
    InputError
        If there is not one label for each image, or the ids of the images differ.
    PlanError
        When it cannot be done within `memory_limit`, before anything is computed.

    References
    ----------
    Cover, Hart (1967), Nearest neighbor pattern classification.
    """
    check_variables(nn, asked="neighbor_accuracy", names=("indices",))
    check_same_images(nn, labels, asked="neighbor_accuracy")
    n_images, width = nn["indices"].shape
    plan = planned(
        NEIGHBOR_ACCURACY, n_images=n_images, width=width, memory_limit=memory_limit
    )
    if plan_only:
        return plan
    codes = _codes(labels, n_images, asked="neighbor_accuracy")
    indices = nn["indices"].chunk(image=plan.rows_per_task, neighbor=-1).data
    shared, edges = delayed(codes), np.cumsum([0, *indices.chunks[0]]).tolist()
    tasks = [
        delayed(_votes)(block, shared, start, stop)
        for block, (start, stop) in zip(
            indices.to_delayed().ravel(), pairwise(edges), strict=True
        )
    ]
    counts = np.sum([(0, 0), *compute(*tasks)], axis=0)
    return float(counts[0] / counts[1]) if counts[1] else float("nan")


def _votes(
    indices: npt.NDArray[np.int64], codes: npt.NDArray[np.int64], start: int, stop: int
) -> tuple[int, int]:
    """Count the images of rows `start` to `stop` that are outvoted to their label.

    Returns
    -------
    right, scored : int
    """
    votes = np.append(codes, -1)[indices]  # (n, K); index -1 reads the appended -1
    own = codes[start:stop]
    scored = (own >= 0) & (votes >= 0).any(axis=1)
    support = sum(
        (votes == votes[:, [slot]]) & (votes >= 0) for slot in range(votes.shape[1])
    )  # (n, K): how many slots share the label of this one
    winner = np.argmax(support, axis=1)  # the first of the best is the nearest
    elected = votes[np.arange(len(votes)), winner]
    return int(np.sum(elected[scored] == own[scored])), int(scored.sum())


def adjusted_rand(
    labels_a: LabelsLike, labels_b: LabelsLike, *, noise: int = -1
) -> tuple[float, float]:
    """Compare two labellings by the adjusted Rand index, with and without noise.

    Parameters
    ----------
    labels_a, labels_b : DataArray or array_like, shape (N,)
        Labels of the same images. Images with a missing label are left out.
    noise : int, default -1
        The label that means noise.

    Returns
    -------
    with_noise : float
        Noise counted as one more cluster.
    without_noise : float
        Images that are noise in either labelling left out. Read both: a clustering that
        calls everything difficult noise looks good without. NaN if no image is left.

    Raises
    ------
    InputError
        If the labellings differ in length, or carry different image ids.

    References
    ----------
    Hubert, Arabie (1985), Comparing partitions, equation 5.
    """
    check_same_images(labels_a, labels_b, asked="adjusted_rand")
    a, b = np.asarray(labels_a), np.asarray(labels_b)
    if a.ndim != 1 or a.shape != b.shape:
        raise InputError(
            f"adjusted_rand got labels of shapes {a.shape} and {b.shape}; "
            "pass two labels for each of the same images."
        )
    known = ~(missing(a) | missing(b))
    clear = known & (a != noise) & (b != noise)
    return _adjusted_rand(a[known], b[known]), _adjusted_rand(a[clear], b[clear])


def _adjusted_rand(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Compute the index from the table of joint counts; 1 for trivially equal ones."""
    if not len(a):
        return float("nan")
    table = pd.crosstab(a, b).to_numpy()
    together = _pairs(table).sum()
    in_a, in_b = _pairs(table.sum(axis=1)).sum(), _pairs(table.sum(axis=0)).sum()
    every = _pairs(np.array(len(a)))
    expected = in_a * in_b / every if every else 0.0
    largest = (in_a + in_b) / 2
    return (
        1.0
        if largest == expected
        else float((together - expected) / (largest - expected))
    )


def _pairs(counts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Count unordered pairs within groups of these sizes."""
    sizes: npt.NDArray[np.float64] = counts.astype(np.float64)
    return sizes * (sizes - 1) / 2


def _codes(labels: LabelsLike, n_images: int, *, asked: str) -> npt.NDArray[np.int64]:
    """Give each label a number from 0, missing ones -1."""
    values = np.asarray(labels)
    if values.shape != (n_images,):
        raise InputError(
            f"{asked} got labels of shape {values.shape} for {n_images} images; "
            "pass one label for each image."
        )
    codes, _ = pd.factorize(values)
    return np.where(missing(values), -1, codes)
