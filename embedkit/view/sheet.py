"""Contact sheets: an image, and the images that a search found for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from embedkit.errors import EmbedkitError, InputError
from embedkit.images.restore import restored
from embedkit.view.thumbnails import Images

Pixels: TypeAlias = npt.NDArray[np.uint8]

_TILE = 1.5  # inches, the square that an image is fitted into
_GAP = 0.14
_CAPTION = 0.46  # two lines below a tile
_MARGIN = 0.22
_TITLE = 0.42
_BAND = 0.2  # more between two queries
_MOST_PIXELS = 480  # longer side of a tile's image: sharp in print
_LETTERS = 21  # of a label, so that it stays below its tile
_LETTER = 0.125  # inches, of a title

_INK, _FAINT, _EDGE = "#222222", "#767676", "#dededb"
_GROUND, _MISSING = "#f5f5f3", "#dcdcda"
_ACCENT = "#d55e00"  # Okabe, Ito (2008), as in `embedkit.view.palette`


def neighbors(
    hits: pd.DataFrame,
    *,
    images: Images | None = None,
    queries: Sequence[Pixels | None] = (),
    title: str | None = None,
    across: int = 6,
) -> Figure:
    """Draw a contact sheet of what a search found.

    Parameters
    ----------
    hits : DataFrame
        What `embedkit.search` returned. ``label`` is written below each image, if there
        is such a column.
    images : object with ``read(id)``, optional
        An ImageSet that holds the images found; by default they are read from where the
        column ``uri`` says.
    queries : sequence of uint8 (H, W, 3) arrays or None, optional
        The images that were searched for, one for each query in the order of `hits`; each
        stands framed before its hits. None is drawn as a grey tile.
    title : str, optional
        Above the sheet.
    across : int, default 6
        Tiles in a row, the query's included.

    Returns
    -------
    Figure
        ``figure.savefig("hits.png")`` keeps it. Images that cannot be read are grey tiles.

    Raises
    ------
    InputError
        If `hits` is no result of `search` or empty, `across` is below 2, or there are
        other than one query for each group of hits.
    """
    groups = _groups(hits, queries)
    if across < 2:
        raise InputError(f"neighbors got across={across}; choose 2 tiles or more")
    read = _reader(hits, images)
    framed = 1 if len(queries) else 0
    room = across - framed  # nothing stands below the query, so that it stands out
    widest = min(room, max(len(group) for _, group in groups))
    lines = [-(-len(group) // widest) for _, group in groups]
    sheet = _Sheet(lines, across=widest, before=framed, title=title)
    for number, (name, group) in enumerate(groups):
        if framed:
            picture = queries[number]
            sheet.tile(number, -1, None if picture is None else _small(picture))
            sheet.frame(number, -1)
            sheet.caption(number, -1, left="query", below=name, strong=True)
        said = _in_digits(group["distance"].to_numpy(np.float64))
        for place, (rank, hit) in enumerate(group.iterrows()):
            sheet.tile(number, place, read(hit))
            sheet.caption(
                number,
                place,
                left=str(rank),
                right=said[place],
                below=str(hit.get("label", "")),
            )
    return sheet.figure


def _groups(
    hits: pd.DataFrame, queries: Sequence[Any]
) -> list[tuple[str, pd.DataFrame]]:
    """Return the hits of each query, with its name where there are several."""
    if not {"id", "distance"} <= {*getattr(hits, "columns", ())}:
        raise InputError(
            f"neighbors needs a table with columns 'id' and 'distance' and got "
            f"{type(hits).__name__}; pass what search returned"
        )
    if not len(hits):
        raise InputError("neighbors got a table without hits; there is nothing to draw")
    if "query" in hits:
        found = [(str(name), part) for name, part in hits.groupby("query", sort=False)]
    else:
        found = [("", hits)]
    if len(queries) not in (0, len(found)):
        raise InputError(
            f"neighbors got {len(queries)} images for {len(found)} queries with hits; "
            "give one for each, or none"
        )
    return found


def _reader(
    hits: pd.DataFrame, images: Images | None
) -> Callable[[pd.Series[Any]], Pixels | None]:
    """Return what reads the image of a hit, None where it cannot be read."""
    source = None
    if images is None and "uri" in hits:
        source = restored([uri for uri in hits["uri"].astype(str) if uri])

    def read(hit: pd.Series[Any]) -> Pixels | None:
        try:
            if images is not None:
                return _small(images.read(str(hit["id"])))
            return None if source is None else _small(source.read(str(hit["uri"])))
        except EmbedkitError:  # a missing picture is no reason for no sheet
            return None

    return read


def _small(image: Any) -> Pixels:
    """Return an image with no more pixels than show."""
    pixels = np.asarray(image, np.uint8)
    step = max(1, max(pixels.shape[:2]) // _MOST_PIXELS)
    return pixels[::step, ::step]


def _in_digits(distances: npt.NDArray[np.float64]) -> list[str]:
    """Write distances with as many decimals as the largest needs for three digits."""
    largest = float(np.abs(distances).max())
    before = math.floor(math.log10(largest)) if largest > 0 else 0
    return [f"{each:.{max(0, 2 - before)}f}" for each in distances]


def _short(text: str, letters: int, *, end: bool) -> str:
    """Cut a text to what fits; of paths the end says more."""
    if len(text) <= letters:
        return text
    return f"…{text[1 - letters :]}" if end else f"{text[: letters - 1].rstrip()}…"


class _Sheet:
    """Tiles in rows, measured in inches from the top left corner."""

    def __init__(
        self, lines: Sequence[int], *, across: int, before: int, title: str | None
    ) -> None:
        self._across, self._before = across, before
        self._top = _MARGIN + (_TITLE if title else 0.0)
        high = _TILE + _CAPTION + _GAP
        starts = np.cumsum([0, *lines[:-1]])
        self._starts = [
            self._top + start * high + number * _BAND
            for number, start in enumerate(starts.tolist())
        ]
        self._size = (
            2 * _MARGIN + (across + before) * (_TILE + _GAP) - _GAP,
            self._top + sum(lines) * high + (len(lines) - 1) * _BAND,
        )
        self.figure = Figure(figsize=self._size, facecolor="white")
        if title:
            text = _short(title, int(self._size[0] / _LETTER), end=False)
            self._text(_MARGIN, _MARGIN, text, size=12, weight="bold", va="top")

    def tile(self, group: int, place: int, image: Pixels | None) -> None:
        """Draw an image into its square, or a grey square."""
        left, top = self._corner(group, place)
        if image is None:
            self._square(left, top, facecolor=_MISSING)
            middle = (left + _TILE / 2, top + _TILE / 2)
            self._text(*middle, "no picture", ha="center", va="center", color=_FAINT)
            return
        self._square(left, top, facecolor=_GROUND, zorder=-1)  # axes are at 0
        wide, high = (
            _TILE * side / max(image.shape[:2]) for side in image.shape[1::-1]
        )
        x, y = left + (_TILE - wide) / 2, top + (_TILE - high) / 2
        box = (*self._at(x, y + high), wide / self._size[0], high / self._size[1])
        ax = self.figure.add_axes(box)
        ax.imshow(image, aspect="auto", interpolation="antialiased")
        ax.set_axis_off()
        # A hairline, or pictures on white would have no edge.
        self._square(left, top, fill=False, edgecolor=_EDGE, linewidth=0.7)

    def frame(self, group: int, place: int) -> None:
        """Draw a frame around a tile, outside of it."""
        left, top = self._corner(group, place)
        self._square(left, top, fill=False, edgecolor=_ACCENT, linewidth=2.4)

    def caption(
        self,
        group: int,
        place: int,
        *,
        left: str,
        right: str = "",
        below: str = "",
        strong: bool = False,
    ) -> None:
        """Write below a tile: two words at its ends, and a line below them."""
        x, y = self._corner(group, place)
        y += _TILE + 0.07
        color = _ACCENT if strong else _INK
        self._text(x, y, left, weight="bold", color=color, va="top")
        self._text(x + _TILE, y, right, color=_FAINT, va="top", ha="right")
        self._text(x, y + 0.17, _short(below, _LETTERS, end=strong), va="top")

    def _corner(self, group: int, place: int) -> tuple[float, float]:
        """Return where a tile begins; place -1 is before the first."""
        line, column = divmod(place, self._across) if place >= 0 else (0, -1)
        left = _MARGIN + (column + self._before) * (_TILE + _GAP)
        return left, self._starts[group] + line * (_TILE + _CAPTION + _GAP)

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return x / self._size[0], 1 - y / self._size[1]

    def _square(self, left: float, top: float, **style: Any) -> None:
        size = (_TILE / self._size[0], _TILE / self._size[1])
        corner = self._at(left, top + _TILE)
        self.figure.add_artist(Rectangle(corner, *size, **{"linewidth": 0, **style}))

    def _text(self, x: float, y: float, text: str, **style: Any) -> None:
        fitting = {"size": 8, "color": _INK, "parse_math": False, **style}
        self.figure.text(*self._at(x, y), text, **fitting)
