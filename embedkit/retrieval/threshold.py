"""Where to draw the line between distances of copies and of other pictures."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Distances: TypeAlias = npt.NDArray[np.float64]


def twin_share(same: Distances, other: Distances) -> float:
    """Estimate which share of images has a duplicate in the store already.

    Below the median distance of a copy there is hardly any other picture, so what lies
    there is half of the duplicates.

    Parameters
    ----------
    same : ndarray, shape (P,)
        Distances from copies to their originals, at least one.
    other : ndarray, shape (P,)
        Distances from these originals to the nearest other images.

    Returns
    -------
    float
        0 to 1.

    References
    ----------
    Elkan, Noto (2008), Learning classifiers from only positive and unlabeled data, for
    the share of positives among the unlabeled.

    Examples
    --------
    >>> twin_share(np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 9.0, 9.0, 9.0]))
    0.5
    """
    middle = np.median(same)
    return min(1.0, float((other <= middle).mean() / (same <= middle).mean()))


def best_threshold(same: Distances, other: Distances, *, twins: float = 0.0) -> float:
    """Return the distance that tells two kinds of pairs apart with the largest F1.

    Parameters
    ----------
    same : ndarray, shape (P,)
        Distances of pairs that are to be accepted, at least one.
    other : ndarray, shape (M,)
        Distances of pairs that are not.
    twins : float, default 0
        The share of `other` that is the same picture after all: so many of the nearest
        do not count.

    Returns
    -------
    float
        Of equally good ones the smallest; halfway between the last distance that it
        accepts and the next one.

    Examples
    --------
    >>> best_threshold(np.array([0.1, 0.2]), np.array([0.4, 0.6])).__round__(6)
    0.3
    """
    other = np.sort(other)[round(twins * len(other)) :]
    cuts = np.unique(np.concatenate([same, other[np.isfinite(other)]]))
    hits = np.searchsorted(np.sort(same), cuts, side="right")
    wrong = np.searchsorted(other, cuts, side="right")
    f1 = 2 * hits / (hits + wrong + len(same))
    best = int(f1.argmax())  # the first of the best
    return float(cuts[best : best + 2].mean())
