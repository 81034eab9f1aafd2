"""Arguments and options that several commands share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click
import xarray as xr

import embedkit as ek
from embedkit.cli.main import debugging
from embedkit.cli.output import say
from embedkit.errors import IncompleteStore, StoreError

if TYPE_CHECKING:
    from distributed import Client

    from embedkit.analysis.pair_distances import Metric
    from embedkit.store.store import Store

_Command = TypeVar("_Command", bound=Callable[..., Any])

METRICS = ("euclidean", "cosine", "inner_product")

store_argument = click.argument("store", type=click.Path())
layer_option = click.option(
    "-l", "--layer", help="A layer of the store.  [default: the last]"
)


def neighbor_options(command: _Command) -> _Command:
    """Give a command ``--n-neighbors`` and ``--metric``."""
    count = click.option(
        "-k", "--n-neighbors", default=15, show_default=True, help="Neighbors an image."
    )
    metric = click.option(
        "--metric", type=click.Choice(METRICS), default="cosine", show_default=True
    )
    return count(metric(command))


def opened(path: str) -> Store:
    """Open a finished store.

    Raises
    ------
    IncompleteStore
        When blocks are missing.
    """
    store = ek.open_store(path)
    if not store.complete:
        done, blocks = store.blocks
        message = (
            f"{path} has {done} of its {blocks} blocks: run the same extract command "
            "again to finish it"
        )
        raise IncompleteStore(message)
    return store


def layer_of(store: Store, layer: str | None) -> str:
    """Return the stored name of the layer asked for, by default the last."""
    return str(store[layer].name) if layer is not None else list(store)[-1]


def kept(
    store: Store, name: str, make: Callable[[], xr.Dataset | xr.DataArray]
) -> xr.Dataset:
    """Return the saved result `name` where it was made by the same call, else make it.

    `make` builds lazily, so its attributes (source and parameters) are known before
    anything is computed.
    """
    lazy = make()
    if name in store.results:
        found = store.load(name)
        if found.attrs == _as_saved(lazy.attrs):
            return found
    return _kept(store, name, lazy)


def _kept(store: Store, name: str, result: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """Save a result and return it as it was saved."""
    try:
        store.save(name, result)
    except StoreError as error:  # the numbers are still worth seeing
        say(f"Not saved: {error}")
        return result if isinstance(result, xr.Dataset) else result.to_dataset()
    return store.load(name)


def _as_saved(attrs: dict[Any, Any]) -> dict[str, Any]:
    """Return attributes as they come back from JSON."""
    return {
        str(key): list(value) if isinstance(value, tuple) else value
        for key, value in attrs.items()
    }


def neighbors_of(
    store: Store,
    layer: str,
    *,
    n_neighbors: int,
    metric: Metric,
    recall: float | None = None,
    memory_limit: str | None = None,
) -> xr.Dataset:
    """Return the saved neighbors of a layer, or find and save them.

    Without a `recall`, saved ones of any are taken, and others are found exactly.
    """
    asked: dict[str, Any] = {"n_neighbors": n_neighbors, "metric": metric}
    found = saved_neighbors(store, layer, **asked, recall=recall)
    if found is not None:
        return found
    asked |= {"recall": recall or 1.0, "memory_limit": memory_limit}
    nn = ek.neighbors(store[layer], **asked)
    return _kept(store, f"neighbors/{layer}", nn)


def saved_neighbors(
    store: Store,
    layer: str,
    *,
    n_neighbors: int,
    metric: Metric,
    recall: float | None = None,
) -> xr.Dataset | None:
    """Return the saved neighbors of a layer that answer the question, if there are any."""
    name, x = f"neighbors/{layer}", store[layer]
    wanted = {each: x.attrs[each] for each in ("embedkit", "layer", "content")}
    wanted |= {"n_neighbors": n_neighbors, "metric": metric}
    if name in store.results:
        found = store.load(name)
        reached = 1.0 if found.attrs.get("exact") else found.attrs.get("recall_low", 0)
        same = all(found.attrs.get(key) == value for key, value in wanted.items())
        if same and reached >= (recall or 0):
            if reached < 1:
                say(f"Taking the saved neighbors, of recall {reached:.3f} or more.")
            return found
    return None


def graph_of(
    store: Store,
    layer: str,
    *,
    n_neighbors: int,
    metric: Metric,
    memory_limit: str | None = None,
) -> xr.Dataset:
    """Return the weighted graph of a layer's neighbors, lazily."""
    nn = neighbors_of(
        store, layer, n_neighbors=n_neighbors, metric=metric, memory_limit=memory_limit
    )
    return ek.neighbor_graph(nn, memory_limit=memory_limit)


def labels_in(result: xr.Dataset) -> xr.DataArray | None:
    """Return the table's column ``label``, where there is one."""
    for name in ("image_label", "label"):
        if name in result.coords:
            return result.coords[name]
    return None


@contextmanager
def workers(n_workers: int | None) -> Iterator[Client | None]:
    """Run the block on `n_workers` worker processes; 0 means in this process."""
    if n_workers == 0:
        yield None
        return
    level = logging.WARNING if debugging() else logging.CRITICAL
    with ek.connect(n_workers=n_workers, silence_logs=level) as client:
        say(f"{len(client.nthreads())} workers, dashboard {client.dashboard_link}")
        yield client
