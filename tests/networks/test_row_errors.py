"""Errors are those of whole rows."""

from __future__ import annotations

import numpy as np

from embedkit.networks.row_errors import largest_error, row_errors


def test_errors_are_relative_to_rows():
    """NaN or infinity in one place alone is infinitely wrong; zeros have a magnitude of 1."""
    true = np.float32([[1, np.nan], [0, 0]])
    assert largest_error(true.copy(), true) == 0
    assert largest_error(np.float32([[np.nan, 1], [0, 0]]), true) == np.inf
    assert largest_error(np.float32([[1, np.nan], [0, 3]]), true) == 3
    assert largest_error(np.float32([[4, np.nan], [0, 0]]), true) == 3
    assert largest_error(true[:0], true[:0]) == 0
    wide = np.float32([[[1, 2], [3, np.inf]], [[0, 8], [0, 4]]])
    other = np.float32([[[1, 2], [3, 4]], [[2, 8], [0, 5]]])
    assert row_errors(other, wide).tolist() == [np.inf, 0.25]
