"""Tests of arrays of images in files."""

from __future__ import annotations

import pickle
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from embedkit.errors import InputError, MissingDependencyError, SourceError
from embedkit.images import hdf5_file, zarr_file
from embedkit.images.array_files import (
    ArrayFileSource,
    ArrayPlace,
    array_place,
    array_uri,
)
from embedkit.images.arrays import ArraySource
from embedkit.images.held import HELD
from embedkit.images.open import open_images
from embedkit.images.restore import restored

_Chunks = tuple[int, ...] | None


def _npy(path: Path, pixels: np.ndarray, _: _Chunks = None) -> Path:
    np.save(path.with_suffix(".npy"), pixels)
    return path.with_suffix(".npy")


def _hdf5(path: Path, pixels: np.ndarray, chunks: _Chunks = None) -> Path:
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        file.create_dataset("in/photos", data=pixels, chunks=chunks)
    return path.with_suffix(".h5")


def _zarr(path: Path, pixels: np.ndarray, chunks: _Chunks = None) -> Path:
    chunks = chunks or pixels.shape
    zarr.create_array(path.with_suffix(".zarr"), data=pixels, chunks=chunks)
    return path.with_suffix(".zarr")


def _shards(path: Path, pixels: np.ndarray, chunks: _Chunks = None) -> Path:
    chunks = chunks or pixels.shape
    shards = tuple(2 * n for n in chunks)
    folder = path.with_suffix(".zarr")
    zarr.create_array(folder, data=pixels, chunks=chunks, shards=shards)
    return folder


def _zarr2(path: Path, pixels: np.ndarray, chunks: _Chunks = None) -> Path:
    group = zarr.open_group(path.with_suffix(".zarr"), mode="w", zarr_format=2)
    group.create_array("in/photos", data=pixels, chunks=chunks or pixels.shape)
    return path.with_suffix(".zarr")


_KINDS: dict[str, Callable[..., Path]] = {
    "npy": _npy,
    "hdf5": _hdf5,
    "zarr": _zarr,
    "sharded": _shards,
    "zarr 2": _zarr2,
}


@pytest.fixture
def stack() -> np.ndarray:
    """Return seven images of 6 x 8 random pixels."""
    return np.random.default_rng(3).integers(0, 256, (7, 6, 8, 3), np.uint8)


@pytest.fixture(autouse=True)
def forgotten() -> None:
    """Begin with no chunk held."""
    HELD.clear()


