"""``embedkit index``: a search index of one layer, saved beside the store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click

import embedkit as ek
from embedkit.cli.options import METRICS, layer_of, layer_option, opened, store_argument
from embedkit.cli.output import common, emit, line
from embedkit.errors import InputError
from embedkit.files.files import is_url
from embedkit.retrieval.indexed import index_folder

if TYPE_CHECKING:
    from embedkit.analysis.pair_distances import Metric
    from embedkit.store.store import Store


class _Asked(TypedDict):
    """What an index is built with, or planned."""

    recall: float
    n_neighbors: int
    metric: Metric
    memory_limit: str | None


@click.command(epilog="Example: embedkit index photos.zarr -l layer4 --recall 0.99")
@store_argument
@layer_option
@click.option(
    "--recall",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Share of the nearest images to find; it is measured.",
)
@click.option(
    "-k",
    "--n-neighbors",
    default=10,
    show_default=True,
    help="How many neighbors the recall is about.",
)
@click.option(
    "--metric", type=click.Choice(METRICS), default="cosine", show_default=True
)
@click.option(
    "-o",
    "--out",
    metavar="DIR",
    help="Where to save it.  [default: photos.index/LAYER beside photos.zarr]",
)
@click.option(
    "--memory-limit", metavar="SIZE", help="What the index may take, such as 2GB."
)
@click.option("--dry-run", is_flag=True, help="Tell what it would take; build nothing.")
@common
def index(  # noqa: PLR0913 - one for each option
    *,
    store: str,
    layer: str | None,
    recall: float,
    n_neighbors: int,
    metric: Metric,
    out: str | None,
    memory_limit: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Build a search index of a layer of STORE, for ``embedkit search --index``."""
    data = opened(store)
    name = layer_of(data, layer)
    folder = _folder(data, name, out)
    asked: _Asked = {
        "recall": recall,
        "n_neighbors": n_neighbors,
        "metric": metric,
        "memory_limit": memory_limit,
    }
    if dry_run:
        plan = ek.build_index(data[name], **asked, plan_only=True)
        emit(asdict(plan)) if as_json else line(plan.describe())
        return
    built = ek.build_index(data[name], **asked)
    built.save(folder)
    if as_json:
        emit(
            {
                "folder": str(folder),
                "layer": name,
                "kind": built.kind,
                "metric": built.metric,
                "n_images": len(built),
                "n_neighbors": n_neighbors,
                "nbytes": built.nbytes,
                **built.recall.attrs(),
            }
        )
        return
    line(repr(built))
    line(f"saved in {folder}")


def _folder(store: Store, layer: str, out: str | None) -> Path:
    """Return where to save, known before anything is built."""
    if out is None:
        return index_folder(store, layer)
    folder = Path(out).resolve()
    if is_url(out) or folder.is_relative_to(Path(store.url).resolve()):
        raise InputError(
            f"an index cannot be saved in {out}; give a folder of this machine outside "
            "of the store, or leave -o out."
        )
    return folder
