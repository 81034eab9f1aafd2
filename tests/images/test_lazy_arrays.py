"""Tests of arrays of Dask, xarray, h5py and Zarr that are given as objects."""

from __future__ import annotations

import io
import itertools
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.errors import InputError, SourceError
from embedkit.files.files import Files, files_at
from embedkit.images import arrays
from embedkit.images.array_files import ArrayFileSource
from embedkit.images.arrays import ArraySource, chunk_starts, part_starts
from embedkit.images.held import HELD
from embedkit.images.lazy_arrays import is_array
from embedkit.images.open import open_images
from embedkit.images.spooled_arrays import SpooledArraySource


@pytest.fixture
def stack() -> np.ndarray:
    """Return seven images of 6 x 8 random pixels."""
    return np.random.default_rng(3).integers(0, 256, (7, 6, 8, 3), np.uint8)


@pytest.fixture(autouse=True)
def forgotten() -> None:
    """Begin with no chunk held."""
    HELD.clear()


def _labelled(pixels: Any, **coords: Any) -> xr.DataArray:
    return xr.DataArray(pixels, dims=("image", "y", "x", "channel"), coords=coords)


def _same(images: Any, stack: np.ndarray) -> None:
    for row in (6, 0, 3):
        np.testing.assert_array_equal(images.read(row), stack[row])


def test_what_is_in_a_file_is_read_there(tmp_path: Path, stack: np.ndarray) -> None:
    """A dataset, an array in a folder and a mapped file are known by their paths."""
    np.save(tmp_path / "a.npy", stack)
    zarr.open_group(tmp_path / "a.zarr").create_array("in/p", data=stack)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("in/p", data=stack)
    with h5py.File(tmp_path / "a.h5", "r") as file:
        sets = [
            open_images(file["in/p"]),
            open_images(zarr.open_array(tmp_path / "a.zarr/in/p", mode="r")),
            open_images(zarr.open_group(tmp_path / "a.zarr")["in/p"]),
            open_images(np.load(tmp_path / "a.npy", mmap_mode="r")),
        ]
    assert [images.table["uri"].iloc[6] for images in sets] == [
        f"hdf5:{tmp_path}/a.h5#in/p/6",
        f"zarr:{tmp_path}/a.zarr/in/p#/6",
        f"zarr:{tmp_path}/a.zarr#in/p/6",
        f"npy:{tmp_path}/a.npy#6",
    ]
    for images in sets:
        assert images.source == ArrayFileSource()
        _same(images, stack)


def test_other_mapped_pixels_stay_in_this_process(
    tmp_path: Path, stack: np.ndarray
) -> None:
    """Parts of a file, pixels that may change, and raw files are spooled as others are."""
    np.save(tmp_path / "a.npy", np.concatenate([stack, stack]))
    np.save(tmp_path / "b.npy", stack)
    stack.tofile(tmp_path / "a.raw")
    whole = np.load(tmp_path / "a.npy", mmap_mode="r")
    for pixels in (
        whole[7:],
        np.load(tmp_path / "b.npy", mmap_mode="c"),
        np.load(tmp_path / "b.npy", mmap_mode="r+"),
        np.memmap(tmp_path / "a.raw", np.uint8, "r", shape=stack.shape),
        np.load(tmp_path / "b.npy", mmap_mode="r")[::-1][::-1].copy(),
    ):
        images = open_images(pixels)
        assert isinstance(images.source, ArraySource)
        _same(images, stack)
    turned = open_images(np.load(tmp_path / "b.npy", mmap_mode="r")[::-1])
    _same(turned, stack[::-1])


def test_what_no_path_leads_to_is_spooled(
    tmp_path: Path, stack: np.ndarray, spool: Files
) -> None:
    """Arrays in memory and in files that are being written are copied by chunk."""
    store = zarr.storage.MemoryStore()
    array = zarr.create_array(store, data=stack, chunks=(2, 3, 8, 3))
    memory = h5py.File(io.BytesIO(), "w")
    written = h5py.File(tmp_path / "a.h5", "w")
    for pixels in (
        array,
        memory.create_dataset("p", data=stack, chunks=(3, 6, 8, 3)),
        written.create_dataset("p", data=stack),
    ):
        images = open_images(pixels)
        _same(images, stack)
        source = images.source.spooled(spool)
        assert isinstance(source, SpooledArraySource)
        np.testing.assert_array_equal(source.row("array:6"), stack[6])
    memory.close()
    written.close()
    with pytest.raises(InputError, match="its file is closed; give the file's path"):
        open_images(pixels)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_chunks_and_order_give_the_pixels(data: st.DataObject) -> None:
    """Rows are those of the array, lazily and spooled, however it is cut."""
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    height = data.draw(st.integers(1, 3))
    pixels = np.random.default_rng(1).integers(0, 256, (sum(sizes), 3, 2, 3), np.uint8)
    lazy = da.from_array(pixels, chunks=(tuple(sizes), height, 2, 3))
    images = open_images(data.draw(st.sampled_from([lazy, _labelled(lazy)])))
    with pytest.MonkeyPatch.context() as context:
        context.setattr(arrays, "PART_BYTES", data.draw(st.integers(1, 100)))
        place = files_at("memory://lazy-arrays-under-test")
        spooled = images.source.spooled(place)
    for row in data.draw(st.permutations(range(len(pixels)))):
        np.testing.assert_array_equal(images.read(row), pixels[row])
        np.testing.assert_array_equal(spooled.row(f"array:{row}"), pixels[row])


