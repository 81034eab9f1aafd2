"""Images that are given as such."""

import numpy as np
import pytest
from PIL import Image

from embedkit.errors import InputError
from embedkit.images.given import image_given


def test_pictures_and_arrays_become_rgb():
    """Pixels are kept; other modes are converted by the rule of files."""
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)

    np.testing.assert_array_equal(np.asarray(image_given(pixels)), pixels)
    np.testing.assert_array_equal(np.asarray(image_given(pixels[::-1])), pixels[::-1])
    assert image_given(Image.new("L", (3, 2), 7)).getpixel((0, 0)) == (7, 7, 7)


@pytest.mark.parametrize("value", ["cat.jpg", None, np.zeros(3), [[1]]])
def test_other_things_are_no_images(value):
    """Paths and vectors are for others to read."""
    assert image_given(value) is None


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((2, 2, 3)), np.zeros((2, 2, 4), np.uint8), np.zeros((0, 2, 3), np.uint8)],
)
def test_arrays_of_other_kinds_are_refused(pixels):
    """Three axes that hold no 8-bit RGB picture are a mistake."""
    with pytest.raises(InputError, match=r"must be uint8 of shape \(H, W, 3\), found"):
        image_given(pixels)
