"""``embedkit probe``: how much of a label every layer knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

import embedkit as ek
from embedkit.cli.options import opened, store_argument
from embedkit.cli.output import common, emit, line, table
from embedkit.cli.plans import plan_options, show_plans

if TYPE_CHECKING:
    import xarray as xr


@click.command(
    epilog="Example: embedkit probe photos.zarr --target label --table labels.csv --split split"
)
@store_argument
@click.option(
    "--target", default="label", show_default=True, help="The column to predict."
)
@click.option(
    "--table", "table_path", type=click.Path(), help="A CSV or Parquet with the target."
)
@click.option("--on", help="The table's column of image ids.  [default: found]")
@click.option("--split", help="The column that says train or test.  [default: folds]")
@click.option(
    "-l", "--layers", default="*", show_default=True, help="A name or a glob."
)
@click.option("--folds", default=5, show_default=True, type=click.IntRange(2))
@click.option("--seed", default=0, show_default=True)
@plan_options
@common
def probe(  # noqa: PLR0913 - every option is an argument
    *,
    store: str,
    target: str,
    table_path: str | None,
    on: str | None,
    split: str | None,
    layers: str,
    folds: int,
    seed: int,
    dry_run: bool,
    memory_limit: str | None,
    as_json: bool,
) -> None:
    """Train a linear probe on every layer of STORE and score it on held-out images."""
    data = opened(store)
    asked: dict[str, Any] = {
        "target": target,
        "table": table_path,
        "on": on,
        "layers": layers,
        "split": split,
        "folds": folds,
        "seed": seed,
        "memory_limit": memory_limit,
    }
    if dry_run:
        show_plans([ek.probe(data, **asked, plan_only=True)], as_json=as_json)
        return
    scores = ek.probe(data, **asked)
    data.save(f"probe/{target}", scores)
    if as_json:
        emit({"result": f"probe/{target}", **scores.attrs, "layers": rows(scores)})
        return
    print_scores(scores)
    line(f"saved in {store} as probe/{target}")


def measure_of(scores: xr.Dataset) -> str:
    """Return the measure that layers are ranked by."""
    return "accuracy" if "accuracy" in scores else "r2"


def rows(scores: xr.Dataset) -> list[dict[str, object]]:
    """Return one record per layer: means over folds, and the interval."""
    means = scores.mean("fold")
    return [
        {
            "layer": str(layer),
            **{
                str(name): float(means[name][i])
                for name in means.data_vars
                if means[name].dims == ("layer",)
            },
            "interval": [float(bound) for bound in scores["interval"][i]],
        }
        for i, layer in enumerate(scores["layer"].values)
    ]


def print_scores(scores: xr.Dataset) -> None:
    """Print the score of every layer, the best one marked."""
    measure = measure_of(scores)
    best = scores.attrs["best_layer"]
    table(
        (
            (
                row["layer"],
                f"{row[measure]:.3f}",
                "{:.3f} – {:.3f}".format(*row["interval"]),  # type: ignore[misc]
                "← best" if row["layer"] == best else "",
            )
            for row in rows(scores)
        ),
        columns=("layer", f">{measure}", ">95 % interval", ""),
    )
