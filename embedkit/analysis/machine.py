"""What tasks run on: workers, cores, memory."""

from __future__ import annotations

import psutil
from dask.utils import parse_bytes
from distributed import get_client

from embedkit.analysis.threads import task_slots, task_threads
from embedkit.planning.neighbors import Machine


def machine_for(memory_limit: int | str | None) -> Machine:
    """Return what tasks run on: the active cluster, or this process.

    Parameters
    ----------
    memory_limit : int, str or None
        What a process may take, such as ``"4GB"``. None for half of what the smallest
        worker has, or half of what is free in this process.

    Returns
    -------
    Machine
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
