"""What an analysis asks the planner: on what it runs, and how it is cut there."""

from __future__ import annotations

import psutil
from dask.utils import parse_bytes
from distributed import get_client

from embedkit.analysis.threads import task_slots, task_threads
from embedkit.planning.analyses import AnalysisModel, AnalysisSize, plan_analysis
from embedkit.planning.analysis_plan import AnalysisPlan
from embedkit.planning.neighbors import Machine


def machine_of(memory_limit: int | str | None = None) -> Machine:
    """Return what Dask tasks run on now: the active cluster, else this process.

    Parameters
    ----------
    memory_limit : int or str, optional
        What a process may take, such as ``"4GB"``. By default half of what the smallest
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


def planned(
    model: AnalysisModel,
    *,
    n_images: int,
    width: int,
    itemsize: int = 4,
    studies: int = 1,
    rows: int | None = None,
    memory_limit: int | str | None = None,
) -> AnalysisPlan:
    """Cut an analysis into tasks that fit where it would run now.

    Parameters
    ----------
    model : AnalysisModel
        What it takes.
    n_images, width, itemsize, studies : int
        How large it is; see `embedkit.planning.analyses.AnalysisSize`.
    rows : int, optional
        Rows of a task, where chunks decide them.
    memory_limit : int or str, optional
        As for `machine_of`.

    Returns
    -------
    AnalysisPlan

    Raises
    ------
    PlanError
        When the smallest tasks do not fit.
    """
    size = AnalysisSize(
        n_images=max(1, n_images),
        width=max(1, width),
        itemsize=itemsize,
        studies=studies,
    )
    return plan_analysis(model, size, machine=machine_of(memory_limit), rows=rows)