def test_each_chunk_is_computed_once(stack: np.ndarray, spool: Files) -> None:
    """Neither rows of one chunk nor a second spool compute it again."""
    computed: list[int] = []

    def noted(block: np.ndarray) -> np.ndarray:
        computed.append(len(block))
        return block

    lazy = da.from_array(stack, chunks=(3, 6, 8, 3)).map_blocks(noted, meta=stack)
    images = open_images(lazy)
    assert computed == []
    with dask.config.set(scheduler="synchronous"):
        for row in range(7):
            np.testing.assert_array_equal(images.read(row), stack[row])
        assert computed == [3, 3, 1]
        first = images.source.spooled(spool)
        assert images.source.spooled(spool) is first
        assert sorted(computed) == [1, 1, 3, 3, 3, 3]
        spool.delete_tree("")
        assert images.source.spooled(spool) == first
    assert len(computed) == 9
    np.testing.assert_array_equal(first.row("array:5"), stack[5])


def test_spooling_needs_little_memory(
    spool: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 48 MB no more than a few parts of 1 MB are in memory at a time."""
    monkeypatch.setattr(arrays, "PART_BYTES", 2**20)
    lazy = da.random.default_rng(0).integers(
        0, 256, (1024, 128, 128, 3), np.uint8, chunks=(16, 128, 128, 3)
    )
    source = open_images(lazy).source
    with dask.config.set(scheduler="synchronous"):
        tracemalloc.start()
        source.spooled(spool)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 8 * 2**20
    assert spool.nbytes() > 48 * 2**20


def test_rows_that_cannot_be_computed(stack: np.ndarray, spool: Files) -> None:
    """A row says why it is not there; the whole array cannot be spooled then."""

    def fail(block: np.ndarray) -> np.ndarray:
        raise RuntimeError("disk\non fire")

    lazy = da.from_array(stack, chunks=(3, 6, 8, 3)).map_blocks(fail, meta=stack)
    images = open_images(lazy)
    reason = (
        r"rows 3 to 5 of the array cannot be computed \(RuntimeError: disk on fire\)"
    )
    with pytest.raises(SourceError, match=reason):
        images.read(4)
    with pytest.raises(SourceError, match="rows 0 to 6 of the array cannot be comp"):
        images.source.spooled(spool)


def test_arrays_that_are_not_what_they_promise(stack: np.ndarray) -> None:
    """Dask may be told a wrong type; pixels are checked when they are there."""
    lazy = da.from_array(stack, chunks=(3, 6, 8, 3))
    wrong = lazy.map_blocks(lambda x: x / 2, meta=np.zeros((0,) * 4, np.uint8))
    with pytest.raises(SourceError, match=r"are float64 of shape .* but it promised"):
        open_images(wrong).read(0)


def test_unknown_shapes_are_refused(stack: np.ndarray) -> None:
    """How many images there are has to be known."""
    lazy = da.from_array(stack, chunks=(3, 6, 8, 3))
    with pytest.raises(InputError, match=r"unknown shape \(nan, .*compute_chunk_sizes"):
        open_images(lazy[lazy[:, 0, 0, 0] > 9])


@pytest.mark.parametrize("chunks", [None, (3, 6, 8, 3)])
def test_coordinates_are_ids_and_columns(stack: np.ndarray, chunks: Any) -> None:
    """Text along the first dimension are ids; what else lies along it are columns."""
    pixels = stack if chunks is None else da.from_array(stack, chunks=chunks)
    names = [f"photo {row}" for row in range(7)]
    array = _labelled(
        pixels,
        image=names,
        size=("image", np.arange(7) / 2),
        label=("image", [*"aabbccd"]),
        split=("image", ["train"] * 7),
        taken=("image", pd.date_range("2026-01-01", periods=7)),
        y=np.arange(6),
        camera="x",
        weight=(("image", "y"), np.ones((7, 6))),
    )
    images = open_images(array)
    assert images.table.index.tolist() == names
    assert images.table.columns.tolist() == ["uri", "label", "split", "size", "taken"]
    assert images.table["label"].tolist() == [*"aabbccd"]
    assert images.table["size"].tolist() == (np.arange(7) / 2).tolist()
    assert images.table["taken"].dt.day.tolist() == [*range(1, 8)]
    _same(images, stack)


def test_other_coordinates_of_the_first_dimension(stack: np.ndarray) -> None:
    """Row numbers are left out, levels are columns, numbers are a column or refused."""
    numbered = open_images(_labelled(stack, image=np.arange(7)))
    assert numbered.table.columns.tolist() == ["uri"]
    assert numbered.table.index[6] == "0006"
    array = _labelled(stack).rename(image="n").assign_coords(n=np.arange(7) + 5)
    assert open_images(array).table["n"].tolist() == [*range(5, 12)]
    levels = pd.MultiIndex.from_product([["a"], range(7)], names=["kind", "number"])
    coords = xr.Coordinates.from_pandas_multiindex(levels, "image")
    table = open_images(_labelled(stack).assign_coords(coords)).table
    assert table.columns.tolist() == ["uri", "kind", "number"]
    for clash in ("image", "uri", "status"):
        array = _labelled(stack).assign_coords({clash: ("image", np.arange(7) + 5)})
        with pytest.raises(
            InputError, match=rf"\['{clash}'\] bear names .*\.drop_vars"
        ):
            open_images(array)
    with pytest.raises(InputError, match="given to more than one image: 'a'"):
        open_images(_labelled(stack, image=["a"] * 7))


def test_the_channels_come_last(stack: np.ndarray) -> None:
    """A DataArray in another order is refused as an array is."""
    array = _labelled(stack).transpose("image", "channel", "y", "x")
    with pytest.raises(InputError, match=r"use \.transpose\(0, 2, 3, 1\)"):
        open_images(array)


def test_arrays_of_files_are_read_by_their_chunks(
    tmp_path: Path, stack: np.ndarray
) -> None:
    """xarray's own lazy arrays tell the chunks of their files."""
    ids = np.array([*"abcdefg"], np.dtypes.StringDType())
    data = xr.Dataset({"p": _labelled(stack, image=ids)})
    data.to_zarr(
        tmp_path / "a.zarr",
        encoding={"p": {"chunks": (3, 6, 8, 3)}},
        consolidated=False,
    )
    with xr.open_zarr(tmp_path / "a.zarr", chunks=None, consolidated=False) as opened:
        assert chunk_starts(opened["p"]) == (0, 3, 6)
        images = open_images(opened["p"])
        assert images.table.index.tolist() == [*"abcdefg"]
        _same(images, stack)


@pytest.mark.parametrize(
    ("chunks", "starts"),
    [((1, 6, 8, 3), ()), ((7, 3, 8, 3), (0,)), (((2, 4, 1), 6, 8, 3), (0, 2, 6))],
)
def test_starts_of_chunks(stack: np.ndarray, chunks: Any, starts: Any) -> None:
    """Where each chunk begins; chunks of one row need not be held."""
    assert chunk_starts(da.from_array(stack, chunks=chunks)) == starts


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 30))
def test_parts_are_of_whole_chunks(sizes: list[int], rows: int) -> None:
    """Each part is as long as it may be, and never cuts a chunk."""
    ends = np.cumsum(sizes).tolist()
    starts = [0, *ends[:-1]]
    found = part_starts(starts, ends[-1], rows=rows)
    assert set(found) <= set(starts)
    assert found[0] == 0
    for start, stop in itertools.pairwise([*found, ends[-1]]):
        assert stop - start <= rows or stop == next(x for x in ends if x > start)
        if stop < ends[-1]:  # with one more chunk it would be too long
            assert next(x for x in ends if x > stop) - start > rows


