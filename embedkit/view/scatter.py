"""The map as a static picture."""

from __future__ import annotations

from typing import Any, TypeAlias

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import compute
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from embedkit.errors import InputError, did_you_mean
from embedkit.view.palette import NOISE, Group, group
from embedkit.view.thumbnails import Images, draw, spread

Array: TypeAlias = npt.NDArray[Any]
Color: TypeAlias = str | xr.DataArray | npt.ArrayLike | None

_PLAIN = "#4c72b0"
_INK = "#333333"


def map(
    xy: xr.DataArray | xr.Dataset,
    *,
    color: Color = None,
    images: Images | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    max_thumbnails: int = 36,
    seed: int = 0,
) -> Axes:
    """Draw a map of the images.

    Parameters
    ----------
    xy : DataArray, dims (image, axis)
        Two coordinates per image, as `project` returns them; computed here. Rows with a
        NaN are skipped. A Dataset with such a variable ``map``, as a store loads it,
        will do.
    color : str, DataArray or array_like of shape (N,), optional
        A coordinate of `xy` by name, or one value per image. Floating-point numbers get
        a colour bar; anything else is a category in the legend, -1 being noise. Beyond
        20 categories the smallest become "other".
    images : object with ``read(i)``, optional
        An ImageSet: thumbnails of some of its images are drawn, spread over the map,
        none over another. Where `xy` has ids, images are found by id; else by row.
    title : str, optional
        Above the map.
    ax : Axes, optional
        Drawn into; by default a new figure of 9 by 7 inches.
    max_thumbnails : int, default 36
        Most thumbnails.
    seed : int, default 0
        Shuffles the order in which points are drawn, so that no category hides another.

    Returns
    -------
    Axes
        ``ax.figure.savefig("map.png")`` keeps the picture.

    Raises
    ------
    InputError
        If `xy` is not a map or has no finite row, or `color` or `images` do not fit it.
    """
    if isinstance(xy, xr.Dataset):
        xy = _map_of(xy)
    if images is not None and not hasattr(images, "read"):
        raise InputError(
            f"map got images={images!r}, from which nothing can be read; "
            "pass what open_images returns."
        )
    places, values, label = _load(xy, color)
    finite = np.isfinite(places).all(axis=1)
    if not finite.any():
        raise InputError(
            f"map got {len(places)} images and none of them has a place; "
            "all were unreadable or without neighbors."
        )
    rows = np.flatnonzero(finite)
    if ax is None:
        ax = plt.subplots(figsize=(9, 7), layout="constrained")[1]
    shade = None if values is None else values[rows]
    edges = _draw_points(ax, places[rows], shade, label=label, seed=seed)
    _frame(ax, places[rows], title)
    if images is not None:
        spots = spread(places[rows], most=max_thumbnails)
        names = _names(xy, images)[rows].tolist()
        draw(ax, images, xy=places[rows], spots=spots, names=names, edges=edges)
        _frame(ax, places[rows], title, margin=spots.side)  # imshow moved the limits
    return ax


def _map_of(result: xr.Dataset) -> xr.DataArray:
    """Return the map that a loaded result holds."""
    if "map" not in result:
        raise InputError(
            f"map needs a variable 'map' and got {[str(name) for name in result]}; "
            "pass what project returned."
        )
    return result["map"]


def _names(xy: xr.DataArray, images: Images) -> Array:
    """Return what each row's image is called: its id where both sides know ids."""
    if "image" in xy.coords and hasattr(images, "table"):
        return np.asarray(xy["image"].values.astype(object))
    return np.arange(xy.sizes["image"])


