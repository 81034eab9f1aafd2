"""``embedkit verify``: prove what a store holds."""

from __future__ import annotations

import sys

import click

import embedkit as ek
from embedkit.cli.layers import weights_of
from embedkit.cli.options import store_argument, workers
from embedkit.cli.output import common, emit, line, table

_DAMAGED = 3
"""Exit status of a store that is damaged, apart from 1 and 2, which are errors."""


@click.command(epilog="Example: embedkit verify photos.zarr --sample 32 --repair")
@store_argument
@click.option(
    "--sample",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Rows of each network to compute again and compare.",
)
@click.option("--repair", is_flag=True, help="Compute damaged blocks again.")
@click.option(
    "-n", "--network", help="The network, where it is not the one the store names."
)
@click.option("--weights", default="default", help="With -n: default, none, or a file.")
@click.option("--seed", default=0, show_default=True, help="Of the choice of rows.")
@click.option(
    "--workers",
    "n_workers",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Worker processes; 0 for none.",
)
@common
def verify(
    *,
    store: str,
    sample: int,
    repair: bool,
    network: str | None,
    weights: str,
    seed: int,
    n_workers: int,
    as_json: bool,
) -> None:
    """Check every block of STORE against its record; recompute rows; repair.

    The exit status is 3 when something is damaged, and stays so.
    """
    net = (
        None
        if network is None
        else ek.load_network(network, weights=weights_of(weights))
    )
    with workers(n_workers):
        found = ek.verify(store, network=net, sample=sample, repair=repair, seed=seed)
    if as_json:
        emit(
            {
                "ok": found.ok,
                "blocks": found.blocks,
                "pending": found.pending,
                "nbytes": found.nbytes,
                "sampled": found.sampled,
                "max_error": found.max_error,
                "repaired": found.repaired,
                "damage": found.damage.to_dict("records"),
            }
        )
    else:
        line(f"{store}: {found}")
        if not found.ok:
            columns = ("network", "layer", "block", "start", "stop", "problem")
            table(found.damage[list(columns)].itertuples(index=False), columns=columns)
    if not found.ok:
        sys.exit(_DAMAGED)