def test_an_array_source_travels(stack: np.ndarray) -> None:
    """A source that was not spooled can be sent too."""
    source = open_images(da.from_array(stack, chunks=(3, 6, 8, 3))).source
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again.row("array:6"), stack[6])


@pytest.mark.parametrize("source", [torch.zeros(2, 3), pd.Series([1]), [1], "a", None])
def test_other_things_are_no_arrays(source: object) -> None:
    """Only the five kinds are taken."""
    assert not is_array(source)


def test_groups_are_refused(tmp_path: Path, stack: np.ndarray) -> None:
    """What holds arrays is none; the remedy is told."""
    group = zarr.open_group(tmp_path / "a.zarr")
    group.create_array("p", data=stack)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for source, name in (
            (group, "Group"),
            (file, "File"),
            (file.create_group("g"), "Group"),
            (xr.Dataset({"p": _labelled(stack)}), "Dataset"),
        ):
            with pytest.raises(
                InputError, match=rf"^{name} is no array of images .*group\['photos'\]"
            ):
                open_images(source)


def test_what_was_deleted_since_is_read_from_the_object(
    tmp_path: Path, stack: np.ndarray
) -> None:
    """A path that leads nowhere, or to something else, is not written into a store."""
    zarr.create_array(tmp_path / "a.zarr", data=stack)
    array = zarr.open_array(tmp_path / "a.zarr", mode="r")
    (tmp_path / "a.zarr/zarr.json").unlink()
    images = open_images(array)
    assert isinstance(images.source, ArraySource)
    _same(images, stack)


def test_nothing_is_imported_for_it() -> None:
    """A process that opens NumPy arrays loads neither h5py nor Zarr."""
    script = (
        "import sys, numpy as np; from embedkit.images.open import open_images;"
        "open_images(np.zeros((2, 4, 4, 3), np.uint8)).read(1);"
        "print({'h5py', 'zarr', 'xarray', 'dask.array'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    assert done.stdout.strip() == "set()"
