"""What there is to run on: the workers of the active client, or else this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask.config
import psutil
from dask.system import CPU_COUNT
from distributed import get_client
from distributed.system import MEMORY_LIMIT
from distributed.utils import get_ip

_SYNCHRONOUS = ("sync", "synchronous", "single-threaded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Processes that blocks can run in.

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
    """

    n_workers: int
    threads: int
    cores: int
    memory_limit: int

    @property
    def memory(self) -> int:
        """Bytes of all of them together."""
        return self.n_workers * self.memory_limit


def active_cluster() -> Cluster:
    """Return the workers of the active client as they are now; without one, this process."""
    try:
        client = get_client()
    except ValueError:  # no client is active
        return _this_process()
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return _of_workers(list(workers))


def machine() -> Cluster:
    """Return this machine as a single process would have it."""
    return Cluster(
        n_workers=1, threads=CPU_COUNT, cores=CPU_COUNT, memory_limit=_available()
    )


def _this_process() -> Cluster:
    """Dask's threads in this process; nothing limits the cores of a forward pass."""
    threads = (
        1
        if dask.config.get("scheduler", None) in _SYNCHRONOUS
        else int(dask.config.get("num_workers", None) or CPU_COUNT)
    )
    return Cluster(
        n_workers=1, threads=threads, cores=CPU_COUNT, memory_limit=_available()
    )


def _of_workers(workers: Sequence[Mapping[str, Any]]) -> Cluster:
    limits = [each["memory_limit"] for each in workers if each["memory_limit"]]
    return Cluster(
        n_workers=len(workers),
        threads=max((each["nthreads"] for each in workers), default=0),
        cores=_cores(workers),
        memory_limit=min(limits) if limits else _available() // max(1, len(workers)),
    )


def _cores(workers: Sequence[Mapping[str, Any]]) -> int:
    """Count a core a thread; on this machine no more than it has.

    How many cores other machines have, workers do not tell.
    """
    hosts: Counter[str] = Counter()
    for each in workers:
        hosts[each["host"]] += each["nthreads"]
    here = ("127.0.0.1", "localhost", get_ip())
    return sum(
        min(threads, CPU_COUNT) if host in here else threads
        for host, threads in hosts.items()
    )


def _available() -> int:
    """Return what this process may have: its own memory, and what is free besides."""
    own: int = psutil.Process().memory_info().rss
    return min(psutil.virtual_memory().available + own, MEMORY_LIMIT)
