"""Maps as picture files, drawn without any window."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from embedkit.errors import InputError
from embedkit.view.scatter import map as draw_map
from embedkit.view.sheet import neighbors as draw_neighbors

DOTS_PER_INCH = 160


def save_map(xy: Any, path: str | PathLike[str], **options: Any) -> Path:
    """Draw a map of the images into a file.

    Parameters
    ----------
    xy : DataArray, dims (image, axis)
        What `embedkit.project` returned.
    path : path
        The picture; its ending says the format (png, pdf, svg).
    **options
        As for `embedkit.pl.map`: `color`, `images`, `title`.

    Returns
    -------
    Path
        The picture's path.

    Raises
    ------
    InputError
        When the map cannot be drawn, or the picture cannot be written there.
    """
    figure = Figure(figsize=(9, 7), layout="constrained")
    draw_map(xy, ax=figure.subplots(), **options)
    return _written(figure, path)


def save_neighbors(
    hits: pd.DataFrame, path: str | PathLike[str], **options: Any
) -> Path:
    """Draw a contact sheet of what a search found into a file.

    Parameters
    ----------
    hits : DataFrame
        What `embedkit.search` returned.
    path : path
        The picture; its ending says the format (png, pdf, svg).
    **options
        As for `embedkit.pl.neighbors`: `images`, `queries`, `title`, `across`.

    Returns
    -------
    Path
        The picture's path.

    Raises
    ------
    InputError
        When there is nothing to draw, or the picture cannot be written there.
    """
    return _written(draw_neighbors(hits, **options), path)


def _written(figure: Figure, path: str | PathLike[str]) -> Path:
    try:
        figure.savefig(path, dpi=DOTS_PER_INCH)
    except (OSError, ValueError) as error:
        message = (
            f"cannot write the picture {path}: {error}: choose a folder that is there "
            "and that you can write to, and an ending such as .png"
        )
        raise InputError(message) from error
    return Path(path)
