"""Categories to colours that most eyes can tell apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_hex

from embedkit.analysis.rows import missing

# Okabe, Ito (2008), Color Universal Design; black last, yellow late: it is faint on white.
OKABE_ITO = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#cc79a7",
    "#56b4e9",
    "#f0e442",
    "#000000",
)
OTHER = "#8c8c8c"
NOISE = "#d9d9d9"
MOST = 20  # entries of a legend; beyond, the smallest categories share one


@dataclass(frozen=True, slots=True)
class Group:
    """The points of one entry in the legend.

    Attributes
    ----------
    name : str
        What the legend says.
    color : str
        As ``#rrggbb``.
    rows : ndarray of int, shape (n,)
        Which points.
    behind : bool
        Whether they are drawn first, below all others.
    """

    name: str
    color: str
    rows: npt.NDArray[np.intp]
    behind: bool = False


def group(values: npt.NDArray[Any]) -> list[Group]:
    """Sort points into coloured groups, the largest first.

    Parameters
    ----------
    values : ndarray, shape (N,)
        A category for each point. -1 is noise; None, NaN and "" are unlabelled.

    Returns
    -------
    list of Group
        At most 20 categories, the last of them "other" where there are more; then
        "noise" and "unlabelled" where there are any.
    """
    if values.dtype.kind == "T":  # numpy's variable-length text casts to objects only
        values = values.astype(object)
    absent = missing(values)
    noise = ~absent & (values.astype(str) == "-1")
    rows = np.flatnonzero(~absent & ~noise)
    kept = values[rows]
    names, first, codes, sizes = np.unique(
        kept.astype(str) if kept.dtype.kind == "O" else kept,
        return_index=True,
        return_inverse=True,
        return_counts=True,
    )
    order = np.lexsort((first, -sizes))
    shown = order if len(order) <= MOST else order[: MOST - 1]
    groups = [
        Group(str(names[each]), color, rows[codes == each])
        for each, color in zip(shown, colors(len(shown)), strict=True)
    ]
    rest = rows[~np.isin(codes, shown)]
    extra = [
        Group("other", OTHER, rest),
        Group("noise", NOISE, np.flatnonzero(noise), behind=True),
        Group("unlabelled", NOISE, np.flatnonzero(absent), behind=True),
    ]
    return groups + [each for each in extra if len(each.rows)]


def colors(n: int) -> list[str]:
    """Return `n` distinct colours, at most 20.

    Up to 8 are safe for colour-blind eyes; beyond, no set of colours is, and the strong
    half of matplotlib's tab20 comes before its pale half.

    Parameters
    ----------
    n : int
        How many.

    Returns
    -------
    list of str
        As ``#rrggbb``.
    """
    if n <= len(OKABE_ITO):
        return list(OKABE_ITO[:n])
    table = [to_hex(color) for color in mpl.colormaps["tab20"](np.arange(MOST))]
    return (table[0::2] + table[1::2])[:n]
