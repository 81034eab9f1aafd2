"""``embedkit project``: a map of the images, as coordinates and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

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
from embedkit.cli.output import common, emit, line
from embedkit.cli.plans import plan_options, planned_graph, show_plans
from embedkit.errors import InputError, SourceError, did_you_mean

if TYPE_CHECKING:
    import xarray as xr

    from embedkit.analysis.pair_distances import Metric
    from embedkit.images.imageset import ImageSet
    from embedkit.store.store import Store


@click.command(
    epilog="Example: embedkit project photos.zarr -l layer4 --color label -o map.png"
)
@store_argument
@layer_option
@neighbor_options
@click.option(
    "--min-dist", default=0.1, show_default=True, help="How tightly points pack."
)
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--color",
    help="A column of the table, communities, or cluster.  [default: label, where there is one]",
)
@click.option(
    "--thumbnails/--no-thumbnails", default=False, help="Draw some of the images."
)
@click.option(
    "-o",
    "--out",
    type=click.Path(),
    help="The picture.  [default: <store>-<layer>.png]",
)
@plan_options
@common
def project(  # noqa: PLR0913 - every option is an argument
    *,
    store: str,
    layer: str | None,
    n_neighbors: int,
    metric: Metric,
    min_dist: float,
    seed: int,
    color: str | None,
    thumbnails: bool,
    out: str | None,
    dry_run: bool,
    memory_limit: str | None,
    as_json: bool,
) -> None:
    """Lay the images of STORE out on a map (UMAP), save it and draw it."""
    data = opened(store)
    name = layer_of(data, layer)
    picture = Path(out or f"{Path(store).stem}-{name.replace('/', '-')}.png")
    _check_place(picture)
    near: dict[str, Any] = {
        "n_neighbors": n_neighbors,
        "metric": metric,
        "memory_limit": memory_limit,
    }
    asked: dict[str, Any] = {
        "min_dist": min_dist,
        "seed": seed,
        "memory_limit": memory_limit,
    }
    if dry_run:
        graph, plans = planned_graph(data, name, **near)
        plan = ek.project(graph, **asked, plan_only=True)
        show_plans([*plans, plan], as_json=as_json)
        return
    graph = graph_of(data, name, **near)
    result = f"map/{name}"
    xy = kept(data, result, lambda: ek.project(graph, **asked))
    colors = _colors(data, xy, name, color)
    ek.pl.save_map(
        xy["map"],
        picture,
        color=colors,
        images=_readable(data) if thumbnails else None,
        title=f"{data.schema.n_images:,} images by {name} of {data[name].attrs['network']}",
    )
    if as_json:
        emit({"result": result, "layer": name, "picture": str(picture)})
    else:
        line(f"map of {name} saved in {store} as {result}, picture in {picture}")


def _check_place(picture: Path) -> None:
    folder = picture.absolute().parent
    if not folder.is_dir():
        raise InputError(
            f"cannot write {picture}: {folder} is no folder. Make it first"
        )
    if not picture.suffix or picture.is_dir():
        raise InputError(
            f"cannot write {picture}: name a file that ends with .png or so"
        )


def _colors(
    store: Store, xy: xr.Dataset, layer: str, color: str | None
) -> xr.DataArray | str | None:
    if color is None:
        return "label" if "label" in xy.coords else None
    if color in xy.coords and xy.coords[color].dims == ("image",):
        return color
    results = {"communities": "community", "cluster": "label"}
    if color in results:
        return store.load(f"{color}/{layer}")[results[color]]
    columns = [str(key) for key, each in xy.coords.items() if each.dims == ("image",)]
    known = [*columns, *results]
    raise InputError(
        f"nothing to colour by is called {color!r}. {did_you_mean(color, known)}"
    )


def _readable(store: Store) -> ImageSet:
    """Return the images again, from where the table says they are."""
    from embedkit.images.restore import restored  # heavy, and only for pictures

    table = store.images
    source = restored([uri for uri in table["uri"] if uri])
    if source is None:
        raise SourceError(
            f"{store.url} was made from an array or a dataset, whose pixels it does not "
            "hold: draw without --thumbnails"
        )
    unknown = np.full(len(table), -1, np.int64)
    return ek.ImageSet(table[["uri"]], source, unknown)
