"""Shared data of the picture tests."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

mpl.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    """No figure outlives its test."""
    yield
    plt.close("all")


@pytest.fixture
def xy() -> xr.DataArray:
    """A map of 200 images in four clusters of 20 to 80; rows 0 and 9 have no place."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c", "d"], [20, 40, 60, 80])
    corners = {"a": (0, 0), "b": (10, 0), "c": (0, 10), "d": (10, 10)}
    places = rng.normal(size=(200, 2)) + [corners[each] for each in labels]
    places[[0, 9]] = np.nan
    return xr.DataArray(
        places.astype(np.float32),
        dims=("image", "axis"),
        coords={"axis": ["x", "y"], "label": ("image", labels)},
        name="map",
    )


class Squares:
    """Images of one colour each, wide or tall; remembers which were read."""

    def __init__(self) -> None:
        self.read_rows: list[int] = []

    def read(self, i: int) -> np.ndarray:
        self.read_rows.append(i)
        shape = (300, 200, 3) if i % 2 else (40, 90, 3)
        return np.full(shape, i % 256, np.uint8)


@pytest.fixture
def images() -> Squares:
    return Squares()
