"""Tests of sources: images of files, their content hashes, reading only once."""

from __future__ import annotations

import hashlib
import io
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from embedkit.errors import SourceError
from embedkit.files.files import Files
from embedkit.images.decode import decode
from embedkit.images.restore import restored
from embedkit.images.source import FileSource, Loaded, content_hash


def _oracle(data: bytes) -> int:
    return int(hashlib.blake2b(data, digest_size=8).hexdigest(), 16)


def test_file_source_reads_by_path(tmp_path: Path, pixels: np.ndarray) -> None:
    """The uri of a file is its path."""
    file = tmp_path / "a.png"
    Image.fromarray(pixels).save(file)
    np.testing.assert_array_equal(np.asarray(FileSource().read(str(file))), pixels)


def test_load_gives_pixels_and_content(tmp_path: Path, pixels: np.ndarray) -> None:
    """One call gives the image and the hash of the file's bytes."""
    file = tmp_path / "a.png"
    Image.fromarray(pixels).save(file)
    loaded = FileSource().load(str(file))
    assert isinstance(loaded.image, Image.Image)
    assert loaded.unwrap() is loaded.image
    np.testing.assert_array_equal(np.asarray(loaded.image), pixels)
    assert loaded.content == _oracle(file.read_bytes())
    assert FileSource().content(str(file)) == loaded.content


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x89PNG\r\n\x1a\n" * 20])
def test_what_cannot_be_decoded_has_a_content(tmp_path: Path, content: bytes) -> None:
    """A damaged file is an error with a hash, so that a repaired one is another."""
    file = tmp_path / "a.png"
    file.write_bytes(content)
    loaded = FileSource().load(str(file))
    assert isinstance(loaded.image, SourceError)
    assert loaded.content == _oracle(content) == FileSource().content(str(file))
    with pytest.raises(SourceError, match=r"the file is empty|not an image") as caught:
        loaded.unwrap()
    assert caught.value is loaded.image
    with pytest.raises(SourceError, match=r"the file is empty|not an image"):
        FileSource().read(str(file))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none.png", r"^the file does not exist \(FileNotFoundError: .*none\.png'"),
        (".", r"^it is a folder, not a file \(IsADirectoryError: "),
        ("a\0b.png", r"damaged, or of a kind .* null"),
        ("x" * 300, r"^the file cannot be read from disk \(OSError: .*xxx"),
    ],
)
def test_what_has_no_bytes_has_no_content(
    tmp_path: Path, name: str, reason: str
) -> None:
    """Where nothing can be read the content is 0, and the error names the path."""
    uri = f"{tmp_path}/{name}"
    loaded = FileSource().load(uri)
    assert loaded.content == 0 == FileSource().content(uri)
    with pytest.raises(SourceError, match=reason):
        loaded.unwrap()
    with pytest.raises(SourceError, match=reason):
        FileSource().read(uri)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(13, "denied"), "the file may not be read"),
        (OSError(5, "input/output error"), "the file cannot be read from disk"),
        (MemoryError(), "not enough memory to decode it"),
    ],
)
def test_a_file_that_does_not_open_costs_one_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    """Whatever keeps a file from being held is the reason of that row."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(io, "FileIO", fail)
    loaded = FileSource().load(str(tmp_path / "a.png"))
    assert loaded.content == 0
    with pytest.raises(SourceError, match=reason):
        loaded.unwrap()


class _Counted(io.FileIO):
    """A file that tells how often it was opened, and how many bytes were read."""

    opened = 0
    nbytes = 0

    def __init__(self, name: str) -> None:
        super().__init__(name, "rb")
        _Counted.opened += 1

    def readall(self) -> bytes:
        data = super().readall()
        _Counted.nbytes += len(data)
        return data

    def readinto(self, buffer: bytearray) -> int:
        n = super().readinto(buffer)
        _Counted.nbytes += n
        return n

    read = None  # by none of the ways that are not counted


@pytest.mark.parametrize("ask", ["load", "read", "content"])
def test_a_file_is_opened_and_read_once(
    tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch, ask: str
) -> None:
    """Hash and pixels come from one reading, so they speak of the same bytes."""
    file, other = tmp_path / "a.tif", tmp_path / "b.tif"
    Image.fromarray(pixels).save(file, compression="tiff_lzw")
    Image.fromarray(255 - pixels).save(other, compression="tiff_lzw")
    data = file.read_bytes()
    FileSource().load(str(file))  # or Pillow opens its own modules while it is watched

    def opens(name: object, *_: object, **__: object) -> _Counted:
        handle = _Counted(str(name))
        other.replace(file)  # whoever opens the name again finds another picture
        return handle

    monkeypatch.setattr(_Counted, "opened", 0)
    monkeypatch.setattr(_Counted, "nbytes", 0)
    with monkeypatch.context() as watched:
        watched.setattr(io, "FileIO", opens)
        watched.setattr(io, "open", opens)  # what Path.open calls
        watched.setattr("builtins.open", opens)
        found = getattr(FileSource(), ask)(str(file))

    assert (_Counted.opened, _Counted.nbytes) == (1, len(data))
    if ask != "content":
        image = found if ask == "read" else found.unwrap()
        np.testing.assert_array_equal(np.asarray(image), pixels)
    if ask != "read":
        assert _oracle(data) == (found if ask == "content" else found.content)


def test_large_files_are_hashed_in_pieces_and_whole_alike(tmp_path: Path) -> None:
    """Pieces of any number add up to the hash of the whole."""
    data = np.random.default_rng(0).bytes(3_000_001)
    (tmp_path / "a.bin").write_bytes(data)
    assert FileSource().content(str(tmp_path / "a.bin")) == _oracle(data)
    assert FileSource().load(str(tmp_path / "a.bin")).content == _oracle(data)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_contents_differ_exactly_where_bytes_do(one: bytes, other: bytes) -> None:
    """Two files have one content if and only if they hold the same bytes."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("1.png", "2.jpg")]
        for file, data in zip(files, (one, other), strict=True):
            file.write_bytes(data)
        found = [FileSource().content(str(file)) for file in files]
        loaded = [FileSource().load(str(file)).content for file in files]
    assert (found[0] == found[1]) == (one == other)
    assert found == loaded


