"""Tests of reading pixels from files, arrays and spooled arrays."""

from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedkit.errors import SourceError, StoreError
from embedkit.images.source import (
    ArraySource,
    FileSource,
    SpooledArraySource,
    array_row,
)


@pytest.fixture
def stack() -> np.ndarray:
    """Return five images of 6 x 7 random pixels."""
    return np.random.default_rng(3).integers(0, 256, (5, 6, 7, 3), np.uint8)


def test_file_source_reads_by_path(tmp_path: Path, pixels: np.ndarray) -> None:
    """The uri of a file is its path."""
    file = tmp_path / "a.png"
    Image.fromarray(pixels).save(file)
    np.testing.assert_array_equal(np.asarray(FileSource().read(str(file))), pixels)


def test_file_source_says_what_is_missing(tmp_path: Path) -> None:
    """A missing file is a `SourceError`."""
    with pytest.raises(SourceError, match="the file does not exist"):
        FileSource().read(str(tmp_path / "none.png"))


def test_file_source_needs_no_spool(tmp_path: Path) -> None:
    """Files are there for every process: nothing is written, and it pickles small."""
    source = FileSource()
    assert source.spooled(tmp_path) is source
    assert list(tmp_path.iterdir()) == []
    assert pickle.loads(pickle.dumps(source)) == source
    assert len(pickle.dumps(source)) < 200


def test_array_source_reads_rows(stack: np.ndarray) -> None:
    """Each row is one RGB image."""
    source = ArraySource(stack)
    for row, pixels in enumerate(stack):
        image = source.read(f"array:{row}")
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_array_source_reads_any_memory_order(stack: np.ndarray) -> None:
    """A transposed or sliced view gives the pixels that it shows."""
    view = stack[:, ::-1, ::2]
    image = ArraySource(view).read("array:2")
    np.testing.assert_array_equal(np.asarray(image), view[2])


@pytest.mark.parametrize("uri", ["array:", "array:-1", "array:x", "3", "file:3", ""])
def test_other_uris_are_refused(stack: np.ndarray, uri: str) -> None:
    """What names no row is a `SourceError`."""
    with pytest.raises(SourceError, match="no row of an array is called"):
        ArraySource(stack).read(uri)


def test_rows_beyond_the_end_are_refused(stack: np.ndarray) -> None:
    """A row that is not there is a `SourceError`."""
    assert array_row("array:5") == 5
    with pytest.raises(SourceError, match="there is no row 5 in an array of 5 images"):
        ArraySource(stack).read("array:5")


def test_spooled_round_trip(tmp_path: Path, stack: np.ndarray) -> None:
    """Spooled pixels are the pixels, in one file named by their digest."""
    spooled = ArraySource(stack).spooled(tmp_path / "new" / "folder")
    np.testing.assert_array_equal(spooled.pixels, stack)
    np.testing.assert_array_equal(np.asarray(spooled.read("array:4")), stack[4])
    assert isinstance(spooled.pixels, np.memmap)
    assert [file.name for file in spooled.path.parent.iterdir()] == [spooled.path.name]
    assert spooled.path.name.startswith("pixels-")
    assert len(spooled.path.stem) == len("pixels-") + 16


def test_spooling_again_writes_nothing(tmp_path: Path, stack: np.ndarray) -> None:
    """The same pixels are found, other pixels get another file."""
    first = ArraySource(stack).spooled(tmp_path)
    before = first.path.stat()
    assert ArraySource(stack.copy()).spooled(tmp_path) == first
    assert first.path.stat().st_mtime_ns == before.st_mtime_ns
    assert first.path.stat().st_ino == before.st_ino
    assert ArraySource(stack + 1).spooled(tmp_path) != first
    assert first.spooled(tmp_path) is first


def test_shape_is_part_of_the_name(tmp_path: Path, stack: np.ndarray) -> None:
    """The same bytes in another shape are another file."""
    first = ArraySource(stack).spooled(tmp_path)
    other = ArraySource(stack.reshape(5, 7, 6, 3)).spooled(tmp_path)
    assert first.path != other.path


def test_spooling_from_many_threads_is_whole(tmp_path: Path, stack: np.ndarray) -> None:
    """Racing writers leave one whole file and no rest."""
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(lambda _: ArraySource(stack).spooled(tmp_path), range(16))
        )
    assert len(set(found)) == 1
    assert list(tmp_path.iterdir()) == [found[0].path]
    np.testing.assert_array_equal(np.load(found[0].path), stack)


def test_a_failed_write_leaves_nothing(
    tmp_path: Path, stack: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk leaves neither a half file nor a temporary one."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        ArraySource(stack).spooled(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_spooled_pickles_small_into_another_process(
    tmp_path: Path, stack: np.ndarray
) -> None:
    """A worker process reads the pixels from a pickle of less than 1 kB."""
    spooled = ArraySource(stack).spooled(tmp_path)
    assert spooled.pixels.shape == stack.shape  # mapped here, and still small to send
    sent = pickle.dumps(spooled)
    assert len(sent) < 1000
    script = (
        "import pickle, sys; source = pickle.loads(bytes.fromhex(sys.argv[1]));"
        "sys.stdout.buffer.write(source.read('array:3').tobytes())"
    )
    command = [sys.executable, "-c", script, sent.hex()]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == stack[3].tobytes()


def test_a_lost_spool_says_so(tmp_path: Path) -> None:
    """Pixels that are gone, or not whole, stop a run: no image is to blame."""
    with pytest.raises(
        StoreError, match=r"pixels-0\.npy cannot be .* run the same call"
    ):
        SpooledArraySource(tmp_path / "pixels-0.npy").read("array:0")
    (tmp_path / "pixels-1.npy").write_bytes(b"")
    with pytest.raises(StoreError, match=r"pixels-1\.npy cannot be"):
        SpooledArraySource(tmp_path / "pixels-1.npy").read("array:0")
