"""``embedkit layers``: what can be read from a network, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

import embedkit as ek
from embedkit.cli.output import common, emit, line, table
from embedkit.planning.units import told_bytes

if TYPE_CHECKING:
    from collections.abc import Hashable

    import pandas as pd


@click.command(epilog="Example: embedkit layers resnet50 --weights none --pick stages")
@click.argument("network")
@click.option("--weights", default="default", help="default, none, or a file.")
@click.option(
    "--pick", default="all", help="all, stages, blocks, last, a name or a glob."
)
@common
def layers(*, network: str, weights: str, pick: str, as_json: bool) -> None:
    """List the layers of NETWORK: type, shape, size and cost, before any image is read."""
    net = ek.load_network(network, weights=weights_of(weights))
    chosen = net.layers.loc[list(net.resolve(pick))]
    if as_json:
        emit({"network": net.name, "layers": _records(chosen)})
        return
    line(repr(net))
    table(
        (
            (
                name,
                row["type"],
                _shape(row["shape"]),
                row["format"],
                told_bytes(row["nbytes_full"]),
                row["features"],
                told_bytes(row["nbytes"]),
                f"{row['flops'] / 1e9:.3f}",
            )
            for name, row in chosen.iterrows()
        ),
        columns=(
            "layer",
            "type",
            "shape",
            "format",
            ">whole",
            ">features",
            ">pooled",
            ">GFLOP",
        ),
    )
    line(
        f"{len(chosen)} layers, {told_bytes(int(chosen['nbytes'].sum()))} per image, pooled"
    )


def weights_of(given: str) -> str | None:
    """Return what ``--weights`` means: None for random weights, else itself."""
    return None if given == "none" else given


def _records(chosen: pd.DataFrame) -> list[dict[Hashable, Any]]:
    return chosen.reset_index().to_dict("records")


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
