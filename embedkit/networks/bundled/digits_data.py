"""The handwritten digits that the bundled network learns from and is tried on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SEED = 20
"""Seed of the split. Changing it puts pictures the weights have seen into the test."""

TEST_FRACTION = 0.25

_INK = 16  # the data set counts ink in sixteenths of a picture element


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DigitsSplit:
    """Handwritten digits, divided once and for all.

    Attributes
    ----------
    train_images : ndarray of uint8, shape (1347, 8, 8)
        White ink on black, 0 to 255.
    train_labels : ndarray of int64, shape (1347,)
        The digit that was written, 0 to 9.
    test_images : ndarray of uint8, shape (450, 8, 8)
        Pictures that the bundled network never saw.
    test_labels : ndarray of int64, shape (450,)
        Their digits.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]


def digits_split() -> DigitsSplit:
    """Return the digits of scikit-learn, three quarters to train on and one to test.

    Every digit has the same share in both parts. Training and the demo share this
    function, so what is shown to be recognised has not been learned by heart.

    References
    ----------
    E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
    Learning Repository, 1998, https://doi.org/10.24432/C50P49 (its test part).

    Examples
    --------
    >>> split = digits_split()
    >>> split.test_images.shape, int(split.test_images.max())
    ((450, 8, 8), 255)
    """
    ink, labels = load_digits(return_X_y=True)
    grey = np.rint(ink.reshape(-1, 8, 8) * (255 / _INK)).astype(np.uint8)  # N 8 8
    train, test = train_test_split(
        np.arange(len(labels)),
        test_size=TEST_FRACTION,
        random_state=SEED,
        stratify=labels,
    )
    return DigitsSplit(
        train_images=grey[train],
        train_labels=labels[train].astype(np.int64),
        test_images=grey[test],
        test_labels=labels[test].astype(np.int64),
    )
