"""What an analysis asks the planner: how it is cut where it would run now."""

from __future__ import annotations

from embedkit.analysis.threads import machine
from embedkit.planning.analyses import plan_analysis
from embedkit.planning.analysis_costs import AnalysisModel, AnalysisSize
from embedkit.planning.analysis_plan import AnalysisPlan


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
        How large it is; see `embedkit.planning.analysis_costs.AnalysisSize`.
    rows : int, optional
        Rows of a task, where chunks decide them.
    memory_limit : int or str, optional
        What a process may take; see `embedkit.analysis.threads.machine`.

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
    return plan_analysis(model, size, machine=machine(memory_limit), rows=rows)
