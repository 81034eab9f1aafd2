"""What tasks run on, and how many cores one may use: an equal part of its machine."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask.config
import psutil
from dask.system import CPU_COUNT
from dask.utils import parse_bytes
from distributed import get_client
from threadpoolctl import threadpool_limits

from embedkit.planning.neighbors import Machine

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
    on_machine = task_slots()
    try:
        workers = get_client().scheduler_info(n_workers=-1)["workers"].values()
    except ValueError:  # no client is active
        workers = ()
    given = min(
        (each["memory_limit"] for each in workers if each["memory_limit"]),
        default=psutil.virtual_memory().available,
    )
    return Machine(
        memory_limit=given // 2 if memory_limit is None else parse_bytes(memory_limit),
        slots=max((each["nthreads"] for each in workers), default=on_machine),
        on_machine=on_machine,
        workers=sum(each["nthreads"] for each in workers) or on_machine,
        threads=task_threads(on_machine),
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
