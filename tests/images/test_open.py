"""Tests of `open_images`: lists, single files, arrays, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import embedkit
from embedkit.errors import InputError, SourceError
from embedkit.images.arrays import ArraySource
from embedkit.images.open import open_images
from embedkit.images.source import FileSource


def test_it_is_the_public_one() -> None:
    """The package offers it by name."""
    assert embedkit.open_images is open_images


def test_list_keeps_its_order(tmp_path: Path, touch) -> None:
    """A list of paths, as text or Path, in any sequence."""
    b, a = touch("p/x/b.png", "p/a.png")
    for given in ([b, a], (str(b), a)):
        images = open_images(given)
        assert images.table.index.tolist() == ["x/b.png", "a.png"]
        assert images.table["uri"].tolist() == [str(b), str(a)]
        assert images.table.columns.tolist() == ["uri"]
        assert isinstance(images.source, FileSource)
    assert images.read(1)[0, 0, 0] == 1


def test_list_relative_to_root(tmp_path: Path, touch, monkeypatch) -> None:
    """Ids are relative to root where one is given; paths to the working directory."""
    files = touch("p/x/b.png", "p/x/a.png")
    assert open_images(files).table.index.tolist() == ["b.png", "a.png"]
    assert open_images(files, root=tmp_path).table.index[0] == "p/x/b.png"
    monkeypatch.chdir(tmp_path / "p")
    images = open_images(["x/../x/b.png"], root="../p")
    assert images.table["uri"].to_dict() == {"x/b.png": str(files[0])}


def test_list_takes_any_extension(tmp_path: Path, touch) -> None:
    """What is listed is meant, whatever it is called."""
    files = touch("a.dat")
    assert open_images(files).read(0).shape == (3, 4, 3)


def test_list_outside_root_is_refused(tmp_path: Path, touch) -> None:
    """A file outside root has no id there."""
    files = touch("p/a.png", "q/b.png")
    with pytest.raises(
        InputError, match=r"1 of 2 files lie outside root .*b\.png.*above"
    ):
        open_images(files, root=tmp_path / "p")


def test_list_with_missing_files(tmp_path: Path, touch) -> None:
    """A missing file stays a row; if all are missing, that is an error."""
    files = [*touch("a.png"), tmp_path / "gone.png", "a\0b.png"]
    images = open_images(files[:2])
    assert images.sizes[0] > 0
    assert images.sizes[1] == -1
    with pytest.raises(
        SourceError, match=r"'gone\.png' cannot be read: the file does not"
    ):
        images.read("gone.png")
    with pytest.raises(SourceError, match=r"none of the 1 files exists, .*gone\.png'"):
        open_images(files[1:2])
    assert len(open_images([str(files[0]), f"{tmp_path}/{files[2]}"])) == 2


def test_list_with_a_file_twice_is_refused(touch) -> None:
    """One file is one image."""
    files = touch("a.png")
    with pytest.raises(
        InputError, match=r"1 image id given to more than one image: 'a\.png'"
    ):
        open_images(files * 2)


def test_list_of_other_things_is_refused() -> None:
    """Elements must be paths; pixels come as one array."""
    with pytest.raises(
        InputError, match=r"element 1 is int; for pixels give one uint8"
    ):
        open_images(["a.png", 3])
    with pytest.raises(InputError, match="needs at least one path, found none"):
        open_images([])


def test_single_image_is_a_list_of_one(tmp_path: Path, touch) -> None:
    """One image file is one row."""
    (file,) = touch("p/a.png")
    for given in (file, str(file)):
        assert open_images(given).table["uri"].to_dict() == {"a.png": str(file)}
    assert open_images(file, root=tmp_path).table.index.tolist() == ["p/a.png"]


def test_home_folder_is_expanded(tmp_path: Path, touch, monkeypatch) -> None:
    """``~`` stands for the home folder."""
    touch("p/a.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_images("~/p").table["uri"].tolist() == [str(tmp_path / "p" / "a.png")]


def test_other_file_is_refused(tmp_path: Path) -> None:
    """A file that is neither image nor table is refused with what would do."""
    (tmp_path / "a.txt").write_text("words")
    with pytest.raises(
        InputError, match=r"a\.txt' is neither an image nor a table .*glob"
    ):
        open_images(tmp_path / "a.txt")


def test_array_round_trip() -> None:
    """Rows of an array are images under zero-padded ids."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 5, 4, 3), np.uint8)
    images = open_images(pixels)
    assert images.table.index.tolist() == [f"{i:04d}" for i in range(12)]
    assert images.table["uri"].tolist()[11] == "array:11"
    assert images.sizes.tolist() == [60] * 12
    assert isinstance(images.source, ArraySource)
    assert np.shares_memory(images.source.pixels, pixels)
    for i in (0, 11):
        np.testing.assert_array_equal(images.read(i), pixels[i])
    assert repr(images) == "12 images · 720 bytes"


