"""To what size a transform resizes images, as far as that can be told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from torch import nn

_RESIZES: Final = {
    ("embedkit", "DigitsTransform"): "size",
    ("timm", "ResizeKeepRatio"): "size",
    ("torchvision", "ImageClassification"): "resize_size",
    ("torchvision", "Resize"): "size",
}
"""The attribute that holds the size in pixels, by package and class of a step."""

_KEEPS_SIZE: Final = frozenset(
    {
        ("timm", "MaybePILToTensor"),
        ("timm", "MaybeToTensor"),
        ("torchvision", "ConvertImageDtype"),
        ("torchvision", "PILToTensor"),
        ("torchvision", "ToDtype"),
        ("torchvision", "ToImage"),
        ("torchvision", "ToTensor"),
    }
)
"""Steps before the resize that look at no more than one pixel at a time."""


def resized_to(transform: object) -> int | None:
    """Return how many pixels of an image's shorter side a transform makes use of.

    The first step that does more than to change types has to be a resize of torchvision,
    of timm or of embedkit itself. The size that a network takes is no substitute: a
    transform that crops first sees every pixel of what is left.

    Parameters
    ----------
    transform : callable
        A network's; steps in a ``Compose`` or ``Sequential`` are looked into.

    Returns
    -------
    int or None
        An image whose shorter side has as many pixels is not enlarged; None where that
        cannot be told.

    Examples
    --------
    >>> from embedkit.networks.bundled.digits import DigitsTransform
    >>> resized_to(DigitsTransform(size=20))
    20
    >>> resized_to(lambda image: image) is None
    True
    """
    for step in _steps(transform):
        kind = _kind(step)
        if kind not in _KEEPS_SIZE:
            return _largest(step, _RESIZES[kind]) if kind in _RESIZES else None
    return None


def _kind(step: object) -> tuple[str, str]:
    """Return the package and the name of a step's class."""
    return type(step).__module__.partition(".")[0], type(step).__name__


def _steps(transform: object) -> Iterator[object]:
    """Yield the steps of a transform in order."""
    if _kind(transform) == ("torchvision", "Compose"):
        inner = getattr(transform, "transforms", ())
    elif isinstance(transform, nn.Sequential):
        inner = tuple(transform)
    else:
        yield transform
        return
    for each in inner:
        yield from _steps(each)


def _largest(step: object, attribute: str) -> int | None:
    """Return the larger one of the sides that a step resizes to."""
    size = getattr(step, attribute, None) or getattr(step, "max_size", None)
    sides = size if isinstance(size, list | tuple) else [size]
    whole = [side for side in sides if isinstance(side, int) and side > 0]
    return max(whole) if whole and len(whole) == len(sides) else None
