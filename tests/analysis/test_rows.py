"""Usable rows and missing labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from embedkit.analysis import rows as module
from embedkit.analysis.rows import float64_rows, missing, usable_rows


def test_rows_with_nan_or_infinity_are_unusable(monkeypatch) -> None:
    """Across blocks, in any floating dtype."""
    monkeypatch.setattr(module, "_BLOCK", 6)
    x = np.zeros((7, 3), np.float16)
    x[1, 2], x[4, 0], x[6] = np.nan, np.inf, np.nan
    np.testing.assert_array_equal(usable_rows(x), [1, 0, 1, 1, 0, 1, 0])


def test_no_rows_and_no_features() -> None:
    """Empty in, empty out; rows without entries hold nothing bad."""
    assert usable_rows(np.empty((0, 4))).shape == (0,)
    assert usable_rows(np.empty((3, 0))).all()


@pytest.mark.parametrize(
    "values",
    [
        np.array(["a", "", "b"]),
        np.array(["a", "", "b"], np.dtypes.StringDType()),
        np.array(["a", None, "b"], object),
        np.array([1, pd.NA, 0], object),
        np.array([1.0, np.nan, 0.0]),
        np.array(["2020-01-01", "NaT", "2021-01-01"], "datetime64[D]"),
        pd.array(["a", None, "b"], dtype="str"),
    ],
)
def test_missing(values) -> None:
    """The one in the middle is no label; zero is one."""
    np.testing.assert_array_equal(missing(values), [False, True, False])


def test_numbers_are_never_missing() -> None:
    """Integers and booleans have no missing value."""
    assert not missing(np.array([0, -1, 5])).any()
    assert not missing(np.array([True, False])).any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_in_float64_are_copies_of_those_asked_for(monkeypatch, dtype) -> None:
    """In their order, block by block, whatever the dtype; nothing is shared."""
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(dtype)
    kept = np.array([4, 9, 2, 49, 0])
    monkeypatch.setattr(module, "_BLOCK", 6)

    found = float64_rows(x, kept)

    assert found.dtype == np.float64
    assert found.tobytes() == x[kept].astype(np.float64).tobytes()
    assert not np.shares_memory(found, x)
    assert float64_rows(x, kept[:0]).shape == (0, 3)
