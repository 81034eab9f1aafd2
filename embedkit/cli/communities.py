"""``embedkit communities``: Leiden on the neighbor graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from embedkit.cli.plans import dry_run_option, planned_graph, show_plans

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
@dry_run_option
@common
def communities(
    *,
    store: str,
    layer: str | None,
    n_neighbors: int,
    metric: Metric,
    resolution: float,
    seed: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Group the images of STORE into communities of their neighbor graph."""
    data = opened(store)
    name = layer_of(data, layer)
    if dry_run:
        graph, plans = planned_graph(data, name, n_neighbors=n_neighbors, metric=metric)
        plan = ek.communities(graph, resolution=resolution, seed=seed, plan_only=True)
        show_plans([*plans, plan], as_json=as_json)
        return
    graph = graph_of(data, name, n_neighbors=n_neighbors, metric=metric)
    result = f"communities/{name}"
    found = kept(
        data, result, lambda: ek.communities(graph, resolution=resolution, seed=seed)
    ).compute()
    score = ek.modularity(graph, found["community"], resolution=resolution)
    show(
        found["community"],
        {"result": result, "layer": name, "modularity": score},
        kind="communities",
        as_json=as_json,
    )
