"""The held-out digits as files."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from embedkit.errors import SourceError
from embedkit.networks.bundled.digits_data import digits_split
from embedkit.networks.bundled.held_out import write_held_out


def test_every_picture_is_written_once(tmp_path):
    """One folder for each digit, and in them the test part, bit for bit."""
    folder = write_held_out(tmp_path / "digits")
    split = digits_split()
    files = sorted(folder.glob("*/*.png"), key=lambda path: path.stem)
    assert folder == tmp_path / "digits"
    assert [int(path.parent.name) for path in files] == split.test_labels.tolist()
    pixels = np.stack([np.asarray(Image.open(path)) for path in files])
    np.testing.assert_array_equal(pixels, split.test_images)


def test_nothing_is_overwritten_or_left_behind(tmp_path):
    """A folder that holds something stays as it is."""
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "mine.txt").write_text("mine")
    with pytest.raises(SourceError, match=r"cannot write the digits to .*digits: "):
        write_held_out(tmp_path / "digits")
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]
    assert (tmp_path / "digits" / "mine.txt").read_text() == "mine"
