"""``embedkit info``: what a store holds."""

from __future__ import annotations

import click

import embedkit as ek
from embedkit.cli.options import store_argument
from embedkit.cli.output import common, emit, line, size, stages, table, told_strategy


@click.command(epilog="Example: embedkit info photos.zarr")
@store_argument
@common
def info(*, store: str, as_json: bool) -> None:
    """Show what STORE holds: images, layers, bytes, progress, where it came from."""
    opened = ek.open_store(store)
    found = opened.info()
    if as_json:
        emit(found | {"results": opened.results})
        return
    state = "complete" if found["complete"] else "incomplete"
    line(
        f"{found['path']}: {state}, {found['blocks_done']} of {found['blocks']} blocks, "
        f"{found['images']} images, {found['unreadable']} unreadable"
    )
    for name, about in found["networks"].items():
        line(f"network {name}")
        for key in ("weights", "pool", "backend", "transform", "created", "embedkit"):
            line(f"  {key}: {' '.join(about[key].split()) or 'of a module'}")
        if about.get("strategy"):
            line(f"  {told_strategy(about)}")
        if about.get("deviation"):
            line(f"  decoded by {about['deviation']}")
    table(
        (
            (
                name,
                "×".join(map(str, layer["shape"])),
                layer["dtype"],
                size(layer["nbytes"]),
            )
            for name, layer in found["layers"].items()
        ),
        columns=("layer", "shape", "dtype", ">bytes"),
    )
    line(
        f"{size(found['nbytes'])} of activations, {size(found['nbytes_stored'])} on disk"
    )
    line(stages(found))
    if found["peak_mem"] > 0:
        line(f"largest process: {size(found['peak_mem'])}")
    line(f"results: {', '.join(opened.results) or 'none yet'}")
