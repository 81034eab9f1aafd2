"""What commands print: tables for people, JSON for machines, progress on stderr."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from embedkit.planning.stages import AHEAD, IN_TURN

if TYPE_CHECKING:
    from embedkit.extraction.run import Progress as Extracted

_Command = TypeVar("_Command", bound=Callable[..., Any])

PLAIN_SECONDS = 10.0


def common(command: _Command) -> _Command:
    """Give a command the options that every one has: ``--json`` and ``--debug``."""
    json_option = click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document."
    )
    debug_option = click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_remember_debug,
        help="Show tracebacks.",
    )
    return json_option(debug_option(command))


def _remember_debug(_ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click calls it so
    if value:
        os.environ["EMBEDKIT_DEBUG"] = "1"


def say(message: str) -> None:
    """Print a line for people on stderr."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(message, markup=False)


def emit(document: object) -> None:
    """Print one JSON document on stdout."""
    click.echo(json.dumps(_finite(document), indent=2, default=str, allow_nan=False))


def _finite(value: object) -> object:
    """Return the document with null for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def line(message: str) -> None:
    """Print a line on stdout."""
    Console(soft_wrap=True, highlight=False).print(message, markup=False)


def stages(info: Mapping[str, Any]) -> str:
    """Say in one line where the time of an extraction went, and what held it up."""
    seconds = info["seconds"]
    if not seconds.get("total"):
        return "time in tasks: none yet"
    turn, ahead = (
        ", ".join(f"{each} {seconds[each]:.1f} s" for each in names if each in seconds)
        for names in (IN_TURN, AHEAD)
    )
    beside = f" ({ahead} in threads beside)" if ahead else ""
    return f"time in tasks: {turn}{beside}; bottleneck: {info['bottleneck']}"


def told_strategy(about: Mapping[str, str]) -> str:
    """Say in one line how the layers of a network were computed, and why so."""
    how = {
        "staged": "each from the raw map before it",
        "lazy": "each from the images",
    }[about["strategy"]]
    return f"layers computed {about['strategy']}, {how}: {about['strategy_why']}"


def table(
    rows: Iterable[Sequence[object]], *, columns: Sequence[str], title: str = ""
) -> None:
    """Print rows under headings; headings that start with ``>`` align right."""
    drawn = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        right = column.startswith(">")
        drawn.add_column(column.lstrip(">"), justify="right" if right else "left")
    for row in rows:
        drawn.add_row(*(Text(str(cell)) for cell in row))
    console = Console()
    wide = Console(width=160) if not console.is_terminal else console
    wide.print(drawn)


@contextmanager
def extraction_bar() -> Iterator[Callable[[Extracted], None]]:
    """Show an extraction's progress: a bar on a terminal, else a line now and then."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_progress()
        return
    columns = (
        TextColumn("extracting"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("extract", total=None, speed="starting workers")

        def show(progress: Extracted) -> None:
            bar.update(
                task,
                completed=progress.images_done,
                total=progress.n_images,
                speed=_speed(progress),
            )

        yield show


def _plain_progress() -> Callable[[Extracted], None]:
    last = -PLAIN_SECONDS

    def show(progress: Extracted) -> None:
        nonlocal last
        ended = progress.images_done == progress.n_images
        if ended or time.monotonic() - last >= PLAIN_SECONDS:
            last = time.monotonic()
            say(
                f"extracting: {progress.images_done} of {progress.n_images} images, "
                f"{_speed(progress)}"
            )

    return show


def _speed(progress: Extracted) -> str:
    done = progress.images_done - progress.images_before
    bad = f", {progress.n_failed} unreadable" if progress.n_failed else ""
    return f"{done / max(progress.seconds, 1e-9):.0f} images/s{bad}"
