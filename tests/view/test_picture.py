"""Maps as files."""

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from embedkit.errors import InputError
from embedkit.view.picture import save_map


@pytest.fixture
def xy():
    """Sixty places in two groups."""
    rng = np.random.default_rng(0)
    places = rng.normal(size=(60, 2)) + np.repeat([[0, 0], [9, 9]], 30, axis=0)
    return xr.DataArray(
        places.astype(np.float32),
        dims=("image", "axis"),
        coords={"label": ("image", ["cat"] * 30 + ["dog"] * 30)},
    )


def test_a_png_is_written_with_both_groups_colours(xy, tmp_path):
    """The picture is a readable PNG of its size, and not of one colour."""
    path = save_map(xy, tmp_path / "map.png", color="label", title="Cats and dogs")

    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.size == (1440, 1120)
        assert len(picture.convert("RGB").getcolors(maxcolors=2**20)) > 20


@pytest.mark.parametrize("name", ["missing/map.png", "map.nonsense"])
def test_a_picture_that_cannot_be_written_is_one_clear_error(xy, tmp_path, name):
    """A missing folder and an unknown format say what to do."""
    with pytest.raises(InputError, match=r"cannot write the picture .*ending such as"):
        save_map(xy, tmp_path / name)

    assert list(tmp_path.iterdir()) == []
