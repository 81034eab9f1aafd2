"""Tests of crops: boxes in images, their ids, uris and pixels."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from embedkit.errors import InputError, SourceError
from embedkit.images import crops
from embedkit.images.crops import CropSource, crop_of
from embedkit.images.imageset import ImageSet
from embedkit.images.open import open_images
from embedkit.images.restore import restored
from embedkit.images.source import FileSource


@pytest.fixture
def boxes(tmp_path: Path, pixels: np.ndarray) -> Callable[..., ImageSet]:
    """Open boxes of ``a.png``, 10 wide and 12 high."""
    Image.fromarray(pixels).save(tmp_path / "a.png")

    def opened(*rows: tuple[float, ...]) -> ImageSet:
        frame = pd.DataFrame(rows, columns=["x0", "y0", "x1", "y1"])
        frame.insert(0, "path", "a.png")
        return open_images(frame, root=tmp_path)

    return opened


@pytest.fixture(autouse=True)
def forgotten() -> None:
    """Begin with no image held."""
    crops._last.key = crops._last.loaded = None


def test_one_row_per_box(boxes, pixels: np.ndarray, tmp_path: Path) -> None:
    """Rows of one file are numbered, keep their columns, and hold the box's pixels."""
    images = boxes((0, 0, 10, 12), (2, 3, 5, 9), (1.5, 0.2, 2.1, 4.0))
    assert images.table.index.tolist() == ["a.png#0", "a.png#1", "a.png#2"]
    assert images.table.columns.tolist() == ["uri", "x0", "y0", "x1", "y1"]
    assert images.table["uri"].tolist() == [
        f"{tmp_path}/a.png#xywh={box}" for box in ("0,0,10,12", "2,3,3,6", "1,0,2,4")
    ]
    np.testing.assert_array_equal(images.read(0), pixels)
    np.testing.assert_array_equal(images.read(1), pixels[3:9, 2:5])
    np.testing.assert_array_equal(images.read(2), pixels[0:4, 1:3])
    status = (tmp_path / "a.png").stat()
    assert images.sizes.tolist() == [status.st_size] * 3
    assert images.mtimes.tolist() == [status.st_mtime_ns] * 3


_NUMBER = st.floats(-20, 20)


@given(st.tuples(_NUMBER, _NUMBER, _NUMBER, _NUMBER))
def test_pixels_are_those_that_the_box_touches(box: tuple[float, ...]) -> None:
    """A box holds every pixel that it overlaps, and none other."""
    x0, y0, x1, y1 = box
    touched = [
        (row, column)
        for row in range(12)
        for column in range(10)
        if x0 < x1 and y0 < y1 and column < x1 and column + 1 > x0
        if row < y1 and row + 1 > y0
    ]
    crop = crop_of(f"/a#xywh={crops._fragment(box)}")
    assert crop is not None
    whole = np.arange(120, dtype=np.uint8).reshape(12, 10)
    try:
        found = np.asarray(crops._cut(Image.fromarray(whole), crop)).ravel().tolist()
    except SourceError:
        found = []
    assert found == [row * 10 + column for row, column in touched]


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((math.nan, 0, 5, 5), r"the box has no numbers: x0, y0, x1 or y1 is empty"),
        ((0, 0, math.inf, 5), r"the box has no numbers: .*infinite"),
        ((5, 5, 5, 9), r"the box is empty: from \(5, 5\), 0 wide and 0 high.* 10x12"),
        ((5, 9, 8, 2), r"the box is empty"),
        ((10, 0, 20, 5), r"the box is empty: .* holds no pixel of an image of 10x12"),
        ((-9, -9, -2, -2), r"the box is empty"),
    ],
)
def test_boxes_without_pixels_are_unreadable(boxes, box: tuple, reason: str) -> None:
    """Empty boxes, and those without numbers, stay rows with the reason."""
    images = boxes((0, 0, 2, 2), box)
    with pytest.raises(SourceError, match=rf"'a\.png#1' cannot be read: {reason}"):
        images.read(1)
    assert images.read(0).shape == (2, 2, 3)
    assert images.contents(np.arange(2)).min() > 0


