"""``embedkit duplicates``: images that are one picture, and leaks between splits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import click
import numpy as np

import embedkit as ek
from embedkit.cli.layers import weights_of
from embedkit.cli.options import (
    layer_of,
    layer_option,
    neighbors_of,
    opened,
    store_argument,
)
from embedkit.cli.output import common, emit, line, say, table
from embedkit.cli.plans import plan_options, planned_neighbors, show_plans
from embedkit.errors import StoreError

if TYPE_CHECKING:
    import xarray as xr

    from embedkit.store.store import Store

_SHOWN = 12


def _threshold(
    _ctx: click.Context, _param: click.Parameter, value: str
) -> float | Literal["auto"]:
    """Return what was written as a number, or ``auto``."""
    if value == "auto":
        return "auto"
    try:
        return float(value)
    except ValueError as error:
        message = f"{value!r} is neither 'auto' nor a number"
        raise click.BadParameter(message) from error


@click.command(
    epilog="Example: embedkit duplicates photos.zarr -l layer4 --split split"
)
@store_argument
@layer_option
@click.option(
    "--threshold",
    callback=_threshold,
    default="auto",
    show_default=True,
    help="Largest distance of two duplicates; auto measures it on altered copies.",
)
@click.option("--split", help="A column: find groups that reach several of its values.")
@click.option("--prefer", help="A column of numbers: keep the image with the largest.")
@click.option(
    "-k", "--n-neighbors", default=15, show_default=True, help="Neighbors an image."
)
@click.option(
    "--metric",
    type=click.Choice(("euclidean", "cosine")),
    default="cosine",
    show_default=True,
)
@click.option(
    "-n", "--network", help="The network, where it is not the one the store names."
)
@click.option("--weights", default="default", help="With -n: default, none, or a file.")
@plan_options
@common
def duplicates(  # noqa: PLR0913 - one for each option
    *,
    store: str,
    layer: str | None,
    threshold: float | Literal["auto"],
    split: str | None,
    prefer: str | None,
    n_neighbors: int,
    metric: Literal["euclidean", "cosine"],
    network: str | None,
    weights: str,
    dry_run: bool,
    memory_limit: str | None,
    as_json: bool,
) -> None:
    """Group the images of STORE that are one picture and save the groups in it."""
    data = opened(store)
    name = layer_of(data, layer)
    near: dict[str, Any] = {
        "n_neighbors": n_neighbors,
        "metric": metric,
        "recall": 1.0,
        "memory_limit": memory_limit,
    }
    asked: dict[str, Any] = {
        "threshold": threshold,
        "store": data,
        "memory_limit": memory_limit,
    }
    if dry_run:
        nn, plans = planned_neighbors(data, name, **near)
        plan = ek.duplicates(nn, **asked, plan_only=True)
        show_plans([*plans, plan], as_json=as_json)
        return
    nn = neighbors_of(data, name, **near)
    net = None
    if network is not None:
        net = ek.load_network(network, weights=weights_of(weights))
    found = ek.duplicates(nn, **asked, split=split, prefer=prefer, network=net)
    result = _saved(data, f"duplicates/{name}", found)
    report = _report(found, layer=name, result=result)
    if as_json:
        emit(report)
        return
    _show(found, report)


def _saved(store: Store, name: str, found: xr.Dataset) -> str | None:
    try:
        store.save(name, found)
    except StoreError as error:  # the groups are still worth seeing
        say(f"Not saved: {error}")
        return None
    return name


def _report(found: xr.Dataset, *, layer: str, result: str | None) -> dict[str, Any]:
    names = ("metric", "threshold", "n_groups", "n_duplicates", "n_saturated")
    more = [name for name in ("control", "leaks") if name in found.attrs]
    leak = {"n_leaks": int(found["leak"].sum())} if "leak" in found else {}
    return {
        "result": result,
        "layer": layer,
        **{name: found.attrs[name] for name in (*names, *more)},
        **leak,
        "groups": _members(found),
    }


def _members(found: xr.Dataset) -> list[list[str]]:
    """Return the ids of every group, the one to keep first."""
    group, keep = found["group"].values, found["keep"].values
    ids = found["image"].values.astype(object)
    order = np.lexsort((~keep, group))
    order = order[group[order] >= 0]
    ends = np.flatnonzero(np.diff(group[order])) + 1
    return [part.tolist() for part in np.split(ids[order], ends) if len(part)]


def _show(found: xr.Dataset, report: dict[str, Any]) -> None:
    line(
        f"{report['n_groups']} groups within {report['threshold']:.4g} by "
        f"{report['metric']} in {report['layer']}: {report['n_duplicates']} of "
        f"{found.sizes['image']} images are duplicates"
    )
    if "control" in report:
        line(_worth(report["control"]))
    if report["n_saturated"]:
        line(
            f"{report['n_saturated']} images have more duplicates than neighbors: "
            "a larger -k may join more groups"
        )
    if "leaks" in report:
        line(f"{report['n_leaks']} images have a duplicate in another split")
        rows = [
            (" × ".join(x["splits"]), x["groups"], x["images"]) for x in report["leaks"]
        ]
        table(rows, columns=("splits", ">groups", ">images"))
    groups = report["groups"]
    table(
        ((len(names), names[0], ", ".join(names[1:4])) for names in groups[:_SHOWN]),
        columns=(">images", "keep", "duplicates"),
    )
    if len(groups) > _SHOWN:
        line(f"… and {len(groups) - _SHOWN} more groups")
    if report["result"]:
        line(f"saved as {report['result']}")


def _worth(control: dict[str, Any]) -> str:
    """Say what a measured threshold is worth."""
    parts = [
        f"{name} {control[name]:.1%} ({low:.1%}–{high:.1%})"
        for name in ("precision", "recall")
        for low, high in [control[f"{name}_interval"]]
    ]
    return f"threshold measured on {control['n_copies']} altered copies: {', '.join(parts)}"
