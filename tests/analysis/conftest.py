"""Shared data of the analysis tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster


def _refuse(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("something was computed while the pipeline was being built")


@pytest.fixture
def nothing_computes() -> Callable[[], AbstractContextManager[Any]]:
    """A context in which every Dask computation fails."""
    return lambda: dask.config.set(scheduler=_refuse)


@pytest.fixture
def as_images() -> Callable[..., xr.DataArray]:
    """Wrap rows as a layer with un-indexed ids, labels and status."""

    def wrap(rows: np.ndarray, labels: Any = None, *, chunk: int | None = None):
        ids = np.array([f"img{i:04d}" for i in range(len(rows))])
        columns: dict[str, Any] = {"image": ("image", ids)}
        if labels is not None:
            columns["label"] = ("image", np.asarray(labels))
        bad = np.isnan(rows.astype(float)).all(axis=1)
        columns["status"] = ("image", np.where(bad, "unreadable", "ok"))
        coords = xr.Coordinates(columns, indexes={})
        x = xr.DataArray(rows, dims=("image", "feature"), coords=coords, name="layer4")
        return x if chunk is None else x.chunk(image=chunk)

    return wrap


@pytest.fixture
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Five well separated clusters of 60 float32 rows each; row 7 is unreadable."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 60)
    rows = rng.normal(size=(300, 16)) + 8 * rng.normal(size=(5, 16))[labels]
    order = rng.permutation(300)
    rows, labels = rows[order].astype(np.float32), labels[order]
    rows[7] = np.nan
    return rows, labels


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A distributed cluster within this process."""
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=2,
            processes=False,
            dashboard_address=":0",
        ) as cluster,
        Client(cluster) as connected,
    ):
        yield connected
