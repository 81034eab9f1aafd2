"""What ``--dry-run`` prints: the plans of everything that a command would compute."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias

import click
import dask.array as da
import numpy as np
import xarray as xr

import embedkit as ek
from embedkit.cli.options import saved_neighbors
from embedkit.cli.output import emit, line
from embedkit.planning.analysis_plan import AnalysisPlan
from embedkit.planning.neighbors import NeighborsPlan

if TYPE_CHECKING:
    from embedkit.analysis.pair_distances import Metric
    from embedkit.store.store import Store

AnyPlan: TypeAlias = AnalysisPlan | NeighborsPlan

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Print tasks and memory that it takes; do nothing."
)


def planned_neighbors(
    store: Store,
    layer: str,
    *,
    n_neighbors: int,
    metric: Metric,
    recall: float | None = None,
) -> tuple[xr.Dataset, list[AnyPlan]]:
    """Return the saved neighbors of a layer, or the plan of their search.

    Returns
    -------
    neighbors : Dataset
        Where none are saved, lists of the same shape that nobody may compute.
    plans : list
        Of the search, if there has to be one.
    """
    asked: dict[str, Any] = {"n_neighbors": n_neighbors, "metric": metric}
    found = saved_neighbors(store, layer, **asked, recall=recall)
    if found is not None:
        return found, []
    x = store[layer]
    plan = ek.neighbors(x, **asked, recall=recall or 1.0, plan_only=True)
    shape = (x.sizes["image"], n_neighbors)
    dims = ("image", "neighbor")
    blank = xr.Dataset(
        {
            "indices": (dims, da.zeros(shape, dtype=np.int64)),
            "distances": (dims, da.zeros(shape, dtype=np.float32)),
        },
        attrs={"metric": metric, "source": layer},
    )
    return blank, [plan]


def planned_graph(
    store: Store, layer: str, *, n_neighbors: int, metric: Metric
) -> tuple[xr.Dataset, list[AnyPlan]]:
    """Return the lazy graph of a layer's neighbors, and the plans of what makes it."""
    asked: dict[str, Any] = {"n_neighbors": n_neighbors, "metric": metric}
    nn, plans = planned_neighbors(store, layer, **asked)
    plan = ek.neighbor_graph(nn, plan_only=True)
    return ek.neighbor_graph(nn), [*plans, plan]


def show_plans(plans: Sequence[AnyPlan], *, as_json: bool) -> None:
    """Print plans, one after the other."""
    if as_json:
        emit({"plans": [_document(each) for each in plans]})
        return
    for each in plans:
        line(each.describe())
    if not plans:
        line("nothing to compute: it is saved")


def _document(plan: AnyPlan) -> dict[str, Any]:
    if not isinstance(plan, AnalysisPlan):
        return {"asked": "neighbors", **asdict(plan)}
    found: dict[str, Any] = json.loads(plan.to_json())
    return found
