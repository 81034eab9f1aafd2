"""``embedkit neighbors``: the nearest neighbors of every image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

import embedkit as ek
from embedkit.cli.options import (
    labels_in,
    layer_of,
    layer_option,
    neighbor_options,
    neighbors_of,
    opened,
    store_argument,
)
from embedkit.cli.output import common, emit, line, table
from embedkit.cli.plans import plan_options, planned_neighbors, show_plans
from embedkit.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import xarray as xr

    from embedkit.analysis.pair_distances import Metric


@click.command(
    epilog="Example: embedkit neighbors photos.zarr -l layer4 --query dogs/1.jpg"
)
@store_argument
@layer_option
@neighbor_options
@click.option(
    "--recall",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Share of the neighbors to find; below 1 it is measured.",
)
@click.option("--query", help="An image id: print its neighbors.")
@plan_options
@common
def neighbors(  # noqa: PLR0913 - every option is an argument
    *,
    store: str,
    layer: str | None,
    n_neighbors: int,
    metric: Metric,
    recall: float,
    query: str | None,
    dry_run: bool,
    memory_limit: str | None,
    as_json: bool,
) -> None:
    """Find the nearest neighbors of every image of STORE and save them in it."""
    data = opened(store)
    name = layer_of(data, layer)
    asked: dict[str, Any] = {
        "n_neighbors": n_neighbors,
        "metric": metric,
        "recall": recall,
        "memory_limit": memory_limit,
    }
    if dry_run:
        show_plans(planned_neighbors(data, name, **asked)[1], as_json=as_json)
        return
    nn = neighbors_of(data, name, **asked).compute()
    measured = None if nn.attrs["exact"] else nn.attrs["recall"]
    labels = labels_in(nn)
    report = {
        "result": f"neighbors/{name}",
        "layer": name,
        "n_neighbors": n_neighbors,
        "metric": metric,
        "recall": 1.0 if measured is None else measured,
        "median_distance": float(nn["distances"].median()),
        "label_accuracy": None if labels is None else ek.neighbor_accuracy(nn, labels),
    }
    hits = [] if query is None else _hits(nn, query)
    if as_json:
        emit(report | ({} if query is None else {"query": query, "hits": hits}))
        return
    line(
        f"{n_neighbors} nearest neighbors by {metric} of {nn.sizes['image']} images in "
        f"{name}, median distance {report['median_distance']:.4g}"
    )
    if measured is None:
        line(f"exact; {nn.attrs['certified']:.1%} of the rows proven in float32")
    else:
        low, high = nn.attrs["recall_low"], nn.attrs["recall_high"]
        line(f"recall {measured:.4f}, with 95 % between {low:.4f} and {high:.4f}")
    if labels is not None:
        line(f"neighbors outvote to the right label: {report['label_accuracy']:.1%}")
    if hits:
        table(
            ((hit["image"], f"{hit['distance']:.4f}", hit["label"]) for hit in hits),
            columns=(f"neighbors of {query}", ">distance", "label"),
        )
    line(f"saved in {store} as {report['result']}")


def _hits(nn: xr.Dataset, query: str) -> list[dict[str, object]]:
    """Return id, distance and label of every neighbor of one image."""
    ids = [str(each) for each in nn["image"].values]
    if query not in ids:
        raise InputError(f"no image {query!r} in the store. {did_you_mean(query, ids)}")
    row = nn.isel(image=ids.index(query))
    labels = labels_in(nn)
    return [
        {
            "image": ids[found],
            "distance": float(distance),
            "label": "" if labels is None else str(labels.values[found]),
        }
        for found, distance in zip(
            row["indices"].values, row["distances"].values, strict=True
        )
        if found >= 0
    ]
