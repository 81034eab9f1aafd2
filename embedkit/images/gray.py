"""Gray levels of more than 8 bits, brought to 8 bits."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

_BAND_BYTES: Final = 1 << 22
"""Pixels are scaled in bands of about this size, in bytes (chosen: fits a CPU cache)."""

_Levels = npt.NDArray[np.uint16] | npt.NDArray[np.int32] | npt.NDArray[np.float32]


def gray_levels(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return the 8-bit gray levels of an image by the rule of `embedkit.images.decode`.

    Parameters
    ----------
    image : PIL.Image.Image
        Of mode I;16*, I or F.

    Returns
    -------
    (H, W) array of uint8
    """
    levels: _Levels = np.asarray(image)  # H W
    low, high = _bounds(levels)
    if image.mode != "F" and low >= 0 and high <= 65535:
        gray = _LEVELS_16[levels]
    elif image.mode == "F" and low >= 0 and high <= 255:
        gray = _stretch(levels, 0.0, 1.0 if high <= 1 else 255.0)
    else:
        gray = _stretch(levels, low, high)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        gray[levels == transparent] = 255  # over white
    return gray


# 257 is odd, so halves never occur and this is exactly round(x / 257).
_LEVELS_16: Final = ((np.arange(65536) + 128) // 257).astype(np.uint8)


def _bounds(levels: _Levels) -> tuple[float, float]:
    """Return the smallest and largest finite value; (0, 0) if none is finite."""
    finite = np.isfinite(levels)
    if not finite.any():
        return 0.0, 0.0
    low = levels.min(where=finite, initial=levels.flat[finite.argmax()])
    return float(low), float(levels.max(where=finite, initial=low))


def _stretch(levels: _Levels, low: float, high: float) -> npt.NDArray[np.uint8]:
    """Map low..high linearly to 0..255, rounded and clipped; NaN to 0."""
    scale = 255.0 / (high - low) if high > low else 0.0
    gray = np.empty(levels.shape, np.uint8)
    rows = max(1, _BAND_BYTES // (8 * levels.shape[1]))
    for top in range(0, len(levels), rows):
        band = (levels[top : top + rows].astype(np.float64) - low) * scale  # rows W
        gray[top : top + rows] = np.rint(np.nan_to_num(band.clip(0, 255), nan=0))
    return gray
