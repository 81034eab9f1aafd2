"""``embedkit communities``: Leiden on the neighbor graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

import embedkit as ek
from embedkit.cli.options import (
    graph_of,
    kept,
    layer_of,
    layer_option,
    neighbor_options,
    opened,
    store_argument,
)
from embedkit.cli.output import common
from embedkit.cli.partition import show
from embedkit.cli.plans import plan_options, planned_graph, show_plans

if TYPE_CHECKING:
    from embedkit.analysis.pair_distances import Metric


@click.command(
    epilog="Example: embedkit communities photos.zarr -l layer4 --resolution 0.5"
)
@store_argument
@layer_option
@neighbor_options
@click.option(
    "--resolution",
    default=1.0,
    show_default=True,
    help="Higher: more, smaller communities.",
)
@click.option("--seed", default=0, show_default=True)
@plan_options
@common
def communities(  # noqa: PLR0913 - every option is an argument
    *,
    store: str,
    layer: str | None,
    n_neighbors: int,
    metric: Metric,
    resolution: float,
    seed: int,
    dry_run: bool,
    memory_limit: str | None,
    as_json: bool,
) -> None:
    """Group the images of STORE into communities of their neighbor graph."""
    data = opened(store)
    name = layer_of(data, layer)
    near: dict[str, Any] = {
        "n_neighbors": n_neighbors,
        "metric": metric,
        "memory_limit": memory_limit,
    }
    asked: dict[str, Any] = {
        "resolution": resolution,
        "seed": seed,
        "memory_limit": memory_limit,
    }
    if dry_run:
        graph, plans = planned_graph(data, name, **near)
        plan = ek.communities(graph, **asked, plan_only=True)
        show_plans([*plans, plan], as_json=as_json)
        return
    graph = graph_of(data, name, **near)
    result = f"communities/{name}"
    found = kept(data, result, lambda: ek.communities(graph, **asked)).compute()
    score = ek.modularity(graph, found["community"], resolution=resolution)
    show(
        found["community"],
        {"result": result, "layer": name, "modularity": score},
        kind="communities",
        as_json=as_json,
    )
