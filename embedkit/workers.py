"""What there is to run on: the workers of the active client, or else this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask.config
import psutil
from dask.system import CPU_COUNT
from distributed import Client, get_client
from distributed.system import MEMORY_LIMIT
from distributed.utils import get_ip

_SYNCHRONOUS = ("sync", "synchronous", "single-threaded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Processes that tasks can run in.

    Parameters
    ----------
    n_workers : int
        Processes; 0 where a cluster has none yet.
    threads : int
        Tasks at a time in each, in the busiest where they differ.
    cores : int
        Processor cores of all of them together.
    memory_limit : int
        Bytes of one of them, of the smallest where they differ.
    tasks : int
        At a time, in all of them together.
    on_host : int
        Tasks at a time on the busiest machine.
    """

    n_workers: int
    threads: int
    cores: int
    memory_limit: int
    tasks: int
    on_host: int

    @property
    def memory(self) -> int:
        """Bytes of all of them together."""
        return self.n_workers * self.memory_limit


def active_client() -> Client | None:
    """Return the client in force; None where tasks run in this process."""
    try:
        return get_client()
    except ValueError:
        return None


def active_workers() -> Mapping[str, Mapping[str, Any]] | None:
    """Return what the scheduler tells of its workers, by address.

    Returns
    -------
    mapping or None
        None without a client.
    """
    client = active_client()
    if client is None:
        return None
    found: Mapping[str, Mapping[str, Any]]
    found = client.scheduler_info(n_workers=-1)["workers"]
    return found


def in_this_process() -> bool:
    """Whether all tasks run in this process, which their user may have filled."""
    return all(address.startswith("inproc://") for address in active_workers() or ())


def active_cluster() -> Cluster:
    """Return the workers of the active client as they are now; without one, this process."""
    workers = active_workers()
    return _this_process() if workers is None else _of_workers(list(workers.values()))


def cluster_of(addresses: Collection[str | None]) -> Cluster:
    """Return some workers of the active client as they are now, all that are still there.

    Parameters
    ----------
    addresses : collection of (str or None)
        Theirs.
    """
    workers = active_workers() or {}
    return _of_workers([told for each, told in workers.items() if each in addresses])


def machine() -> Cluster:
    """Return this machine as a single process would have it."""
    return alike(1, threads=CPU_COUNT, cores=CPU_COUNT, memory_limit=_available())


def alike(n_workers: int, *, threads: int, cores: int, memory_limit: int) -> Cluster:
    """Return workers on one machine that are all the same.

    Parameters
    ----------
    n_workers, threads, cores, memory_limit : int
        See `Cluster`.
    """
    tasks = n_workers * threads
    return Cluster(
        n_workers=n_workers,
        threads=threads,
        cores=cores,
        memory_limit=memory_limit,
        tasks=tasks,
        on_host=tasks,
    )


def _this_process() -> Cluster:
    """Dask's threads in this process; nothing limits the cores of a forward pass."""
    threads = (
        1
        if dask.config.get("scheduler", None) in _SYNCHRONOUS
        else int(dask.config.get("num_workers", None) or CPU_COUNT)
    )
    return alike(1, threads=threads, cores=CPU_COUNT, memory_limit=_available())


def _of_workers(workers: Sequence[Mapping[str, Any]]) -> Cluster:
    limits = [each["memory_limit"] for each in workers if each["memory_limit"]]
    hosts = _tasks_by_host(workers)
    return Cluster(
        n_workers=len(workers),
        threads=max((each["nthreads"] for each in workers), default=0),
        cores=_cores(hosts),
        memory_limit=min(limits) if limits else _available() // max(1, len(workers)),
        tasks=hosts.total(),
        on_host=max(hosts.values(), default=0),
    )


def _tasks_by_host(workers: Sequence[Mapping[str, Any]]) -> Counter[str]:
    hosts: Counter[str] = Counter()
    for each in workers:
        hosts[each["host"]] += each["nthreads"]
    return hosts


def _cores(hosts: Mapping[str, int]) -> int:
    """Count a core a task; on this machine no more than it has.

    How many cores other machines have, workers do not tell.
    """
    here = ("127.0.0.1", "localhost", get_ip())
    return sum(
        min(tasks, CPU_COUNT) if host in here else tasks
        for host, tasks in hosts.items()
    )


def _available() -> int:
    """Return what this process may have: its own memory, and what is free besides."""
    own: int = psutil.Process().memory_info().rss
    return min(psutil.virtual_memory().available + own, MEMORY_LIMIT)
