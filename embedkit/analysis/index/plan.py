"""How many rows building an index takes for what, and the plan that follows."""

from __future__ import annotations

import numpy as np

from embedkit.analysis.index.choice import BYTES, Choice
from embedkit.analysis.threads import task_slots, task_threads
from embedkit.planning.index import IndexParts, IndexPlan, plan_index

SETS = 3  # of rows left out: one to tune on, two to check on
_RANGED = 2**14  # rows that ranges of bytes are taken from


def planned(
    choice: Choice, shape: tuple[int, int], *, itemsize: int, k: int, recall: float
) -> IndexPlan:
    """Return what `make` takes for rows of a shape.

    Parameters
    ----------
    choice : Choice
    shape : tuple of int
        Rows and features.
    itemsize : int
        Bytes of a number.
    k : int
    recall : float

    Returns
    -------
    IndexPlan
    """
    made = IndexParts(
        kind=choice.kind,
        n_images=shape[0],
        features=shape[1],
        itemsize=itemsize,
        n_neighbors=k,
        nbytes=choice.nbytes,
        file_rows=choice.shard_rows if choice.sharded else 0,
        sample_rows=n_sample(choice, shape[1]),
        truth_rows=0 if choice.kind == "flat" else SETS * n_aside(recall, shape[0]),
    )
    slots = task_slots()
    return plan_index(made, slots=slots, threads=task_threads(slots))


def n_aside(recall: float, n_rows: int) -> int:
    """Return how many rows tell `recall` from 1: some tens of misses are expected."""
    wanted = int(np.clip(round(20 / (1 - recall)), 500, 5000))
    return min(wanted, n_rows // (2 * SETS))


def n_sample(choice: Choice, features: int) -> int:
    """Return how many rows are trained on."""
    if choice.kind == "hnsw":
        return min(choice.n_train, _RANGED) if features >= BYTES else 1
    return choice.n_train
