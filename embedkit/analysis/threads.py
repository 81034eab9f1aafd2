"""How many cores a task may use: an equal part of its machine."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask.config
from dask.system import CPU_COUNT
from distributed import get_client
from threadpoolctl import threadpool_limits

_lock = threading.Lock()
_inside = 0
_limits: Any = None


def task_slots() -> int:
    """Return how many tasks share a machine, where most do.

    Matrix products of many tasks at once, each on few threads, also spread the steps
    between the products over the cores; a product that takes all cores does not.

    Returns
    -------
    int
        Task threads of the busiest host of the active cluster; without a cluster, those
        of Dask's configured scheduler.
    """
    try:
        client = get_client()
    except ValueError:  # no client is active
        scheduler = dask.config.get("scheduler", None)
        if scheduler in ("sync", "synchronous", "single-threaded"):
            return 1
        return int(dask.config.get("num_workers", None) or CPU_COUNT)
    hosts: Counter[str] = Counter()
    for worker in client.scheduler_info(n_workers=-1)["workers"].values():
        hosts[worker["host"]] += worker["nthreads"]
    return max([1, *hosts.values()])


def task_threads(slots: int) -> int:
    """Return how many threads a task of this process may use.

    Parameters
    ----------
    slots : int
        Tasks that share the machine.

    Returns
    -------
    int
        At least 1.
    """
    return max(1, CPU_COUNT // slots)


@contextmanager
def limited_threads(slots: int) -> Iterator[None]:
    """Give BLAS the threads of a task, also where a nanny left it only one.

    Some builds of BLAS keep one number for the process and some one for each thread, so
    every task sets it. Leaving, a task puts back what it found, and the last of several
    what the first one found.

    Parameters
    ----------
    slots : int
        Tasks that share the machine.
    """
    global _inside, _limits
    with _lock:
        mine = threadpool_limits(task_threads(slots))
        _limits = _limits if _inside else mine
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            mine.restore_original_limits()
            if not _inside:
                _limits.restore_original_limits()
