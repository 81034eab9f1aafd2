"""Tests of `ImageSet.contents`: what tells that an image is another one."""

from __future__ import annotations

import os
import pickle
import tempfile
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from embedkit.errors import InputError
from embedkit.images.imageset import ImageSet
from embedkit.images.open import open_images
from embedkit.images.source import FileSource


def _files(*uris: str) -> ImageSet:
    table = pd.DataFrame({"uri": uris}, index=pd.Index(uris, name="image"))
    return ImageSet(table, FileSource(), np.zeros(len(uris), np.int64))


def _arrays(n: int) -> ImageSet:
    rows = np.arange(n, dtype=np.uint8)[:, None, None, None]
    return open_images(np.broadcast_to(rows, (n, 2, 3, 3)).copy())


def test_contents_are_those_of_the_source_in_the_order_asked(touch, tmp_path) -> None:
    """Row by row what the source says of the file; from the end with negative ones."""
    touch(*(f"{i:03d}.png" for i in range(50)))
    images = open_images(tmp_path)
    expected = [images.source.content(uri) for uri in images.table["uri"]]
    assert len(set(expected)) == 50
    order = np.random.default_rng(0).permutation(50)
    found = images.contents(order)
    assert (found.dtype, found.shape) == (np.uint64, (50,))
    assert found.tolist() == [expected[row] for row in order]
    assert images.contents(np.array([-1, 3, 3])).tolist() == [
        expected[row] for row in (49, 3, 3)
    ]


def test_contents_of_no_row_are_none() -> None:
    """Asking about nothing is answered with nothing."""
    found = _arrays(3).contents(np.array([], np.int64))
    assert (found.dtype, found.shape) == (np.uint64, (0,))


def test_contents_of_rows_outside_are_refused() -> None:
    """A row that is not there is refused with the range."""
    with pytest.raises(InputError, match="there is no image 3: rows are 0 to 2"):
        _arrays(3).contents(np.array([0, 3]))


def test_contents_hold_64_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest and the smallest hash arrive as they are."""
    values = {"/a": 2**64 - 1, "/b": 0, "/c": 2**63}
    monkeypatch.setattr(FileSource, "content", lambda _, uri: values[uri])
    found = _files("/a", "/b", "/c").contents(np.arange(3))
    assert found.tolist() == [2**64 - 1, 0, 2**63]


def test_contents_are_hashed_by_eight_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight files are in work at a time: each waits for seven others."""
    meeting = threading.Barrier(8, timeout=60)

    def content(_: FileSource, uri: str) -> int:
        if int(uri[1:]) % 16 == 0:  # the first of its errand
            meeting.wait()
        return int(uri[1:])

    monkeypatch.setattr(FileSource, "content", content)
    images = _files(*(f"/{i}" for i in range(128)))
    assert images.contents(np.arange(128)).tolist() == list(range(128))


@given(st.lists(st.binary(max_size=6), min_size=1, max_size=8))
def test_contents_differ_where_bytes_differ(files: list[bytes]) -> None:
    """Two files have one content exactly if they hold the same bytes."""
    with tempfile.TemporaryDirectory() as folder:
        for i, data in enumerate(files):
            Path(folder, f"{i}.png").write_bytes(data)
        found = open_images(folder).contents(np.arange(len(files)))
    assert 0 not in found
    same = [[one == other for other in files] for one in files]
    np.testing.assert_array_equal(found[:, None] == found, same)


def test_a_change_behind_size_and_time_is_seen(tmp_path: Path) -> None:
    """A file of the same size with its old time back has another content, no more."""
    for shade in (10, 20):
        Image.new("RGB", (8, 8), (shade, 0, 0)).save(tmp_path / f"{shade}.bmp")
    before = open_images(tmp_path)
    contents = before.contents(np.arange(2))
    file = tmp_path / "10.bmp"
    status = file.stat()
    Image.new("RGB", (8, 8), (11, 0, 0)).save(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = open_images(tmp_path)

    assert after.sizes.tolist() == before.sizes.tolist()
    assert after.mtimes.tolist() == before.mtimes.tolist()
    changed = after.contents(np.arange(2)) != contents
    assert changed.tolist() == [True, False]


def test_a_touched_file_keeps_its_content(tmp_path: Path, touch) -> None:
    """Another time alone is no other content."""
    touch("1.png", "2.png")
    before = open_images(tmp_path)
    os.utime(tmp_path / "2.png", ns=(5, 5_000_000_000))
    after = open_images(tmp_path)
    assert (after.mtimes != before.mtimes).tolist() == [False, True]
    assert after.mtimes[1] == 5_000_000_000
    np.testing.assert_array_equal(
        after.contents(np.arange(2)), before.contents(np.arange(2))
    )


def test_renamed_and_moved_files_keep_their_content(tmp_path: Path, touch) -> None:
    """What a file is called and where it lies have no part in its content."""
    touch("here/cat/1.png", "here/dog/2.png")
    before = open_images(tmp_path / "here").contents(np.arange(2))
    (tmp_path / "here").rename(tmp_path / "there")
    (tmp_path / "there/cat/1.png").rename(tmp_path / "there/zebra.jpg")
    after = open_images(tmp_path / "there")
    assert after.table.index.tolist() == ["dog/2.png", "zebra.jpg"]
    assert after.contents(np.arange(2)).tolist() == before[::-1].tolist()


def test_contents_of_files_that_are_not_there(tmp_path: Path, touch) -> None:
    """A missing file has content 0, and getting it back changes that."""
    files = touch("1.png", "2.png")
    files[1].unlink()
    images = open_images(files)
    found = images.contents(np.arange(2))
    assert (found == 0).tolist() == [False, True]
    touch("1.png", "2.png")
    again = images.contents(np.arange(2))
    assert again[0] == found[0]
    assert again[1] != 0


def test_contents_of_arrays_know_pixels(spool) -> None:
    """One changed pixel changes one content; spooling and pickling none."""
    images, rows = _arrays(3), np.arange(3)
    contents = images.contents(rows).tolist()
    assert len(set(contents)) == 3
    spooled = ImageSet(images.table, images.source.spooled(spool), images.sizes)
    assert spooled.contents(rows).tolist() == contents
    assert pickle.loads(pickle.dumps(images)).contents(rows).tolist() == contents
    changed = images.source.pixels.copy()
    changed[2, 1, 2, 0] += 1
    found = open_images(changed).contents(rows)
    assert (found == contents).tolist() == [True, True, False]
