"""Images whose numbers are stored, and which cannot be read for a while."""

import numpy as np
import pytest

import embedkit as ek
from embedkit.errors import SourceError


@pytest.mark.parametrize("update", [False, True])
def test_numbers_are_not_given_up_for_an_image_that_is_away(
    update, photos, network, tmp_path
):
    """Nothing is written; the same call goes on once the image is back."""
    files = sorted(photos.rglob("*.png"))
    before = ek.extract(files, network, tmp_path / "s.zarr", layers="last")
    (layer,) = before
    rows = before[layer].values
    away = files[3].rename(tmp_path / "away.png")

    with pytest.raises(
        SourceError, match=r"1 images that cannot be read now .*update="
    ):
        ek.extract(files, network, tmp_path / "s.zarr", layers="last", update=update)

    np.testing.assert_array_equal(ek.open_store(tmp_path / "s.zarr")[layer], rows)
    away.rename(files[3])
    again = ek.extract(files, network, tmp_path / "s.zarr", layers="all", update=update)
    np.testing.assert_array_equal(again[layer], rows)


def test_an_image_that_was_never_read_may_stay_away(photos, network, tmp_path):
    """It has no numbers to lose."""
    files = [*sorted(photos.rglob("*.png")), photos / "none.png"]
    ek.extract(files, network, tmp_path / "s.zarr", layers="last")

    store = ek.extract(files, network, tmp_path / "s.zarr", layers="all", update=True)

    assert store.complete
    assert store.images["status"].iloc[-1] == "unreadable"