def test_array_ids_grow_with_the_number() -> None:
    """Ids of many rows are all of one length, so that they sort as the rows do."""
    ids = open_images(np.zeros((10_001, 1, 1, 3), np.uint8)).table.index
    assert (ids[0], ids[-1]) == ("00000", "10000")
    assert ids.is_monotonic_increasing


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 4, 4, 3)), r"found float64 of .*scale the values to 0\.\.255"),
        (
            np.zeros((2, 3, 4, 4), np.uint8),
            r"shape \(2, 3, 4, 4\); .*transpose\(0, 2, 3",
        ),
        (np.zeros((4, 4, 3), np.uint8), r"shape \(4, 4, 3\); .*pixels\[np\.newaxis\]"),
        (np.zeros((2, 4, 4), np.uint8), r"shape \(2, 4, 4\); .*np\.repeat"),
        (np.zeros((2, 4, 4, 1), np.uint8), r"shape \(2, 4, 4, 1\); bring it into that"),
        (np.zeros((0, 4, 4, 3), np.uint8), r"is empty: its shape is \(0, 4, 4, 3\)"),
        (np.zeros((2, 0, 4, 3), np.uint8), r"is empty: its shape is \(2, 0, 4, 3\)"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, reason: str) -> None:
    """Dtype and shape that were found are named, with the remedy."""
    with pytest.raises(InputError, match=reason):
        open_images(array)


@pytest.mark.parametrize("source", [None, 3, {"a": 1}, pd.Series(["a.png"]), iter([])])
def test_other_sources_are_refused(source: object) -> None:
    """What cannot be opened is named by type, with all that can."""
    with pytest.raises(
        InputError,
        match=rf"cannot open {type(source).__name__} as images: give a folder",
    ):
        open_images(source)


@pytest.mark.parametrize(
    ("option", "owner"),
    [("image_column", "Parquet files"), ("path_column", "tables")],
)
def test_options_that_urls_do_not_have(option: str, owner: str) -> None:
    """Refused before any server is asked."""
    with pytest.raises(InputError, match=f"{option}= is for {owner}; leave it out"):
        open_images("s3://bucket/photos", **{option: "x"})


@pytest.mark.parametrize("option", ["path_column", "id_column"])
def test_table_options_belong_to_tables(tmp_path: Path, touch, option: str) -> None:
    """An option that would have no effect is refused."""
    (file,) = touch("a.png")
    for source in (
        tmp_path,
        file,
        [file],
        f"{tmp_path}/*.png",
        np.zeros((1, 2, 2, 3), np.uint8),
    ):
        with pytest.raises(InputError, match=f"{option}= is for tables; leave it out"):
            open_images(source, **{option: "path"})


def test_root_belongs_to_tables_and_lists(tmp_path: Path, touch) -> None:
    """A folder, a glob and an array have their own root."""
    touch("a.png")
    for source in (tmp_path, f"{tmp_path}/*.png", np.zeros((1, 2, 2, 3), np.uint8)):
        with pytest.raises(InputError, match="root= is for tables and lists of paths"):
            open_images(source, root=tmp_path)
