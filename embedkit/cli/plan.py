"""``embedkit plan``: what an extraction would write, need and take."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from dask.system import CPU_COUNT

import embedkit as ek
from embedkit.cli.asking import Allowing, Asking, allows, asks, strategy_option
from embedkit.cli.output import common, emit, line, say

if TYPE_CHECKING:
    from embedkit.planning.strategies import AskedStrategy


@click.command(
    epilog="Example: embedkit plan photos -n resnet50 -l stages --memory-limit '2 GiB'"
)
@asks
@click.option(
    "-o", "--out", type=click.Path(), help="The store that will be written, if any."
)
@click.option("--block", type=click.IntRange(1), help="Images per task and file.")
@click.option(
    "--workers",
    "n_workers",
    type=click.IntRange(0),
    help="Worker processes; 0 for none.  [default: one per core]",
)
@click.option(
    "--threads", type=click.IntRange(1), help="Tasks at a time in each.  [default: 1]"
)
@strategy_option
@allows
@click.option("--refresh", is_flag=True, help="Measure again what is known.")
@common
def plan(  # noqa: PLR0913 - every option is an argument
    *,
    asking: Asking,
    allowing: Allowing,
    out: str | None,
    block: int | None,
    n_workers: int | None,
    threads: int | None,
    strategy: AskedStrategy,
    refresh: bool,
    as_json: bool,
) -> None:
    """Say what extracting IMAGES would write, need and take; nothing is written.

    What networks take is measured here, once, for about half a minute.
    """
    show(
        asking,
        allowing,
        n_workers=n_workers,
        as_json=as_json,
        path=out,
        block=block,
        threads=threads,
        strategy=strategy,
        refresh=refresh,
    )


def show(
    asking: Asking,
    allowing: Allowing,
    *,
    n_workers: int | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Print the plan of a run on worker processes of this machine; start none of them."""
    found = asking.opened()
    say(repr(found).splitlines()[0])
    made = ek.plan(
        found,
        asking.loaded(),
        **asking.arguments,
        **allowing.given,
        **{**given, **processes(n_workers, given.get("threads"))},
    )
    if as_json:
        emit(json.loads(made.to_json()))
    else:
        line(made.describe())


def processes(n_workers: int | None, threads: int | None) -> dict[str, int | None]:
    """Return the workers that ``extract`` starts, as `embedkit.plan` takes them."""
    if n_workers == 0:
        return {"n_workers": None, "threads": threads}
    each = threads or 1
    return {"n_workers": n_workers or max(1, CPU_COUNT // each), "threads": each}
