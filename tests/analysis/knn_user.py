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


def rows(shape: tuple[int, int], kind: str = "clusters") -> xr.DataArray:
    """Return clustered rows, the same ones in every process.

    Or hostile ones: half of them near copies that float32 cannot tell apart, in crowds too
    large to keep, and some that are longer than all others by far.
    """
    rng = np.random.default_rng(1)
    centers = rng.normal(size=(50, shape[1])).astype(np.float32)
    made = rng.normal(size=shape).astype(np.float32)
    if kind == "hostile":
        made[::2] *= np.float32(1e-5)
        made[1::997] *= 1e5
    made += centers[np.arange(shape[0]) % (8 if kind == "hostile" else 50)]
    return xr.DataArray(made, dims=("image", "feature"))


def peak() -> int:
    """Return the largest memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def small() -> None:
    """Import everything, and start pools of threads."""
    few = xr.DataArray(np.eye(4, dtype=np.float32), dims=("image", "feature"))
    neighbors(few, n_neighbors=1)


def measure(rows_asked: int, features: int, kind: str) -> None:
    """Say what a search took beyond what was there before, and what was projected."""
    x = rows((rows_asked, features), kind)
    small()
    before = peak()
    with dask.config.set(scheduler="threads", num_workers=2):
        found = neighbors(x)
    tell([peak() - before], found)


def measure_workers(rows_asked: int, features: int, kind: str, limit: str) -> None:
    """The same of worker processes that are ended when they take more than `limit`."""
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            memory_limit=limit,
            dashboard_address=":0",
        ) as cluster,
        Client(cluster) as client,
    ):
        small()
        client.run(warm)
        before = client.run(peak)
        found = neighbors(rows((rows_asked, features), kind))
        after = client.run(peak)
    if before.keys() != after.keys():
        raise MemoryError("a worker was ended")
    tell([after[each] - before[each] for each in before], found)


def warm() -> None:
    """Load what tasks need, and multiply once."""
    assert callable(neighbors)
    ones = np.ones((512, 512), np.float32)
    ones @ ones


def tell(took: list[int], found: xr.Dataset) -> None:
    """Print for the test."""
    told = {
        "took": max(took),
        "projected": found.attrs["projected_mem"],
        "certified": found.attrs["certified"],
    }
    sys.stdout.write(json.dumps(told))


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
        measure(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    elif sys.argv[1] == "workers":
        measure_workers(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5])
    else:
        search(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        Path(sys.argv[3]).with_suffix(".done").touch()
