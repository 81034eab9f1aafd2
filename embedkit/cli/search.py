"""``embedkit search``: the stored images nearest to an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import numpy as np

import embedkit as ek
from embedkit.cli.layers import weights_of
from embedkit.cli.options import METRICS, layer_of, layer_option, opened, store_argument
from embedkit.cli.output import common, emit, line, table
from embedkit.cli.plans import plan_options, show_plans
from embedkit.errors import EmbedkitError, NotInStore

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from embedkit.analysis.pair_distances import Metric
    from embedkit.store.store import Store


@click.command(
    epilog="Example: embedkit search photos.zarr query.jpg -l layer4 --where \"label == 'dog'\""
)
@store_argument
@click.argument("query", nargs=-1, required=True)
@layer_option
@click.option(
    "-k", "--n-neighbors", default=10, show_default=True, help="Hits per query."
)
@click.option(
    "--metric",
    type=click.Choice(METRICS),
    help="[default: cosine, or that of the index]",
)
@click.option(
    "--index",
    metavar="DIR",
    help="Ask this index, without --where; auto: the one beside STORE.",
)
@click.option("--where", help="A condition on the image table: which are searched.")
@click.option("--column", "columns", multiple=True, help="One more column to show.")
@click.option("--sheet", type=click.Path(), help="A picture of the hits to write.")
@click.option(
    "-n", "--network", help="The network, where it is not the one the store names."
)
@click.option("--weights", default="default", help="With -n: default, none, or a file.")
@plan_options
@common
def search(  # noqa: PLR0913 - one for each option
    *,
    store: str,
    query: tuple[str, ...],
    layer: str | None,
    n_neighbors: int,
    metric: Metric | None,
    index: str | None,
    where: str | None,
    columns: tuple[str, ...],
    sheet: str | None,
    network: str | None,
    weights: str,
    dry_run: bool,
    memory_limit: str | None,
    as_json: bool,
) -> None:
    """Find the images of STORE nearest to each QUERY: an image file, a URL, or an id."""
    data, query = opened(store), tuple(dict.fromkeys(query))
    name = layer_of(data, layer)
    if dry_run:
        plan = ek.search(
            data, list(query), layer=name, memory_limit=memory_limit, plan_only=True
        )
        show_plans([plan], as_json=as_json)
        return
    net = None
    if network is not None:
        net = ek.load_network(network, weights=weights_of(weights))
    known = [each for each in ("label",) if each in data.columns()]
    shown = list(dict.fromkeys([*known, *columns, "uri"]))
    found = ek.search(
        data,
        list(query),
        layer=name,
        n_neighbors=n_neighbors,
        where=where,
        metric=metric or ("cosine" if index is None else None),
        index=index,
        columns=shown,
        network=net,
        memory_limit=memory_limit,
    )
    if sheet is not None and len(found):
        _draw(data, query, found, sheet=sheet, where=where)
    if as_json:
        records = found.reset_index().to_dict("records")
        emit(
            {**found.attrs, "n_neighbors": n_neighbors, "where": where, "hits": records}
        )
        return
    _show(found, query, n_neighbors)
    if sheet is not None:
        line(f"drawn into {sheet}" if len(found) else "nothing to draw")


def _show(found: pd.DataFrame, query: tuple[str, ...], n_neighbors: int) -> None:
    about = found.attrs
    line(
        f"nearest by {about['metric']} in {about['layer']}, {about['searched']} searched"
        f"{_how(about)}"
    )
    hidden = ("query", "id", "distance", "uri")  # the uri mostly repeats the id
    extra = [each for each in found.columns if each not in hidden]
    for name in query:
        hits = found[found["query"] == name]
        line(f"to {name}:")
        table(
            (
                (
                    rank,
                    f"{hit['distance']:.4f}",
                    hit["id"],
                    *(hit[each] for each in extra),
                )
                for rank, hit in hits.iterrows()
            ),
            columns=(">rank", ">distance", "image", *extra),
        )
        if len(hits) < n_neighbors:
            line(f"only {len(hits)} images can be found")


def _how(about: dict[Any, Any]) -> str:
    """Say what the index did, where one was given."""
    if "index" not in about:
        return ""
    if about["index"] is None:
        return " exactly, without the index, as there is a condition"
    low, high = about["recall_low"], about["recall_high"]
    return (
        f" by an index ({about['index']}), recall {about['recall']:.4f} "
        f"[{low:.4f}, {high:.4f}]"
    )


def _draw(
    store: Store,
    query: tuple[str, ...],
    found: pd.DataFrame,
    *,
    sheet: str,
    where: str | None,
) -> None:
    """Draw the sheet of those queries that found something."""
    about = found.attrs
    title = f"nearest by {about['metric']} in {about['layer']}"
    ek.pl.save_neighbors(
        found,
        sheet,
        queries=[
            _picture(store, name) for name in query if (found["query"] == name).any()
        ],
        title=title if where is None else f"{title} where {where}",
    )


def _picture(store: Store, name: str) -> npt.NDArray[np.uint8] | None:
    """Read a query's image again, from the store's uri or its own file."""
    from embedkit.images.restore import restored

    try:
        (row,) = store.locate(name)
    except NotInStore:
        return ek.open_images([name]).read(0)
    uri = str(store.columns()["uri"][row].values)
    source = restored([uri])
    try:
        return None if source is None else np.asarray(source.read(uri))
    except EmbedkitError:
        return None
