"""``embedkit info``: what a store holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

import embedkit as ek
from embedkit.cli.options import store_argument
from embedkit.cli.output import common, emit, line, stages, table, told_strategy
from embedkit.planning.units import told_bytes, told_count


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
                told_bytes(layer["nbytes"]),
            )
            for name, layer in found["layers"].items()
        ),
        columns=("layer", "shape", "dtype", ">bytes"),
    )
    line(
        f"{told_bytes(found['nbytes'])} of activations, {told_bytes(found['nbytes_stored'])} on disk"
    )
    line(stages(found))
    if found["peak_mem"] > 0:
        line(f"largest process: {told_bytes(found['peak_mem'])}")
    for each in found["planned"]:
        for told in _followed(each):
            line(told)
    for each in found["halved"]:
        line(_halved(each))
    line(f"results: {', '.join(opened.results) or 'none yet'}")


def _followed(plan: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines on what was planned and what was measured."""
    yield f"planned for {', '.join(plan['networks'])}, {plan['images']} images written:"
    yield (
        f"  memory of a worker: {told_bytes(plan['projected_mem'])} projected, "
        f"{_measured(plan['peak_mem'], told_bytes(plan['peak_mem']), plan['memory_ratio'])}"
    )
    seconds = f"{plan['seconds']:.1f} s"
    yield (
        f"  time in tasks: {plan['projected_seconds']:.1f} s projected, "
        f"{_measured(plan['seconds'], seconds, plan['time_ratio'])}"
    )
    yield (
        f"  waits for: {plan['waits_for']} projected, "
        f"{plan['bottleneck'] or 'nothing'} measured"
    )


def _measured(value: float, told: str, ratio: float | None) -> str:
    if value <= 0:
        return "not measured"
    return f"{told} measured" + (f" ({ratio:.0%})" if ratio is not None else "")


def _halved(found: Mapping[str, Any]) -> str:
    return (
        f"smaller batches: {found['batch_size']} instead of {found['instead_of']} for "
        f"{found['network']} in {told_count(found['blocks'], 'block')}, first in block "
        f"{found['block']} from row {found['row']} on ({found['why']})"
    )