@given(st.lists(st.binary(max_size=9), max_size=5))
def test_hash_of_parts_is_that_of_the_whole(parts: list[bytes]) -> None:
    """How the bytes are cut has no part in the hash, which is 8 bytes, big end first."""
    assert content_hash(*parts) == _oracle(b"".join(parts))
    assert 0 < content_hash(*parts) < 2**64


def test_known_hash() -> None:
    """The hash stays what stores remember: BLAKE2b-64 of ``abc`` by its specification."""
    assert content_hash(b"abc") == 0xD8BB14D833D59559


def test_a_hash_of_zero_becomes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0 says that there are no bytes, so no bytes may come to it."""

    class Zero:
        def __init__(self, *_: object, **__: object) -> None: ...

        def update(self, data: bytes) -> None: ...

        def digest(self) -> bytes:
            return bytes(8)

    monkeypatch.setattr(hashlib, "blake2b", Zero)
    (tmp_path / "a.png").write_bytes(b"bytes")
    assert content_hash(b"bytes") == 1
    assert FileSource().content(str(tmp_path / "a.png")) == 1
    assert FileSource().load(str(tmp_path / "a.png")).content == 1


def test_bytes_in_memory_decode_as_an_open_file_does(shared) -> None:
    """Each hard file gives the pixels, or the sentence, that it gives from disk."""
    files = sorted(shared("hard_images_pillow").glob("*.*"))
    assert len(files) > 100
    for file in files:
        loaded = FileSource().load(str(file))
        assert loaded.content == _oracle(file.read_bytes())
        with file.open("rb") as handle:
            if isinstance(loaded.image, Image.Image):
                assert decode(handle) == loaded.image
            else:
                with pytest.raises(SourceError) as caught:
                    decode(handle)
                assert str(caught.value) == str(loaded.image)


def test_file_source_needs_no_spool(tmp_path: Path, spool: Files) -> None:
    """Files are there for every process: nothing is written, and it pickles small."""
    source = FileSource()
    assert source.spooled(spool) is source
    assert list(tmp_path.iterdir()) == []
    assert pickle.loads(pickle.dumps(source)) == source
    assert len(pickle.dumps(source)) < 200


def test_a_failure_travels_between_processes() -> None:
    """What was loaded pickles, error or image."""
    loaded = FileSource().load("/nowhere/none.png")
    again = pickle.loads(pickle.dumps(loaded))
    assert isinstance(again, Loaded)
    assert (str(again.image), again.content) == (str(loaded.image), 0)


def test_paths_are_restored_and_arrays_are_not(tmp_path: Path, touch) -> None:
    """Files can be read again by what a store remembers; pixels in memory are gone."""
    file = str(touch("a.png")[0])
    source = restored([file, str(tmp_path / "none.png")])
    assert isinstance(source, FileSource)
    assert source.read(file).size == (4, 3)
    assert restored(["array:0", "array:1"]) is None


@pytest.mark.parametrize("uri", ["a.png", "s3://bucket/a.png", "", "array:0"])
def test_one_uri_that_is_no_path_restores_nothing(tmp_path: Path, uri: str) -> None:
    """What is relative to somewhere, or lies elsewhere, cannot be read again."""
    assert restored([str(tmp_path / "a.png"), uri]) is None
