"""Small pictures of some images, where they stand in a map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

Floats: TypeAlias = npt.NDArray[np.floating[Any]]


# Cells along a side, per square root of thumbnails: enough that most cells are empty.
_FINENESS = 2.4
_REACH = 3.0  # cells between a point and its thumbnail; no eye follows longer lines
_PIXELS = 128  # longer side of a thumbnail: sharp in print, light in a file


class Images(Protocol):
    """What can be read by row number, or by id."""

    def read(self, i: int | str, /) -> npt.NDArray[np.uint8]:
        """Return image `i`: uint8 (H, W, 3)."""
        ...


@dataclass(frozen=True, slots=True)
class Spots:
    """Where thumbnails go.

    Attributes
    ----------
    rows : ndarray of int, shape (n,)
        The points that are shown.
    centers : ndarray, shape (n, 2)
        Center of each thumbnail, in units of the map.
    side : float
        Side of the square cells that hold one thumbnail each.
    """

    rows: npt.NDArray[np.intp]
    centers: Floats
    side: float


def spread(xy: Floats, *, most: int) -> Spots:
    """Choose points all over a map, and a place for the thumbnail of each.

    The map is cut into square cells. In each, the point nearest to the mean of its points
    can stand for it; crowded cells choose first, and keep a distance. A thumbnail goes to
    the nearest cell without points, so that it hides none, or onto its own cell where no
    empty one is near. No two share a cell, hence none overlap.

    Parameters
    ----------
    xy : ndarray, shape (N, 2)
        Finite places, at least one.
    most : int
        How many at most.

    Returns
    -------
    Spots
    """
    extent = float(np.ptp(xy, axis=0).max()) or 1.0
    cells = int(np.ceil(_FINENESS * max(1, most) ** 0.5))
    side = extent / cells
    low = xy.min(axis=0) - side  # one empty cell around the map
    cell = np.minimum(((xy - low) / side).astype(int), cells)
    free = np.ones((cells + 2, cells + 2), bool)
    free[tuple(cell.T)] = False
    middle = low + (np.argwhere(np.ones_like(free)) + 0.5) * side  # (cells², 2)
    empty, chosen, centers = free.ravel(), list[int](), list[Floats]()
    for row in _representatives(xy, cell @ [cells + 2, 1]):
        if len(chosen) == most:
            break
        if chosen and _gaps(xy[chosen], xy[row]).min() < side:
            continue
        spot = int(np.argmin(np.where(empty, _gaps(middle, xy[row]), np.inf)))
        if _gaps(middle[spot], xy[row]) > _REACH * side:
            spot = int(np.argmin(_gaps(middle, xy[row])))
        empty[spot] = False
        chosen.append(row)
        centers.append(middle[spot])
    return Spots(np.array(chosen, np.intp), np.reshape(centers, (-1, 2)), side)


def _representatives(xy: Floats, cell: npt.NDArray[np.intp]) -> list[int]:
    """Return the most central point of each cell, crowded cells first."""
    _, codes, sizes = np.unique(cell, return_inverse=True, return_counts=True)
    sums = [np.bincount(codes, weights=column) for column in xy.T]
    mean = np.stack(sums, axis=1) / sizes[:, None]  # (cells, 2)
    order = np.lexsort((_gaps(xy, mean[codes]), codes))  # by cell, the nearest first
    first = order[np.cumsum(sizes) - sizes]
    return [int(each) for each in first[np.argsort(-sizes, kind="stable")]]


def _gaps(a: Floats, b: Floats) -> Floats:
    """Distance between places, along the last axis."""
    return np.asarray(np.linalg.norm(a - b, axis=-1))


def draw(
    ax: Axes,
    images: Images,
    *,
    xy: Floats,
    spots: Spots,
    names: Sequence[int | str],
    edges: list[str],
) -> None:
    """Draw each image in its place, framed in a colour and tied to its point.

    Parameters
    ----------
    ax : Axes
        Drawn into, in units of its data.
    images : object with ``read(i)``
        The images.
    xy : ndarray, shape (N, 2)
        Places of the points.
    spots : Spots
        What to show, and where.
    names : list of int or str, N entries
        Row number or id of each point's image.
    edges : list of str, N entries
        Colour of each point.
    """
    for row, center in zip(spots.rows.tolist(), spots.centers, strict=True):
        ax.plot(*np.stack([xy[row], center]).T, color=edges[row], lw=0.8, zorder=3)
        image = shrink(np.asarray(images.read(names[row])))
        half = np.array(image.shape[1::-1]) / max(image.shape[:2]) * spots.side * 0.44
        (left, bottom), (right, top) = center - half, center + half
        ax.imshow(image, extent=(left, right, bottom, top), zorder=4, aspect="equal")
        frame = Rectangle((left, bottom), right - left, top - bottom, fill=False)
        frame.set(edgecolor=edges[row], linewidth=1.4, zorder=5)
        ax.add_patch(frame)


def shrink(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Shrink an image to at most 128 to 255 pixels a side, by averaging blocks.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        Any size.

    Returns
    -------
    ndarray of uint8, shape (H // s, W // s, 3)
        With s the whole number that brings the longer side to 128 or just above, as far
        as the shorter side allows.
    """
    step = max(1, min(max(image.shape[:2]) // _PIXELS, *image.shape[:2]))
    height, width = (size // step for size in image.shape[:2])
    blocks = image[: height * step, : width * step].reshape(
        height, step, width, step, -1
    )
    return np.asarray(blocks.mean(axis=(1, 3)).round(), np.uint8)