def test_orientation_comes_before_the_box(tmp_path: Path, pixels: np.ndarray) -> None:
    """Boxes are in pixels of the upright image."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    frame = pd.DataFrame({"path": ["a.png"], "x0": 0, "y0": 0, "x1": 12, "y1": 1})
    found = open_images(frame, root=tmp_path).read(0)
    np.testing.assert_array_equal(found, np.rot90(pixels, -1)[:1])


def test_content_covers_file_and_box(boxes, tmp_path: Path) -> None:
    """Another box, or another file, is another content; load and content agree."""
    images = boxes((0, 0, 2, 2), (0, 0, 2, 3), (0, 0, 2, 2))
    one, other, same = images.contents(np.arange(3)).tolist()
    assert one == same != other
    assert one not in (0, FileSource().content(str(tmp_path / "a.png")))
    uris = images.table["uri"].tolist()
    assert [images.source.load(uri).content for uri in uris] == [one, other, same]
    Image.new("RGB", (10, 12)).save(tmp_path / "a.png")
    assert images.contents(np.array([0])).tolist() != [one]


def test_a_file_is_decoded_once_for_its_boxes(boxes, monkeypatch) -> None:
    """Rows that follow each other share the decoded image."""
    images = boxes(*[(i, i, i + 2, i + 2) for i in range(5)])
    opened: list[str] = []
    load = FileSource.load

    def counted(self: FileSource, uri: str) -> object:
        opened.append(uri)
        return load(self, uri)

    monkeypatch.setattr(FileSource, "load", counted)
    for row in range(5):
        images.read(row)
    assert len(opened) == 1


def test_a_file_that_changes_is_decoded_again(boxes, tmp_path: Path) -> None:
    """What is held belongs to one state of the file, and a damaged file is no pixels."""
    images = boxes((0, 0, 2, 2))
    images.read(0)
    Image.new("RGB", (40, 40), (9, 9, 9)).save(tmp_path / "a.png")
    assert images.read(0).max() == 9
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match="not an image"):
        images.read(0)
    assert images.source.load(images.table["uri"].iloc[0]).content > 0
    (tmp_path / "a.png").unlink()
    with pytest.raises(SourceError, match="the file does not exist"):
        images.read(0)
    assert images.contents(np.array([0])).tolist() == [0]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_in_files_and_ids_of_their_own(tmp_path: Path, touch, kind: str) -> None:
    """A column of ids is kept as it is; a table file gives what its frame gives."""
    touch("p/a.png", "p/b.png")
    frame = pd.DataFrame(
        {
            "path": ["p/b.png", "p/a.png", "p/b.png"],
            "label": ["x", "y", "z"],
            "x0": [0, 1, 2.5],
            "y0": [0, 0, 0],
            "x1": [2, 3, np.nan],
            "y1": [1, 2, 3],
            "key": ["k", "l", "m"],
        }
    )
    file = tmp_path / f"t.{kind}"
    frame.to_csv(file, index=False) if kind == "csv" else frame.to_parquet(file)
    images = open_images(file)
    assert images.table.index.tolist() == ["p/b.png#0", "p/a.png#0", "p/b.png#1"]
    assert images.table["label"].tolist() == ["x", "y", "z"]
    assert open_images(file, id_column="key").table.index.tolist() == ["k", "l", "m"]
    assert images.table["uri"].iloc[2] == f"{tmp_path}/p/b.png#xywh=none"
    named = open_images(
        frame.set_index(pd.Index(["1", "2", "3"], name="image")), root=tmp_path
    )
    assert named.table.index.tolist() == ["1", "2", "3"]


def test_boxes_are_numbers(tmp_path: Path, touch) -> None:
    """Text in a column of the box is refused; three columns are no box."""
    touch("a.png")
    frame = pd.DataFrame({"path": ["a.png"], "x0": 0, "y0": 0, "x1": 2, "y1": "2px"})
    with pytest.raises(InputError, match=r"'y1' must hold pixels as numbers, found "):
        open_images(frame, root=tmp_path)
    images = open_images(frame.drop(columns="y1"), root=tmp_path)
    assert images.table.index.tolist() == ["a.png"]


def test_a_source_needs_nothing_but_the_uris(boxes) -> None:
    """It pickles small and is restored; other uris are none of its business."""
    uris = boxes((0, 0, 2, 2), (0, 0, np.nan, 1)).table["uri"].tolist()
    source = restored(uris)
    assert isinstance(source, CropSource)
    assert source.read(uris[0]).size == (2, 2)
    assert source.spooled(None) is source  # type: ignore[arg-type]
    assert pickle.loads(pickle.dumps(source)) == source
    assert source.content("/a.png") == 0
    with pytest.raises(SourceError, match=r"no box in an image is called '/a\.png'"):
        source.read("/a.png")


def test_paths_may_hold_anything(tmp_path: Path) -> None:
    """A ``#`` in the name of a file is part of the name."""
    Image.new("RGB", (4, 3), (7, 0, 0)).save(tmp_path / "a#xywh=1,1,1,1.png")
    frame = pd.DataFrame(
        {"path": ["a#xywh=1,1,1,1.png"], "x0": [0], "y0": [0], "x1": [2], "y1": [2]}
    )
    assert open_images(frame, root=tmp_path).read(0).shape == (2, 2, 3)
