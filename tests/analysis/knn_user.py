"""A process of its own that searches neighbors, for tests that kill or measure it."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import dask
import numpy as np
import xarray as xr
from distributed import Client, LocalCluster

from embedkit.analysis.neighbors import neighbors


def rows(shape: tuple[int, int]) -> xr.DataArray:
    """Return clustered rows, the same ones in every process."""
    rng = np.random.default_rng(1)
    centers = rng.normal(size=(50, shape[1])).astype(np.float32)
    noise = rng.normal(size=shape).astype(np.float32)
    made = centers[np.arange(shape[0]) % 50] + noise
    return xr.DataArray(made, dims=("image", "feature"))


def peak() -> int:
    """Return the largest memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(rows_asked: int, features: int) -> None:
    """Say what a search took beyond what was there before, and what was projected."""
    x = rows((rows_asked, features))
    small = xr.DataArray(np.eye(4, dtype=np.float32), dims=("image", "feature"))
    neighbors(small, n_neighbors=1)  # imports and pools of threads
    before = peak()
    with dask.config.set(scheduler="threads", num_workers=2):
        found = neighbors(x)
    took = peak() - before
    sys.stdout.write(
        json.dumps({"took": took, "projected": found.attrs["projected_mem"]})
    )


def search(scratch: str, out: str, processes: int) -> None:
    """Search on worker processes and write the result."""
    with (
        LocalCluster(
            n_workers=processes, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster),
    ):
        found = neighbors(rows((24_000, 64)), scratch=scratch)
    np.save(out, np.stack([found["indices"], found["distances"].values.view("i4")]))


if __name__ == "__main__":
    if sys.argv[1] == "measure":
        measure(int(sys.argv[2]), int(sys.argv[3]))
    else:
        search(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        Path(sys.argv[3]).with_suffix(".done").touch()
