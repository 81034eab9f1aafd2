"""Whether bytes are fine enough for the rows of a graph."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedkit.analysis.index.choice import BYTES, Choice, of_bytes
from embedkit.analysis.merge import Float64s

_STEPS = 255
_FINE = 0.2
"""Error of a row of bytes, at most, as a share of the distance of the last neighbor: in
a hundred features or more this moves distances by less than ranks are apart (chosen)."""


def with_bytes(
    choice: Choice, sample: npt.NDArray[np.float32], radii: Float64s, *, n_rows: int
) -> Choice:
    """Let a graph hold bytes where they tell neighbors apart.

    What FAISS finds is measured again from the rows themselves, so coarse rows cost no
    precision: they have to be good enough to be among the candidates.

    Parameters
    ----------
    choice : Choice
        Of a graph.
    sample : ndarray of float32, shape (n, F)
        Points from all over.
    radii : ndarray of float64, shape (Q,)
        Distances, between points, from some queries to their last neighbors.
    n_rows : int
        Rows of the index.

    Returns
    -------
    Choice
        The same, or of bytes. What is of bytes already stays: nothing else fits.
    """
    features = sample.shape[1]
    known = radii[np.isfinite(radii)]
    if choice.code_bytes or features < BYTES or not len(known):
        return choice
    steps = np.ptp(sample, axis=0).astype(np.float64) / _STEPS  # (F,)
    error = np.sqrt(np.sum(steps**2) / 12)  # rounding is uniform over a step
    if error > _FINE * np.median(known):
        return choice
    return of_bytes(choice, n_rows=n_rows, features=features)
