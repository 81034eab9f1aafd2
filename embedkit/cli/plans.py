"""What ``--dry-run`` prints: the plans of everything that a command would compute."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import click
import dask.array as da
import numpy as np
import xarray as xr
from dask.utils import parse_bytes

import embedkit as ek
from embedkit.cli.options import saved_neighbors
from embedkit.cli.output import emit, line
from embedkit.planning.analysis_plan import AnalysisPlan
from embedkit.planning.near import NearPlan
from embedkit.planning.neighbors import NeighborsPlan

if TYPE_CHECKING:
    from embedkit.analysis.pair_distances import Metric
    from embedkit.store.store import Store

AnyPlan: TypeAlias = AnalysisPlan | NeighborsPlan | NearPlan

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _size(
    _ctx: click.Context, _param: click.Parameter, value: str | None
) -> str | None:
    """Return a size that can be read, as it was written."""
    try:
        parse_bytes(value or 0)
    except ValueError as error:
        message = f"{value!r} is no size: write one such as 2GB"
        raise click.BadParameter(message) from error
    return value


def plan_options(command: _Command) -> _Command:
    """Give a command ``--dry-run`` and ``--memory-limit``."""
    dry_run = click.option(
        "--dry-run",
        is_flag=True,
        help="Tell tasks and memory that it takes; do nothing.",
    )
    memory_limit = click.option(
        "--memory-limit",
        metavar="SIZE",
        callback=_size,
        help="What a process may take, such as 2GB.  [default: half of what is free]",
    )
    return memory_limit(dry_run(command))


def planned_neighbors(
    store: Store,
    layer: str,
    *,
    n_neighbors: int,
    metric: Metric,
    recall: float | None = None,
    memory_limit: str | None = None,
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
    asked |= {"recall": recall or 1.0, "memory_limit": memory_limit}
    plan = ek.neighbors(x, **asked, plan_only=True)
    shape = (x.sizes["image"], n_neighbors)
    dims = ("image", "neighbor")
    blank = xr.Dataset(
        {  # nobody computes them
            "indices": (dims, da.zeros(shape, dtype=np.int64)),
            "distances": (dims, da.zeros(shape, dtype=np.float32)),
        },
        attrs={"metric": metric, "source": layer},
    )
    return blank, [plan]


def planned_graph(
    store: Store,
    layer: str,
    *,
    n_neighbors: int,
    metric: Metric,
    memory_limit: str | None = None,
) -> tuple[xr.Dataset, list[AnyPlan]]:
    """Return the lazy graph of a layer's neighbors, and the plans of what makes it."""
    nn, plans = planned_neighbors(
        store, layer, n_neighbors=n_neighbors, metric=metric, memory_limit=memory_limit
    )
    plan = ek.neighbor_graph(nn, memory_limit=memory_limit, plan_only=True)
    return ek.neighbor_graph(nn, memory_limit=memory_limit), [*plans, plan]


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
