"""The kinds of machine that a run has, and how to measure on one of each."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import Any, TypeVar

import psutil
from dask.system import CPU_COUNT
from distributed import Client, KilledWorker, wait
from distributed.system import MEMORY_LIMIT

from embedkit.errors import PlanError
from embedkit.networks.machine import gpu, inner_threads, processor, version_of
from embedkit.networks.tracing import one_line
from embedkit.tasks import place_given_up, result_of
from embedkit.workers import active_client, active_workers

Result = TypeVar("Result")

_PACKAGES = ("embedkit", "torch", "torchvision", "openvino", "zarr", "numpy", "pillow")
"""Another version of one of them may need more memory or time."""

_BLOCKS = "embedkit.extraction.block.task"
"""What workers import before their first block."""

_WAKING = 10.0
"""Seconds that workers are waited for while they import it (chosen)."""

_ANSWERING = 90.0
"""Seconds that all workers are waited for which are to do something at once (chosen)."""

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
    beside : tuple of str
        Addresses of the workers that are alike on one machine, the measured one first;
        empty for this process.
    """

    processor: str
    cores: int
    inside: int
    memory: int
    limit: int
    threads: int
    gpu: str
    versions: tuple[tuple[str, str], ...]
    beside: tuple[str, ...] = ()

    @property
    def address(self) -> str | None:
        """Of a worker of this kind; None for this process."""
        return self.beside[0] if self.beside else None

    @property
    def kind(self) -> dict[str, Any]:
        """All that speed and memory depend on, as JSON can hold it.

        Bytes are rounded: nodes of one type differ by what their firmware keeps.
        """
        found = asdict(self)
        del found["beside"]
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
    `Machine.kind` is; the host with the most workers of a kind speaks for the others.
    """
    client = active_client()
    if client is None:
        return (machine_here(),)
    result_of(client.submit(int, pure=False))  # a cluster may have no worker yet
    workers = active_workers() or {}
    _wake(client, workers)
    alike: dict[tuple[Any, ...], list[str]] = {}
    for address, told in workers.items():
        resources = tuple(sorted(told.get("resources", {}).items()))
        worker = (told["nthreads"], told["memory_limit"], told["host"], resources)
        alike.setdefault(worker, []).append(address)
    kinds: dict[str, Machine] = {}
    for (threads, limit, *_), several in alike.items():
        if len(kinds) < _MOST_KINDS:
            here = on_worker(several[0], machine_here, threads, limit)
            found = replace(here, beside=tuple(several))
            most = kinds.setdefault(repr(found.kind), found)
            if len(found.beside) > len(most.beside):
                kinds[repr(found.kind)] = found
    return tuple(kinds.values())


def _wake(client: Client, addresses: Iterable[str]) -> None:
    """Let all workers import what blocks need, which is not a part of a measured run.

    It takes two seconds for the first time. One that is busy with something else is
    waited for a while only.
    """
    woken = [
        client.submit(import_module, _BLOCKS, workers=[each], pure=False)
        for each in addresses
    ]
    _wait(woken, seconds=_WAKING)


def _wait(futures: list[Any], *, seconds: float) -> None:
    """Wait for tasks until they have ended, their workers have gone, or the time is over."""
    with suppress(TimeoutError, CancelledError), place_given_up():
        wait(futures, timeout=seconds)


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
        When the worker dies of it, or has no room for what it is given.
    """
    client = active_client()
    if address is None or client is None:
        return function(*given)
    sent = _sent(client, address, given)
    future = client.submit(function, *sent, workers=[address], pure=False)
    try:
        result: Result = result_of(future)
    except (KilledWorker, CancelledError) as error:
        raise _lost(address, error) from error
    return result


def at_once(
    addresses: Sequence[str], function: Callable[..., Result], *given: Any
) -> list[Result]:
    """Call a function on some workers at the same time.

    Parameters
    ----------
    addresses : sequence of str
        Of the workers.
    function, given
        As for `on_worker`.

    Returns
    -------
    list
        Of those workers that have answered in time: others are busy with something else,
        have gone, or failed.
    """
    client = active_client()
    if client is None:
        return []
    futures: list[Any] = []
    for address in addresses:
        with suppress(PlanError):
            sent = _sent(client, address, given)
            futures.append(
                client.submit(function, *sent, workers=[address], pure=False)
            )
    _wait(futures, seconds=_ANSWERING)
    late = [each for each in futures if not each.done()]
    if late:
        client.cancel(late)
    return [each.result() for each in futures if each.status == "finished"]


def _sent(client: Client, address: str, given: Sequence[Any]) -> list[Any]:
    """Put values into the memory of a worker, and return what stands for them."""
    try:
        sent: list[Any] = client.scatter(list(given), workers=[address], hash=False)
    except (OSError, KeyError) as error:  # it went meanwhile, or takes nothing more
        raise _lost(address, error) from error
    return sent


def _lost(address: str, error: Exception) -> PlanError:
    why = one_line(error) or type(error).__name__
    return PlanError(
        f"worker {address} died while it was measured, or its memory is full ({why}): "
        "look into its log, or give workers more memory"
    )
