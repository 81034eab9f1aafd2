"""One image that was given as such: a PIL image, or an array of its pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from embedkit.errors import InputError
from embedkit.images.decode import to_rgb


def image_given(value: Any) -> Image.Image | None:
    """Return what was given as an RGB image, if it is one.

    Parameters
    ----------
    value : PIL image, or (H, W, 3) array of uint8
        Pixels are taken as they come: the orientation in the metadata of a PIL image is
        not applied.

    Returns
    -------
    PIL.Image.Image or None
        Mode RGB; None for anything that is neither a PIL image nor an array with three
        axes.

    Raises
    ------
    InputError
        For an array with three axes that holds no image.

    Examples
    --------
    >>> image_given(np.zeros((4, 6, 3), np.uint8)).size
    (6, 4)
    >>> image_given("cat.jpg") is None
    True
    """
    if isinstance(value, Image.Image):
        return to_rgb(value)
    if not isinstance(value, np.ndarray) or value.ndim != 3:
        return None
    if value.dtype != np.uint8 or value.shape[-1] != 3 or 0 in value.shape:
        raise InputError(
            f"an image as an array must be uint8 of shape (H, W, 3), found {value.dtype} "
            f"of shape {value.shape}; bring it into that form"
        )
    return Image.fromarray(np.ascontiguousarray(value))
