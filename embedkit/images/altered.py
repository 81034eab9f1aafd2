"""Copies of an image as they are met again: saved, resized, cut or brightened a little."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Alteration: TypeAlias = Literal["jpeg", "resize", "crop", "light", "flip"]
"""What is done to a copy before it is saved as JPEG; ``"jpeg"`` does nothing else."""

ALTERATIONS: Final[tuple[Alteration, ...]] = get_args(Alteration)

_QUALITY: Final = (60, 90)
_SCALE: Final = (0.7, 0.95)
_CUT: Final = (0.02, 0.05)
_LIGHT: Final = (0.9, 1.1)


def altered(
    image: Image.Image, alteration: Alteration, *, rng: np.random.Generator
) -> Image.Image:
    """Return an altered copy of an image, which is one picture to every person.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode RGB.
    alteration : str
        ``"resize"`` by 0.7 to 0.95; ``"crop"`` of 2 to 5 % of each side, anywhere;
        ``"light"``: brightness and contrast by up to 10 %; ``"flip"``, left to right; or
        ``"jpeg"`` alone. Every copy is then saved as JPEG of quality 60 to 90.
    rng : numpy Generator
        Draws the amounts.

    Returns
    -------
    PIL.Image.Image
        Mode RGB.
    """
    changed = _WAYS[alteration](image, rng)
    buffer = io.BytesIO()
    changed.save(buffer, "JPEG", quality=int(rng.integers(*_QUALITY, endpoint=True)))
    with Image.open(buffer) as copy:
        return copy.convert("RGB")


def _same(image: Image.Image, _rng: np.random.Generator) -> Image.Image:
    return image


def _resized(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    scale = rng.uniform(*_SCALE)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = (max(1, round(s * (1 - rng.uniform(*_CUT)))) for s in image.size)
    left = int(rng.integers(image.width - width, endpoint=True))
    top = int(rng.integers(image.height - height, endpoint=True))
    return image.crop((left, top, left + width, top + height))


def _lit(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    bright = ImageEnhance.Brightness(image).enhance(rng.uniform(*_LIGHT))
    return ImageEnhance.Contrast(bright).enhance(rng.uniform(*_LIGHT))


def _flipped(image: Image.Image, _rng: np.random.Generator) -> Image.Image:
    return ImageOps.mirror(image)


_WAYS: Final[dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]]] = {
    "jpeg": _same,
    "resize": _resized,
    "crop": _cropped,
    "light": _lit,
    "flip": _flipped,
}
