"""``embedkit extract``: images through a network into a store."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

import embedkit as ek
from embedkit.cli.layers import weights_of
from embedkit.cli.options import workers
from embedkit.cli.output import (
    common,
    emit,
    extraction_bar,
    line,
    say,
    size,
    stages,
)
from embedkit.errors import IncompleteStore

if TYPE_CHECKING:
    from embedkit.extraction.decoding import Decode
    from embedkit.extraction.rounding import Dtype
    from embedkit.networks.backends import Backend
    from embedkit.store.store import Store


@click.command(
    epilog="Example: embedkit extract photos -n resnet50 -l stages -o photos.zarr"
)
@click.argument("images")
@click.option(
    "-n",
    "--network",
    "networks",
    multiple=True,
    default=("resnet50",),
    help="May repeat: images are then read once for all.  [default: resnet50]",
)
@click.option("--weights", default="default", help="default, none, or a file.")
@click.option(
    "-l",
    "--layers",
    multiple=True,
    help="all, blocks, stages, last, a name or a glob; may repeat.  [default: stages]",
)
@click.option(
    "--pool",
    "pools",
    multiple=True,
    help="avg, max, gem, avg2x2, max2x2, cls, tokens_avg, flatten, none or "
    "'random_projection(64)'; LAYER=POOL for some layers alone.  [default: avg]",
)
@click.option(
    "--dtype",
    type=click.Choice(("float32", "float16")),
    default="float32",
    show_default=True,
    help="What layers are stored as.",
)
@click.option(
    "--backend",
    default="torch",
    show_default=True,
    help="torch, torch_channels_last, torch_fused, openvino, cuda_amp, or auto for the "
    "fastest that agrees with torch.",
)
@click.option(
    "--decode",
    type=click.Choice(("exact", "fast")),
    default="exact",
    show_default=True,
    help="fast: large JPEGs no larger than the network needs; says how far off that is.",
)
@click.option(
    "-o", "--out", required=True, type=click.Path(), help="The store to write."
)
@click.option("--path-column", help="For tables: the column that holds paths.")
@click.option("--id-column", help="For tables: the column that holds ids.")
@click.option(
    "--image-column", help="For Parquet files: the column that holds the images."
)
@click.option("--array", help="For HDF5 and Zarr files: the array of images.")
@click.option(
    "--root",
    type=click.Path(),
    help="For tables and lists: where relative paths start.",
)
@click.option("--batch-size", type=click.IntRange(1), help="Images per forward pass.")
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
@common
def extract(  # noqa: PLR0913 - every option is an argument
    *,
    images: str,
    networks: tuple[str, ...],
    weights: str,
    layers: tuple[str, ...],
    pools: tuple[str, ...],
    dtype: Dtype,
    backend: Backend,
    decode: Decode,
    out: str,
    path_column: str | None,
    id_column: str | None,
    image_column: str | None,
    array: str | None,
    root: str | None,
    batch_size: int | None,
    update: bool,
    add_network: bool,
    n_workers: int | None,
    as_json: bool,
) -> None:
    """Write networks' layers of IMAGES (folder, glob, file, table, shards) into a store.

    Run it again to finish what is missing, or with more images or layers to add them.
    One bad image is one row of NaN with a reason.
    """
    found = ek.open_images(
        images,
        path_column=path_column,
        id_column=id_column,
        image_column=image_column,
        array=array,
        root=root,
    )
    nets = [ek.load_network(name, weights=weights_of(weights)) for name in networks]
    say(repr(found).splitlines()[0])
    began = time.perf_counter()
    with workers(n_workers), extraction_bar() as show, _retry_told():
        store = ek.extract(
            found,
            nets,
            out,
            layers=wanted(layers),
            pool=pooled(pools),
            dtype=dtype,
            backend=backend,
            decode=decode,
            batch_size=batch_size,
            update=update,
            add_network=add_network,
            on_progress=show,
        )
    if as_json:
        emit(store.info())
    else:
        report(store, seconds=time.perf_counter() - began)


@contextmanager
def _retry_told() -> Iterator[None]:
    """Say which command goes on, when blocks had to be given up."""
    try:
        yield
    except IncompleteStore as error:
        command = shlex.join(["embedkit", *sys.argv[1:]])
        raise IncompleteStore(f"{error}. Retry: {command}") from error


def wanted(layers: tuple[str, ...]) -> str | list[str]:
    """Return the layers as `embedkit.extract` takes them."""
    if not layers:
        return "stages"
    return layers[0] if len(layers) == 1 else list(layers)


def pooled(pools: tuple[str, ...]) -> str | dict[str, str]:
    """Return ways of pooling as `embedkit.extract` takes them: one, or by layer."""
    given: dict[str, str] = {}
    for each in pools:
        layer, mark, _ = each.partition("(")[0].rpartition("=")
        key = layer if mark else "*"
        if key in given:
            message = f"--pool is given twice for {key!r}: {given[key]!r} and {each!r}"
            raise click.UsageError(message)
        given[key] = each[len(layer) + len(mark) :]
    rest = given.pop("*", "avg")
    return {**given, "*": rest} if given else rest


def report(store: Store, *, seconds: float) -> None:
    """Print what a store holds now and which images it lacks."""
    info = store.info()
    line(
        f"{info['path']}: {info['images']} images, {len(store)} layers, "
        f"{size(info['nbytes'])} of activations, {size(info['nbytes_stored'])} on disk, "
        f"{seconds:.1f} s"
    )
    line(stages(info))
    for about in info["networks"].values():
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
