"""``embedkit extract``: images through a network into a store."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

import embedkit as ek
from embedkit.cli.asking import Allowing, Asking, allows, asks, strategy_option
from embedkit.cli.options import workers
from embedkit.cli.output import (
    common,
    emit,
    extraction_bar,
    line,
    say,
    stages,
    told_strategy,
)
from embedkit.cli.plan import show
from embedkit.errors import IncompleteStore
from embedkit.extraction.plans.planned import NothingToPlan
from embedkit.planning.units import told_bytes

if TYPE_CHECKING:
    from embedkit.images.imageset import ImageSet
    from embedkit.networks.network import Network
    from embedkit.planning.strategies import AskedStrategy
    from embedkit.store.store import Store


@click.command(
    epilog="Example: embedkit extract photos -n resnet50 -l stages -o photos.zarr"
)
@asks
@click.option(
    "-o", "--out", required=True, type=click.Path(), help="The store to write."
)
@strategy_option
@click.option(
    "--update",
    is_flag=True,
    help="Compute changed images again; removed ones become rows of NaN.",
)
@click.option(
    "--add-network",
    is_flag=True,
    help="Put a second network's layers beside the first's.",
)
@click.option(
    "--workers",
    "n_workers",
    type=click.IntRange(0),
    help="Worker processes; 0 for none.  [default: one per core]",
)
@allows
@click.option(
    "--dry-run", is_flag=True, help="Say what would be written, needed and taken."
)
@common
def extract(  # noqa: PLR0913 - every option is an argument
    *,
    asking: Asking,
    allowing: Allowing,
    out: str,
    strategy: AskedStrategy,
    update: bool,
    add_network: bool,
    n_workers: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write networks' layers of IMAGES (folder, glob, file, table, shards) into a store.

    Run it again to finish what is missing, or with more images or layers to add them.
    One bad image is one row of NaN with a reason. What cannot fit is refused before
    anything is written.
    """
    if dry_run:
        show(
            asking,
            allowing,
            n_workers=n_workers,
            as_json=as_json,
            path=out,
            strategy=strategy,
        )
        return
    found = asking.opened()
    nets = asking.loaded()
    say(repr(found).splitlines()[0])
    began = time.perf_counter()
    with workers(n_workers), extraction_bar() as progress, _retry_told():
        store = ek.extract(
            found,
            nets,
            out,
            **asking.arguments,
            **_planned(asking, allowing, found, nets, out, strategy),
            strategy=strategy,
            update=update,
            add_network=add_network,
            on_progress=progress,
        )
    if as_json:
        emit(store.info())
    else:
        report(store, seconds=time.perf_counter() - began)


def _planned(
    asking: Asking,
    allowing: Allowing,
    found: ImageSet,
    nets: list[Network],
    out: str,
    strategy: AskedStrategy,
) -> dict[str, Any]:
    """Return the plan that keeps the limits that were given; none for a finished store."""
    if not allowing.given:
        return {}
    try:
        made = ek.plan(
            found,
            nets,
            path=out,
            strategy=strategy,
            **asking.arguments,
            **allowing.given,
        )
    except NothingToPlan:
        return {}
    say(made.describe().partition("\nwritten")[0])
    return {"plan": made}


@contextmanager
def _retry_told() -> Iterator[None]:
    """Say which command goes on, when blocks had to be given up."""
    try:
        yield
    except IncompleteStore as error:
        command = shlex.join(["embedkit", *sys.argv[1:]])
        raise IncompleteStore(f"{error}. Retry: {command}") from error


def report(store: Store, *, seconds: float) -> None:
    """Print what a store holds now and which images it lacks."""
    info = store.info()
    line(
        f"{info['path']}: {info['images']} images, {len(store)} layers, "
        f"{told_bytes(info['nbytes'])} of activations, {told_bytes(info['nbytes_stored'])} on disk, "
        f"{seconds:.1f} s"
    )
    line(stages(info))
    for about in info["networks"].values():
        if about.get("strategy"):
            line(f"{about['network']}: {told_strategy(about)}")
        if about["measured"]:
            line(f"{about['network']}: {about['measured']}")
        if about.get("deviation"):
            line(f"{about['network']}: decoded by {about['deviation']}")
    if not info["unreadable"]:
        return
    bad = store.images.query("status == 'unreadable'")
    count = "1 image" if len(bad) == 1 else f"{len(bad)} images"
    line(f"{count} could not be read: rows of NaN, with these reasons:")
    for name, reason in bad["error"].head(10).items():
        line(f"  {name}: {reason}")
    if len(bad) > 10:
        line(f"  … and {len(bad) - 10} more: see the store's `images` table")
