"""The kinds of machine that a run has, and how to measure on one of each."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import psutil
from dask.system import CPU_COUNT
from distributed import KilledWorker
from distributed.system import MEMORY_LIMIT

from embedkit.errors import PlanError
from embedkit.networks.machine import gpu, inner_threads, processor, version_of
from embedkit.networks.tracing import one_line
from embedkit.tasks import result_of
from embedkit.workers import active_client, active_workers

Result = TypeVar("Result")

_PACKAGES = ("embedkit", "torch", "torchvision", "openvino", "zarr", "numpy", "pillow")
"""Another version of one of them may need more memory or time."""

_MOST_KINDS = 4
"""Kinds of worker that are measured; a cluster of more is told by the first (chosen)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where tasks of a run are computed: a kind of worker, or this process.

    Parameters
    ----------
    processor : str
        What it is called.
    cores : int
        That a process there may use.
    inside : int
        Threads that a forward pass there uses at most: Dask's nannies allow their workers
        a single one.
    memory : int
        Bytes of the whole machine.
    limit : int
        Bytes that a worker may have.
    threads : int
        Tasks at a time in a worker; 0 in this process.
    gpu : str
        What the GPU is called; empty where there is none.
    versions : tuple of (str, str)
        Packages and Python.
    address : str, optional
        Of a worker of this kind; None for this process.
    """

    processor: str
    cores: int
    inside: int
    memory: int
    limit: int
    threads: int
    gpu: str
    versions: tuple[tuple[str, str], ...]
    address: str | None = None

    @property
    def kind(self) -> dict[str, Any]:
        """All that speed and memory depend on, as JSON can hold it.

        Bytes are rounded: nodes of one type differ by what their firmware keeps.
        """
        found = asdict(self)
        del found["address"]
        rounded = {"memory": self.memory // 2**30, "limit": self.limit // 2**26}
        return {**found, **rounded}


def machine_here(threads: int = 0, limit: int = 0) -> Machine:
    """Return the machine that this process runs on.

    Parameters
    ----------
    threads, limit : int
        As the scheduler knows them of a worker; 0 for what this process may have.
    """
    return Machine(
        processor=processor(),
        cores=CPU_COUNT,
        inside=inner_threads(),
        memory=int(psutil.virtual_memory().total),
        limit=limit or int(MEMORY_LIMIT),
        threads=threads,
        gpu=gpu(),
        versions=(
            ("python", platform.python_version()),
            *((name, version_of(name)) for name in _PACKAGES),
        ),
    )


def machines() -> tuple[Machine, ...]:
    """Return one worker of each kind on the active cluster, or this process.

    Workers are alike where host, threads, memory limit and resources are, and hosts where
    `Machine.kind` is.
    """
    client = active_client()
    if client is None:
        return (machine_here(),)
    result_of(client.submit(int, pure=False))  # a cluster may have no worker yet
    asked: dict[tuple[object, ...], tuple[str, int, int]] = {}
    for address, told in (active_workers() or {}).items():
        resources = tuple(sorted(told.get("resources", {}).items()))
        alike = (told["host"], told["nthreads"], told["memory_limit"], resources)
        asked.setdefault(alike, (address, told["nthreads"], told["memory_limit"]))
    kinds: dict[str, Machine] = {}
    for address, threads, limit in asked.values():
        if len(kinds) < _MOST_KINDS:
            found = on_worker(address, machine_here, threads, limit)
            kinds.setdefault(repr(found.kind), replace(found, address=address))
    return tuple(kinds.values())


def on_worker(
    address: str | None, function: Callable[..., Result], *given: Any
) -> Result:
    """Call a function on a worker, and here where there is none.

    Parameters
    ----------
    address : str or None
        Of a worker.
    function : callable
        A named function of a module.
    *given
        What it is given. What is large, such as bytes of a network, is sent beside it.

    Raises
    ------
    PlanError
        When the worker dies of it.
    """
    client = active_client()
    if address is None or client is None:
        return function(*given)
    sent = client.scatter(list(given), workers=[address], hash=False)
    future = client.submit(function, *sent, workers=[address], pure=False)
    try:
        result: Result = result_of(future)
    except KilledWorker as error:
        message = (
            f"worker {address} died while it was measured ({one_line(error)}): look into "
            "its log, or give workers more memory"
        )
        raise PlanError(message) from error
    return result
