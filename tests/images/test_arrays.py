"""Tests of images that are rows of an array, in memory or spooled."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.errors import SourceError, StoreError
from embedkit.files.files import Files, files_at
from embedkit.files.local import LocalFiles
from embedkit.images import arrays
from embedkit.images.arrays import ArraySource, chunk_starts
from embedkit.images.spooled_arrays import SpooledArraySource, array_row


@pytest.fixture
def stack() -> np.ndarray:
    """Return five images of 6 x 7 random pixels."""
    return np.random.default_rng(3).integers(0, 256, (5, 6, 7, 3), np.uint8)


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
    assert array_row("array:5", 6) == 5
    with pytest.raises(SourceError, match="there is no row 5 in an array of 5 images"):
        ArraySource(stack).read("array:5")


@pytest.mark.parametrize("uri", ["array:5", "array:x", "/a.png"])
def test_rows_that_are_not_there_have_no_content(stack: np.ndarray, uri: str) -> None:
    """Nothing to hash is content 0, in memory and spooled alike."""
    loaded = ArraySource(stack).load(uri)
    assert loaded.content == 0 == ArraySource(stack).content(uri)
    with pytest.raises(SourceError, match=r"no row"):
        loaded.unwrap()


def test_content_is_of_shape_and_pixels(stack: np.ndarray) -> None:
    """The hash is BLAKE2b of the shape of one row and its bytes; the rest has no part."""
    data = b"(6, 7, 3)" + stack[2].tobytes()
    expected = int(hashlib.blake2b(data, digest_size=8).hexdigest(), 16)
    source = ArraySource(stack)
    assert source.content("array:2") == expected == source.load("array:2").content
    assert ArraySource(stack[2:]).content("array:0") == expected
    turned = ArraySource(stack.transpose(0, 2, 1, 3).copy().transpose(0, 2, 1, 3))
    assert turned.content("array:2") == expected
    other = ArraySource(stack.reshape(5, 7, 6, 3))
    assert other.content("array:2") != expected


@given(
    st.lists(st.binary(min_size=6, max_size=6), min_size=2, max_size=6).map(
        lambda rows: np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 1, 2, 3)
    )
)
def test_contents_differ_exactly_where_pixels_do(pixels: np.ndarray) -> None:
    """Two rows have one content if and only if they show the same."""
    uris = [f"array:{row}" for row in range(len(pixels))]
    found = np.array([ArraySource(pixels).content(uri) for uri in uris], np.uint64)
    same = (pixels[:, None] == pixels).all(axis=(2, 3, 4))
    np.testing.assert_array_equal(found[:, None] == found, same)


def _pixels(spooled: SpooledArraySource, n: int) -> np.ndarray:
    return np.stack([spooled.row(f"array:{row}") for row in range(n)])


def test_spooled_round_trip(stack: np.ndarray, spool: Files) -> None:
    """Spooled pixels are the pixels, in a file and a list of it, named by digests."""
    spooled = ArraySource(stack).spooled(spool)
    np.testing.assert_array_equal(_pixels(spooled, 5), stack)
    np.testing.assert_array_equal(np.asarray(spooled.read("array:4")), stack[4])
    assert spooled.url == spool.url
    told, part = sorted(spool.names(), key=lambda name: name[-1])
    assert told == spooled.name
    assert {len(part), len(told) - 1} == {len("pixels-.npy") + 16}
    np.testing.assert_array_equal(np.load(spool.local_copy(part)), stack)


@pytest.mark.parametrize("chunked", [True, False])
def test_parts_are_bounded(
    stack: np.ndarray, spool: Files, monkeypatch: pytest.MonkeyPatch, chunked: bool
) -> None:
    """A large array is many files, none of which holds more than it may."""
    monkeypatch.setattr(arrays, "PART_BYTES", 2 * stack[0].nbytes)
    lazy = da.from_array(stack, chunks=(1, 3, 7, 3)) if chunked else stack
    spooled = ArraySource(lazy, chunk_starts(lazy)).spooled(spool)
    np.testing.assert_array_equal(_pixels(spooled, 5), stack)
    parts = [np.load(spool.local_copy(x)) for x in spool.names() if x[-1] == "y"]
    assert sorted(map(len, parts)) == [1, 2, 2]


def test_spooled_rows_load_as_those_in_memory(stack: np.ndarray, spool: Files) -> None:
    """Image, hash and error of a row do not depend on where the pixels are."""
    source = ArraySource(stack)
    spooled = source.spooled(spool)
    for uri in (f"array:{row}" for row in range(5)):
        assert spooled.load(uri) == source.load(uri)
        assert spooled.content(uri) == source.content(uri) != 0
    assert spooled.content("array:5") == 0
    assert str(spooled.load("array:5").image) == str(source.load("array:5").image)
    with pytest.raises(SourceError, match="there is no row 5 in an array of 5 images"):
        spooled.read("array:5")


def test_spooling_again_writes_nothing(
    stack: np.ndarray, spool: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same pixels are found, other pixels get another file."""
    first = ArraySource(stack).spooled(spool)
    with monkeypatch.context() as context:
        context.setattr(np, "save", lambda *_, **__: pytest.fail("written again"))
        assert ArraySource(stack.copy()).spooled(spool) == first
    assert ArraySource(stack + 1).spooled(spool) != first
    assert len(spool.names()) == 4
    assert first.spooled(spool) is first


