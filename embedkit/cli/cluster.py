"""``embedkit cluster``: HDBSCAN* on one layer."""

from __future__ import annotations

from typing import Any, Literal

import click

import embedkit as ek
from embedkit.cli.options import kept, layer_of, layer_option, opened, store_argument
from embedkit.cli.output import common
from embedkit.cli.partition import show
from embedkit.cli.plans import plan_options, show_plans


@click.command(
    epilog="Example: embedkit cluster photos.zarr -l layer4 --min-cluster-size 20"
)
@store_argument
@layer_option
@click.option("--min-cluster-size", default=15, show_default=True)
@click.option("--min-samples", type=int, help="[default: the minimum cluster size]")
@click.option(
    "--metric",
    type=click.Choice(("euclidean", "cosine")),
    default="cosine",
    show_default=True,
)
@plan_options
@common
def cluster(
    *,
    store: str,
    layer: str | None,
    min_cluster_size: int,
    min_samples: int | None,
    metric: Literal["euclidean", "cosine"],
    dry_run: bool,
    memory_limit: str | None,
    as_json: bool,
) -> None:
    """Find dense clusters among the images of STORE; -1 is noise."""
    data = opened(store)
    name = layer_of(data, layer)
    result = f"cluster/{name}"
    asked: dict[str, Any] = {
        "min_cluster_size": min_cluster_size,
        "min_samples": min_samples,
        "metric": metric,
        "memory_limit": memory_limit,
    }
    if dry_run:
        plan = ek.cluster(data[name], **asked, plan_only=True)
        show_plans([plan], as_json=as_json)
        return
    found = kept(data, result, lambda: ek.cluster(data[name], **asked)).compute()
    show(
        found["label"],
        {"result": result, "layer": name},
        kind="clusters",
        as_json=as_json,
    )
