"""How a partition of the images (clusters, communities) is reported."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

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
    found, counts = np.unique(numbers, return_counts=True)
    sizes = dict(zip(found.tolist(), counts.tolist(), strict=True))
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
            f"{report['adjusted_rand']:.2f}"
            + (f", without noise {both[1]:.2f}" if np.isfinite(both[1]) else "")
        )
    largest = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
    rows: list[list[object]] = [[number, count] for number, count in largest]
    columns = [kind, ">images"]
    if labels is not None:
        columns.append("commonest label")
        for row in rows:
            row.append(_commonest(labels.values[numbers == row[0]]))
    table(rows, columns=columns)
    line(f"saved as {report['result']}")


def _commonest(labels: Any) -> str:
    best, count = Counter(str(each) for each in labels).most_common(1)[0]
    return f"{best} ({count / len(labels):.0%})"