def test_shape_is_part_of_the_name(stack: np.ndarray, spool: Files) -> None:
    """The same bytes in another shape are another file."""
    first = ArraySource(stack).spooled(spool)
    other = ArraySource(stack.reshape(5, 7, 6, 3)).spooled(spool)
    assert first.name != other.name


def test_spooling_from_many_threads_is_whole(stack: np.ndarray, spool: Files) -> None:
    """Racing writers leave one whole file and no rest."""
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: ArraySource(stack).spooled(spool), range(16)))
    assert len(set(found)) == 1
    assert len(list(Path(spool.url).iterdir())) == 2
    np.testing.assert_array_equal(_pixels(found[0], 5), stack)


def test_a_failed_write_leaves_nothing(
    stack: np.ndarray, spool: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is the caller's to hear about, and nothing is mapped."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LocalFiles, "create", fail)
    with pytest.raises(OSError, match="No space left"):
        ArraySource(stack).spooled(spool)
    assert spool.names() == []


def test_spooled_pickles_small_into_another_process(
    stack: np.ndarray, spool: Files
) -> None:
    """A worker process reads the pixels from a pickle of less than 1 kB."""
    spooled = ArraySource(stack).spooled(spool)
    assert spooled.content("array:3")  # mapped here, and still small to send
    sent = pickle.dumps(spooled)
    assert len(sent) < 1000
    script = (
        "import pickle, sys; source = pickle.loads(bytes.fromhex(sys.argv[1]));"
        "sys.stdout.buffer.write(source.read('array:3').tobytes())"
    )
    command = [sys.executable, "-c", script, sent.hex()]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == stack[3].tobytes()


def test_pixels_are_mapped_once(
    stack: np.ndarray, spool: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process asks for the files once, however many rows it reads."""
    spooled = ArraySource(stack).spooled(spool)
    again = pickle.loads(pickle.dumps(spooled))
    assert again == spooled
    spooled.row("array:0")
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("mapped again"))
    np.testing.assert_array_equal(_pixels(again, 5), stack)


def test_a_lost_spool_says_so(stack: np.ndarray, tmp_path: Path) -> None:
    """Pixels that are gone, or not whole, stop a run: no image is to blame."""
    url = files_at(tmp_path).url
    lost = r"/pixels-0\.json cannot be read \(.*\); run the same call again"
    for ask in (SpooledArraySource.load, SpooledArraySource.content):
        with pytest.raises(StoreError, match=lost):
            ask(SpooledArraySource(url, "pixels-0.json"), "array:0")
    (tmp_path / "pixels-1.json").write_bytes(b"no list")
    with pytest.raises(StoreError, match=r"pixels-1\.json cannot be"):
        SpooledArraySource(url, "pixels-1.json").read("array:0")
    for written in (b"", b"no array at all", None):
        spooled = ArraySource(stack).spooled(files_at(tmp_path / str(written)))
        (part,) = Path(spooled.url).glob("*.npy")
        part.unlink() if written is None else part.write_bytes(written)
        with pytest.raises(StoreError, match=r"pixels-.*\.npy cannot be read"):
            spooled.read("array:0")


def test_pixels_are_spooled_where_no_path_leads(stack: np.ndarray) -> None:
    """A place behind a URL serves as well: a copy is mapped."""
    pytest.importorskip("obstore")
    place = files_at("memory://arrays-under-test")
    spooled = ArraySource(stack).spooled(place)
    assert spooled == SpooledArraySource(place.url, spooled.name)
    np.testing.assert_array_equal(_pixels(spooled, 5), stack)
    assert spooled.name in place.names()
    with pytest.raises(StoreError, match=r"memory://arrays-under-test/pixels-0\.json"):
        SpooledArraySource(place.url, "pixels-0.json").read("array:0")
