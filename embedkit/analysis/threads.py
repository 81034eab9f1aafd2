"""What tasks run on, and how many cores one may use: an equal part of its machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dask.system import CPU_COUNT
from dask.utils import parse_bytes
from threadpoolctl import threadpool_limits

from embedkit.planning.neighbors import Machine
from embedkit.workers import active_cluster

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
    return max(1, active_cluster().on_host)


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


def machine(memory_limit: int | str | None) -> Machine:
    """Describe what tasks run on, for a plan.

    Parameters
    ----------
    memory_limit : int or str, optional
        What a process may take; by default half of what the smallest worker has, or half
        of what is free in this process.

    Returns
    -------
    Machine
        Of the active cluster; without one, of this process.
    """
    cluster = active_cluster()
    slots = max(1, cluster.on_host)
    given = cluster.memory_limit // 2
    return Machine(
        memory_limit=given if memory_limit is None else parse_bytes(memory_limit),
        slots=cluster.threads or slots,
        on_machine=slots,
        workers=cluster.tasks or slots,
        threads=task_threads(slots),
    )


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
