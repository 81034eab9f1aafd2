"""Failures that are no fault of a file are looked at again."""

import numpy as np
import pytest
from PIL import Image

from embedkit.errors import SourceError
from embedkit.images import source


def test_a_lack_of_memory_leaves_no_hash(tmp_path, monkeypatch):
    """So the same bytes do not count as seen; a broken file's do."""
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")

    def fail(file, **_):
        try:
            raise MemoryError
        except MemoryError as error:
            raise SourceError("not enough memory to decode it") from error

    broken = source.FileSource().load(str(tmp_path / "b.png"))
    monkeypatch.setattr(source, "decode", fail)
    starved = source.FileSource().load(str(tmp_path / "a.png"))

    assert starved.content == 0
    assert broken.content != 0
    with pytest.raises(SourceError, match="memory"):
        starved.unwrap()
