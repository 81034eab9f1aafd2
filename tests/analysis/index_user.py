"""A process of its own that builds and asks an index, for tests that measure it."""

from __future__ import annotations

import json
import resource
import sys
from contextlib import nullcontext

import dask
import numpy as np
import psutil
import xarray as xr
from distributed import Client, LocalCluster

import embedkit as ek
from embedkit.analysis.index import tasks as index_tasks

INSIDE = 1.2
"""What a process may take, as a multiple of what was projected."""


def rows(n_rows: int, features: int) -> xr.DataArray:
    """Return clustered rows, the same ones in every process, in chunks."""
    rng = np.random.default_rng(1)
    made = rng.normal(size=(50, features)).astype(np.float32)[np.arange(n_rows) % 50]
    for start in range(0, n_rows, 4096):
        part = made[start : start + 4096]
        part += rng.normal(size=part.shape).astype(np.float32)
    return xr.DataArray(made, dims=("image", "feature")).chunk(image=4096)


def peak() -> int:
    """Return the largest memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def cluster(projected: int, *, where: str):
    """Return one worker process that is killed beyond the plan, or this process."""
    if where == "threads":
        return nullcontext()
    base = psutil.Process().memory_info().rss
    limit = base + int(INSIDE * projected)
    return LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        memory_limit=limit,
        dashboard_address=":0",
    )


def measure(where: str, n_rows: int, features: int, limit: int) -> None:
    """Say what an index took beyond what was there before, and what was projected."""
    index_tasks.MANY = 1000
    x = rows(n_rows, features)
    queries = np.asarray(x[:3000].values) + 0.1
    small = xr.DataArray(queries[:5000, :8], dims=("image", "feature"))
    ek.build_index(small[:200])  # imports and pools of threads
    ek.neighbors(small[:200], n_neighbors=1)
    with dask.config.set(scheduler="threads", num_workers=2):
        options = {"recall": 0.9, "memory_limit": limit or None}
        plan = ek.build_index(x, **options, plan_only=True)
        before = peak()
        with (
            cluster(plan.projected_mem, where=where) as made,
            nullcontext() if made is None else Client(made),
        ):
            index = ek.build_index(x, **options)
            for start in range(0, 3000, 1500):
                found = index.search(queries[start : start + 1500])
    told = {
        "took": peak() - before,
        "projected": plan.projected_mem,
        "planned": plan.kind,
        "kind": index.kind,
        "files": len(index.faiss),
        "plan_files": plan.n_files,
        "hit": float((found["indices"].values[:, 0] >= 0).mean()),
    }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    measure(sys.argv[1], *map(int, sys.argv[2:]))