def _load(xy: xr.DataArray, color: Color) -> tuple[Array, Array | None, str]:
    """Compute places and values together, since they often share a graph."""
    if xy.dims != ("image", "axis") or xy.sizes["axis"] != 2:
        raise InputError(
            f"map needs dims ('image', 'axis') with two axes and got {dict(xy.sizes)}; "
            "pass what project returned."
        )
    if isinstance(color, str):
        if color not in xy.coords or xy.coords[color].dims != ("image",):
            names = [
                str(key) for key, each in xy.coords.items() if each.dims == ("image",)
            ]
            raise InputError(
                f"map found no column {color!r}. {did_you_mean(color, names)}"
            )
        label, color = color, xy.coords[color]
    else:
        label = str(getattr(color, "name", None) or "")
    places, values = compute(xy, color)
    if values is None:
        return np.asarray(places), None, label
    values = np.asarray(values)
    if values.shape != (len(places),):
        raise InputError(
            f"map got color of shape {values.shape} for {len(places)} images; "
            "pass one value for each image."
        )
    return np.asarray(places), values, label


def _draw_points(
    ax: Axes, xy: Array, values: Array | None, *, label: str, seed: int
) -> list[str]:
    """Draw all points; return the colour that frames each thumbnail."""
    if values is None:
        _scatter(ax, xy, np.arange(len(xy)), seed=seed, c=_PLAIN)
        return [_PLAIN] * len(xy)
    if values.dtype.kind == "f":
        _draw_numbers(ax, xy, values, label=label, seed=seed)
        return [_INK] * len(xy)
    groups = group(values)
    colors = np.full(len(xy), NOISE, dtype="<U7")
    for each in groups:
        colors[each.rows] = each.color
    behind = [each.rows for each in groups if each.behind]
    back = np.concatenate([np.empty(0, int), *behind])
    front = np.setdiff1d(np.arange(len(xy)), back)
    _scatter(ax, xy, back, seed=seed, c=colors, zorder=1)
    _scatter(ax, xy, front, seed=seed, c=colors, zorder=2)
    _legend(ax, groups, label)
    return [str(color) for color in colors]


def _draw_numbers(ax: Axes, xy: Array, values: Array, *, label: str, seed: int) -> None:
    """Draw numbers on a continuous scale, missing ones in grey behind."""
    known = np.isfinite(values)
    _scatter(ax, xy, np.flatnonzero(~known), seed=seed, c=NOISE, zorder=1)
    points = _scatter(ax, xy, np.flatnonzero(known), seed=seed, c=values, zorder=2)
    figure = ax.figure
    if isinstance(figure, Figure) and known.any():
        bar = figure.colorbar(
            points, ax=ax, label=label, shrink=0.6, aspect=30, pad=0.02
        )
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0, colors=_INK)


def _scatter(
    ax: Axes, xy: Array, rows: Array, *, seed: int, c: Any, zorder: int = 2
) -> Any:
    """Draw some of the points in a shuffled order."""
    rows = np.random.default_rng(seed).permutation(rows)
    return ax.scatter(
        xy[rows, 0],
        xy[rows, 1],
        c=c if isinstance(c, str) else c[rows],
        s=float(np.clip(600 / len(xy) ** 0.5, 1.5, 40)),  # points², so that none vanish
        alpha=0.85,
        linewidths=0,
        rasterized=True,  # a PDF of a million vector dots opens nowhere
        zorder=zorder,
    )


def _legend(ax: Axes, groups: list[Group], label: str) -> None:
    """Name the groups to the right of the map, with dots of one readable size."""
    handles = [
        Line2D(
            [],
            [],
            ls="",
            marker="o",
            ms=7,
            mec="none",
            color=each.color,
            label=each.name,
        )
        for each in groups
    ]
    ax.legend(
        handles=handles,
        title=label or None,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        borderaxespad=0,
        handletextpad=0.3,
        labelcolor=_INK,
        alignment="left",
    )


def _frame(ax: Axes, xy: Array, title: str | None, *, margin: float = 0.0) -> None:
    """Set limits, equal scales and the title; hide the axes, whose units mean nothing."""
    low, high = xy.min(axis=0), xy.max(axis=0)
    margin += 0.03 * float((high - low).max()) or 0.5
    ax.set_xlim(low[0] - margin, high[0] + margin)
    ax.set_ylim(low[1] - margin, high[1] + margin)
    ax.set_aspect("equal")
    ax.set_axis_off()
    if title is not None:
        ax.set_title(title, loc="left", fontsize=14, color=_INK, pad=12)
