"""Altered copies: same picture, other bytes, within what is promised."""

import numpy as np
import pytest
from PIL import Image

from embedkit.images.altered import ALTERATIONS, altered


@pytest.fixture
def photo():
    """A smooth picture of 200 by 120 pixels."""
    x, y = np.meshgrid(np.linspace(0, 1, 200), np.linspace(0, 1, 120))
    pixels = np.stack([x, y, (x + y) / 2], axis=-1) * 200 + 20
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize("kind", ALTERATIONS)
def test_a_copy_is_near_its_original_and_drawn_from_the_generator(photo, kind):
    """The same generator gives the same copy, another one another, none the original."""
    once, again, other = (
        np.asarray(altered(photo, kind, rng=np.random.default_rng(seed)))
        for seed in (0, 0, 1)
    )

    np.testing.assert_array_equal(once, again)
    assert once.shape != other.shape or (once != other).any()
    view = Image.fromarray(once).resize(photo.size)
    view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if kind == "flip" else view
    gap = np.abs(np.asarray(view, float) - np.asarray(photo, float)).mean()
    assert 0 < gap < 30


def test_sizes_are_those_of_the_kind(photo):
    """Resized and cut copies are smaller by what is promised; others are as large."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        wide, high = altered(photo, "resize", rng=rng).size
        assert 0.7 <= wide / 200 <= 0.95
        assert wide / 200 == pytest.approx(high / 120, abs=0.01)
        wide, high = altered(photo, "crop", rng=rng).size
        assert 190 <= wide <= 196
        assert 114 <= high <= 118
        assert altered(photo, "light", rng=rng).size == photo.size


def test_a_single_pixel_survives():
    """Nothing is cut or shrunk away altogether."""
    dot = Image.new("RGB", (1, 1), (9, 9, 9))

    for kind in ALTERATIONS:
        assert altered(dot, kind, rng=np.random.default_rng(0)).size == (1, 1)
