"""How a partition of the images (clusters, communities) is reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import embedkit as ek
from embedkit.cli.options import labels_in
from embedkit.cli.output import emit, line, table

if TYPE_CHECKING:
    import xarray as xr

SHOWN = 12


def show(
    groups: xr.DataArray, report: dict[str, Any], *, kind: str, as_json: bool
) -> None:
    """Print sizes of the groups, noise, and agreement with the labels where known."""
    numbers = groups.values
    sizes = {int(each): int((numbers == each).sum()) for each in sorted({*numbers})}
    noise = sizes.pop(-1, 0)
    report = report | {kind: len(sizes), "noise": noise, "sizes": sizes}
    labels = labels_in(groups.to_dataset(name="groups"))
    if labels is not None:
        both = ek.adjusted_rand(groups.values, labels.values)
        report["adjusted_rand"], report["adjusted_rand_without_noise"] = both
    if as_json:
        emit(report)
        return
    line(f"{len(sizes)} {kind} in {report['layer']}, {noise} images in none")
    if "modularity" in report:
        line(f"modularity {report['modularity']:.3f}")
    if labels is not None:
        line(
            f"agreement with the labels (adjusted Rand index): "
            f"{report['adjusted_rand']:.2f}, without noise "
            f"{report['adjusted_rand_without_noise']:.2f}"
        )
    largest = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
    columns = (kind, ">images", *(() if labels is None else ("commonest label",)))
    table(
        (
            (
                number,
                n,
                *(
                    ()
                    if labels is None
                    else (_commonest(labels.values[numbers == number]),)
                ),
            )
            for number, n in largest
        ),
        columns=columns,
    )
    line(f"saved as {report['result']}")


def _commonest(labels: Any) -> str:
    counts: dict[str, int] = {}
    for each in labels:
        counts[str(each)] = counts.get(str(each), 0) + 1
    best = max(counts, key=lambda label: counts[label])
    return f"{best} ({counts[best] / len(labels):.0%})"