@pytest.mark.slow
@pytest.mark.parametrize("kind", _KINDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_order_and_chunks_give_the_pixels(kind: str, data: st.DataObject) -> None:
    """Rows are those of the array, however it is cut and in whatever order they come."""
    shape = (*data.draw(st.tuples(*[st.integers(1, 6)] * 3)), 3)
    pixels = data.draw(npst.arrays(np.uint8, shape))
    chunks = tuple(data.draw(st.integers(1, n)) for n in shape)
    rows = data.draw(st.lists(st.integers(0, shape[0] - 1), min_size=1, max_size=12))
    with tempfile.TemporaryDirectory() as folder:
        images = open_images(_KINDS[kind](Path(folder, "a%#b"), pixels, chunks))
        memory = open_images(pixels)
        for row in rows:
            np.testing.assert_array_equal(images.read(row), pixels[row])
        assert images.table.index.tolist() == memory.table.index.tolist()
        assert images.sizes.tolist() == memory.sizes.tolist()
        found, expected = images.contents(np.array(rows)), memory.contents(rows)
        assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("kind", _KINDS)
def test_uris_are_enough(tmp_path: Path, stack: np.ndarray, kind: str) -> None:
    """A store reads the rows again by what it remembers; the source is tiny to send."""
    file = _KINDS[kind](tmp_path / "a%#b", stack)
    images = open_images(str(file))
    uris = images.table["uri"].tolist()
    source = pickle.loads(pickle.dumps(restored(uris)))
    assert source == images.source == ArrayFileSource()
    assert len(pickle.dumps(source)) < 100
    np.testing.assert_array_equal(np.asarray(source.read(uris[5])), stack[5])
    assert source.spooled(None) is source
    place = array_place(uris[5])
    assert (place.path, place.row) == (str(file), 5)
    assert array_uri(place) == uris[5]
    assert isinstance(open_images(stack).source, ArraySource)


@pytest.mark.parametrize(
    ("place", "uri"),
    [
        (ArrayPlace("npy", "/a#/b%.npy", "", 3), "npy:/a%23/b%25.npy#3"),
        (ArrayPlace("hdf5", "/a.h5", "g#/p/1", 0), "hdf5:/a.h5#g#/p/1/0"),
        (ArrayPlace("zarr", "/a.zarr", "", 12), "zarr:/a.zarr#/12"),
    ],
)
def test_uris_say_where(place: ArrayPlace, uri: str) -> None:
    """A uri is read as it was written."""
    assert array_uri(place) == uri
    assert array_place(uri) == place


@pytest.mark.parametrize("uri", ["array:3", "npy:/a.npy", "hdf5:/a.h5#3", "/a.npy", ""])
def test_other_uris_are_refused(uri: str) -> None:
    """What names no row of an array in a file is a `SourceError`."""
    assert array_place(uri) is None
    with pytest.raises(SourceError, match="no row of an array in a file is called"):
        ArrayFileSource().read(uri)


def test_times_are_those_of_one_file(tmp_path: Path, stack: np.ndarray) -> None:
    """A file has a time; what lies in many files has none, and is compared by content."""
    for kind in ("npy", "hdf5"):
        file = _KINDS[kind](tmp_path / kind, stack)
        assert open_images(file).mtimes.tolist() == [file.stat().st_mtime_ns] * 7
    assert set(open_images(_zarr(tmp_path / "a", stack)).mtimes) == {-1}
    layout = h5py.VirtualLayout((7, 6, 8, 3), np.uint8)
    layout[:] = h5py.VirtualSource(tmp_path / "hdf5.h5", "in/photos", stack.shape)
    with h5py.File(tmp_path / "v.h5", "w") as virtual:
        virtual.create_virtual_dataset("all", layout)
    images = open_images(tmp_path / "v.h5")
    assert set(images.mtimes) == {-1}
    np.testing.assert_array_equal(images.read(6), stack[6])


@pytest.mark.parametrize("kind", ["hdf5", "zarr", "sharded"])
def test_a_chunk_is_read_once(
    tmp_path: Path, stack: np.ndarray, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of a chunk that are asked for one after the other, or at once, are one read."""
    images = open_images(_KINDS[kind](tmp_path / "a", stack, (3, 4, 5, 3)))
    module, reads = (hdf5_file if kind == "hdf5" else zarr_file), []
    true = module.read

    def counted(path: str, name: str, *, start: int, stop: int) -> Any:
        reads.append((start, stop))
        return true(path, name, start=start, stop=stop)

    monkeypatch.setattr(module, "read", counted)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(images.read, [*range(7)] * 4))
    np.testing.assert_array_equal(found, np.concatenate([stack] * 4))
    assert sorted(reads) == [(0, 3), (3, 6), (6, 7)]


def test_no_file_is_left_open(tmp_path: Path, stack: np.ndarray) -> None:
    """The one who reads can write the file anew, and has it open himself meanwhile."""
    file = _hdf5(tmp_path / "a", stack, (3, 6, 8, 3))
    images = open_images(file)
    with h5py.File(file, "r") as mine:
        np.testing.assert_array_equal(images.read(6), stack[6])
        np.testing.assert_array_equal(mine["in/photos"][6], stack[6])
    _hdf5(tmp_path / "a", 255 - stack)
    np.testing.assert_array_equal(images.read(6), 255 - stack[6])


@pytest.mark.parametrize("kind", _KINDS)
def test_a_file_that_changed_is_read_as_it_is(
    tmp_path: Path, stack: np.ndarray, kind: str
) -> None:
    """Rows that are gone, or are no images any more, have a reason; others are read."""
    images = open_images(_KINDS[kind](tmp_path / "a", stack, (2, 6, 8, 3)))
    images.read(6)
    file = tmp_path / Path(array_place(images.table["uri"].iloc[0]).path).name
    _remove(file)
    with pytest.raises(
        SourceError,
        match=r"^image '0006' cannot be read: the array in the file cannot be read \(.*[Nn]o",
    ):
        images.read(6)
    assert images.source.content(images.table["uri"].iloc[6]) == 0
    _KINDS[kind](tmp_path / "a", 255 - stack[:4], (2, 6, 8, 3))
    np.testing.assert_array_equal(images.read(3), 255 - stack[3])
    with pytest.raises(
        SourceError, match=r"read: there is no row 6 in an array of 4 images"
    ):
        images.read(6)
    _remove(file)
    _KINDS[kind](tmp_path / "a", stack[..., :2].astype(np.int16), (2, 6, 8, 2))
    with pytest.raises(
        SourceError,
        match=r"read: the array in the file has changed: it is int16 of shape \(7, 6, 8, 2\)",
    ):
        images.read(0)


def _remove(path: Path) -> None:
    if path.is_dir():
        for each in path.iterdir():
            _remove(each)
        path.rmdir()
    else:
        path.unlink()


def test_a_group_in_place_of_the_array_is_no_array(
    tmp_path: Path, stack: np.ndarray
) -> None:
    """A name that stands for something else now is a bad row."""
    images = open_images(_hdf5(tmp_path / "a", stack))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_group("in/photos")
    (tmp_path / "b.h5").replace(tmp_path / "a.h5")
    with pytest.raises(SourceError, match=r"cannot be read \(KeyError: .* is no array"):
        images.read(0)


def test_a_zarr_chunk_that_was_written_again_is_read_again(
    tmp_path: Path, stack: np.ndarray
) -> None:
    """What is held belongs to one state of the chunk's files."""
    images = open_images(_zarr(tmp_path / "a", stack, (3, 3, 8, 3)))
    assert images.read(4)[5, 0, 0] == stack[4, 5, 0, 0]
    zarr.open_array(tmp_path / "a.zarr", mode="r+")[4, 5] = 7
    assert images.read(4)[5, 0, 0] == 7


def _add(file: Path, **arrays: np.ndarray) -> None:
    """Write more arrays into a file, one of them deeper."""
    if file.suffix == ".h5":
        with h5py.File(file, "a") as group:
            for name, each in arrays.items():
                group.create_dataset(name.replace("_", "/"), data=each)
    else:
        group = zarr.open_group(file, mode="a")
        for name, each in arrays.items():
            group.create_array(name.replace("_", "/"), data=each)


def test_a_damaged_chunk_costs_its_own_rows(tmp_path: Path, stack: np.ndarray) -> None:
    """Bytes that cannot be decompressed are bad rows; the others are read."""
    images = open_images(_zarr(tmp_path / "a", stack, (3, 6, 8, 3)))
    (tmp_path / "a.zarr/c/1/0/0/0").write_bytes(b"no chunk")
    for row in (0, 2, 6):
        np.testing.assert_array_equal(images.read(row), stack[row])
    for row in (3, 5):
        with pytest.raises(SourceError, match=r"array in the file cannot be read \("):
            images.read(row)


def test_what_is_cut_off_is_a_bad_row(tmp_path: Path, stack: np.ndarray) -> None:
    """A file that lost its end is no image any more."""
    for kind in ("npy", "hdf5"):
        file = _KINDS[kind](tmp_path / "a", stack)
        images = open_images(file)
        file.write_bytes(file.read_bytes()[:-200])
        with pytest.raises(SourceError, match=r"array in the file cannot be read \("):
            images.read(6)


@pytest.mark.parametrize("name", ["a.h5", "a.zarr"])
def test_one_of_several_arrays_is_named(
    tmp_path: Path, stack: np.ndarray, name: str
) -> None:
    """The only array of images is found; of several one must be named."""
    file = tmp_path / name
    _add(file, features=np.ones((7, 2, 2, 3), np.float32), label=np.arange(7))
    with pytest.raises(
        InputError, match=r"no array of images, .*features float32 \(7,"
    ):
        open_images(file)
    _add(file, train_photos=stack)
    np.testing.assert_array_equal(open_images(file).read(6), stack[6])
    _add(file, test_photos=255 - stack)
    with pytest.raises(InputError, match=r"2 arrays of images, .*train/photos.*; say"):
        open_images(file)
    images = open_images(file, array="/test/photos")
    np.testing.assert_array_equal(images.read(6), 255 - stack[6])
    with pytest.raises(InputError, match=r"array='label2' is no array in .*'label'"):
        open_images(file, array="label2")
    with pytest.raises(InputError, match=r"found float32 of shape .*scale the values"):
        open_images(file, array="features")


def test_files_without_arrays_are_refused(tmp_path: Path) -> None:
    """An empty file of each kind says so."""
    h5py.File(tmp_path / "a.h5", "w").close()
    zarr.open_group(tmp_path / "a.zarr", mode="w")
    for name in ("a.h5", "a.zarr"):
        with pytest.raises(InputError, match="it has no array at all"):
            open_images(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "called"),
    [("a.npy", r"a \.npy file"), ("a.h5", "HDF5"), ("a.hdf5", "HDF5")],
)
def test_damaged_files_are_refused(tmp_path: Path, name: str, called: str) -> None:
    """What is not what its extension says cannot be opened."""
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(
        SourceError, match=rf"{name}' cannot be read as {called} \(.*\);"
    ):
        open_images(tmp_path / name)
    with pytest.raises(SourceError, match="there is no file or folder"):
        open_images(tmp_path / f"none-{name}")


def test_damaged_zarr_is_refused(tmp_path: Path) -> None:
    """Metadata that are no JSON are told."""
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr/zarr.json").write_text("{")
    with pytest.raises(SourceError, match=r"a\.zarr' cannot be read as Zarr \("):
        open_images(tmp_path / "a.zarr")


def test_shapes_in_files_are_checked(tmp_path: Path, stack: np.ndarray) -> None:
    """Gray images and channels first are refused with the remedy, as in memory."""
    for pixels, remedy in (
        (stack[..., 0], r"np\.repeat"),
        (stack.transpose(0, 3, 1, 2), r"\.transpose\(0, 2, 3, 1\)"),
        (stack[..., :1], "bring it into that shape"),
    ):
        for kind in ("npy", "hdf5", "zarr"):
            with pytest.raises(InputError, match=remedy):
                open_images(_KINDS[kind](tmp_path / f"{kind}-{pixels.shape}", pixels))


def test_archives_are_refused(tmp_path: Path, stack: np.ndarray) -> None:
    """A row of an .npz file cannot be read by itself."""
    np.savez(tmp_path / "a.npz", stack)
    with pytest.raises(
        InputError, match=r"is an archive, .*write its array with numpy"
    ):
        open_images(tmp_path / "a.npz")


def test_a_store_of_embedkit_is_no_source(tmp_path: Path) -> None:
    """Layers are no images, neither all nor one."""
    root = zarr.open_group(tmp_path / "s.zarr", mode="w", attributes={"embedkit": {}})
    root.create_array("layers/fc", data=np.ones((3, 2, 2, 3), np.uint8))
    for path in (tmp_path / "s.zarr", tmp_path / "s.zarr/layers/fc"):
        with pytest.raises(
            InputError,
            match=r"belongs to a store of embedkit, .* open it with open_store",
        ):
            open_images(path)


def test_options_belong_to_their_kind(tmp_path: Path, stack: np.ndarray) -> None:
    """An option that would have no effect is refused."""
    file = _hdf5(tmp_path / "a", stack)
    for option in ("path_column", "id_column", "image_column"):
        with pytest.raises(InputError, match=f"{option}= is for tables; leave it out"):
            open_images(file, **{option: "x"})
    with pytest.raises(InputError, match="root= is for tables and lists of paths"):
        open_images(file, root=tmp_path)
    for source in (stack, [file], tmp_path):
        with pytest.raises(InputError, match="array= is for HDF5 and Zarr files"):
            open_images(source, array="photos")


def test_hdf5_needs_its_extra(
    tmp_path: Path, stack: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where h5py is missing the extra is named."""
    file = _hdf5(tmp_path / "a", stack)
    monkeypatch.delitem(sys.modules, "embedkit.images.hdf5_file")
    monkeypatch.delattr("embedkit.images.hdf5_file")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'embedkit\[hdf5\]'"):
        open_images(file)
