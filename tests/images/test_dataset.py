"""Tests of datasets in the manner of torchvision."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from embedkit.errors import InputError, SourceError, StoreError
from embedkit.files.files import Files
from embedkit.images.dataset import DatasetSource, SpooledDatasetSource, is_dataset
from embedkit.images.open import open_images
from embedkit.images.restore import restored
from embedkit.images.source import FileSource, content_hash


class Items:
    """A dataset of a list of items, with whatever attributes are given."""

    def __init__(self, items: list[Any], **attributes: Any) -> None:
        self.items = items
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Any:
        item = self.items[row]
        if isinstance(item, Exception):
            raise item
        return item


def _kinds() -> dict[str, Callable[[np.ndarray], Any]]:
    return {
        "pil": Image.fromarray,
        "array": lambda pixels: pixels,
        "tensor": lambda pixels: torch.from_numpy(pixels.transpose(2, 0, 1).copy()),
        "with target": lambda pixels: (Image.fromarray(pixels), 3),
        "in a list": lambda pixels: [pixels, "x", {}],
    }


@pytest.mark.parametrize("kind", _kinds())
@given(
    pixels=npst.arrays(
        np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3))
    )
)
def test_pixels_come_through(kind: str, pixels: np.ndarray) -> None:
    """Every kind of item gives the pixels it was made of, and their hash."""
    images = open_images(Items([_kinds()[kind](pixels)]))
    np.testing.assert_array_equal(images.read(0), pixels)
    expected = content_hash(str(pixels.shape).encode(), pixels.tobytes())
    assert images.contents(np.array([0])).tolist() == [expected]
    assert images.source.load("dataset:0").content == expected


@pytest.mark.parametrize(
    "item",
    [
        Image.fromarray(np.full((2, 5), 9, np.uint8)),
        np.full((2, 5), 9, np.uint8),
        np.full((2, 5, 1), 9, np.uint8),
        torch.full((2, 5), 9, dtype=torch.uint8),
        torch.full((1, 2, 5), 9, dtype=torch.uint8),
    ],
)
def test_gray_items(item: Any) -> None:
    """One channel becomes three."""
    np.testing.assert_array_equal(
        open_images(Items([item])).read(0), np.full((2, 5, 3), 9)
    )


def test_rows_are_numbered_in_order() -> None:
    """Ids are row numbers of one width; nothing is known of sizes and times."""
    items = [np.full((2, 2, 3), row % 256, np.uint8) for row in range(12)]
    images = open_images(Items(items))
    assert images.table.index.tolist() == [f"{row:04d}" for row in range(12)]
    assert images.table.columns.tolist() == ["uri"]
    assert images.table["uri"].iloc[11] == "dataset:11"
    assert images.sizes.tolist() == images.mtimes.tolist() == [-1] * 12
    assert images.read(11).max() == 11
    assert restored(images.table["uri"].tolist()) is None


@pytest.mark.parametrize(
    ("attributes", "labels"),
    [
        ({"targets": [1, 0], "classes": ["cat", "dog"]}, ["dog", "cat"]),
        ({"targets": torch.tensor([1, 0]), "classes": ("cat", "dog")}, ["dog", "cat"]),
        ({"labels": np.array([5, 7])}, ["5", "7"]),
        ({"targets": [1, 2], "classes": ["cat", "dog"]}, ["1", "2"]),
        ({"targets": ["a", "b"], "classes": ["cat", "dog"]}, ["a", "b"]),
    ],
)
def test_labels_come_without_reading(attributes: dict, labels: list[str]) -> None:
    """Targets through classes where they are their numbers, else as text."""
    items = [np.zeros((2, 2, 3), np.uint8), ValueError("not asked for")]
    images = open_images(Items(items, **attributes))
    assert images.table["label"].tolist() == labels


@pytest.mark.parametrize("targets", [None, [1], [[1, 2], [3, 4]]])
def test_other_targets_are_no_labels(targets: Any) -> None:
    """Boxes, or targets of another length, say nothing of the rows."""
    items = [np.zeros((2, 2, 3), np.uint8)] * 2
    assert "label" not in open_images(Items(items, targets=targets)).table


@pytest.mark.parametrize("name", ["samples", "imgs"])
def test_listed_files_are_opened_as_files(tmp_path: Path, touch, name: str) -> None:
    """No item is read: the files are there, with ids below the root."""
    files = touch("d/cat/1.png", "d/dog/2.png")
    pairs = [(str(file), target) for target, file in enumerate(files)]
    never = [ValueError("not asked for")] * 2
    classes = ["cat", "dog"]
    images = open_images(
        Items(never, **{name: pairs}, classes=classes, root=str(tmp_path))
    )
    assert isinstance(images.source, FileSource)
    assert images.table.index.tolist() == ["d/cat/1.png", "d/dog/2.png"]
    assert images.table["label"].tolist() == classes
    elsewhere = open_images(Items(never, **{name: pairs}, root=tmp_path / "x"))
    assert elsewhere.table.index.tolist() == ["cat/1.png", "dog/2.png"]
    assert elsewhere.table["label"].tolist() == ["0", "1"]


@pytest.mark.parametrize("samples", [[1], [("a", 1, 2)], [(1, "a")], 5, [("a", 1)] * 2])
def test_other_samples_are_not_files(samples: Any) -> None:
    """Lists of other things are no lists of files."""
    images = open_images(Items([np.zeros((2, 2, 3), np.uint8)], samples=samples))
    assert isinstance(images.source, DatasetSource)


def test_torchvision_image_folder(tmp_path: Path, touch) -> None:
    """Its own class, whose transform is left out, gives what the folder gives."""
    touch("cat/1.png", "cat/2.png", "dog/1.png")
    folder = torchvision.datasets.ImageFolder(
        tmp_path, transform=torchvision.transforms.ToTensor()
    )
    images, same = open_images(folder), open_images(tmp_path)
    assert images.table.equals(same.table)


def test_torchvision_fake_data() -> None:
    """Items that are made when they are asked for; a transform to floats is refused."""
    images = open_images(torchvision.datasets.FakeData(3, (3, 8, 8)))
    assert images.read(2).shape == (8, 8, 3)
    floats = torchvision.datasets.FakeData(
        3, (3, 8, 8), transform=torchvision.transforms.ToTensor()
    )
    with pytest.raises(
        InputError,
        match=r"dataset FakeData: an item is float32 of .*set transform=None",
    ):
        open_images(floats)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"image": 1}, r"an item is dict, not a PIL image, array or tensor"),
        (np.zeros((2, 2, 4), np.uint8), r".*shape \(2, 2, 4\); .* \(H, W, 3\)"),
        (
            torch.zeros((2, 2, 3), dtype=torch.uint8),
            r".*\(2, 2, 3\); it must be \(3, H, W\)",
        ),
        (np.zeros((0, 2, 3), np.uint8), r"an item has shape \(0, 2, 3\)"),
        (np.zeros((2, 2, 3), np.int64), r"an item is int64 of shape"),
    ],
)
def test_items_that_are_no_pixels(item: Any, reason: str) -> None:
    """The first item decides whether this is a dataset of images; others are rows."""
    with pytest.raises(InputError, match=f"dataset Items: {reason}"):
        open_images(Items([item]))
    images = open_images(Items([np.zeros((2, 2, 3), np.uint8), item]))
    with pytest.raises(SourceError, match=f"'0001' cannot be read: {reason}"):
        images.read(1)


class _OddError(Exception):
    """An error of nobody's kind."""


@pytest.mark.parametrize("error", [OSError("gone"), _OddError("gone\nfor good")])
def test_an_item_that_fails_is_one_row(error: Exception) -> None:
    """Whatever a dataset raises is the reason of that row, the first one too."""
    images = open_images(Items([error, np.zeros((2, 2, 3), np.uint8)]))
    name = type(error).__name__
    with pytest.raises(
        SourceError, match=rf"item 0 of .* cannot be read \({name}: gone"
    ):
        images.read(0)
    assert images.contents(np.arange(2))[0] == 0
    assert images.read(1).shape == (2, 2, 3)


def test_what_is_no_dataset(tmp_path: Path) -> None:
    """Mappings, classes and arrays of other libraries are not, and neither is nothing."""
    assert not any(map(is_dataset, [{}, "ab", Items, torch.zeros(3), 5, iter([])]))
    with pytest.raises(InputError, match="cannot open dict as images"):
        open_images({})
    with pytest.raises(InputError, match="dataset Items is empty"):
        open_images(Items([]))
    with pytest.raises(InputError, match="id_column= is for tables"):
        open_images(Items([np.zeros((2, 2, 3), np.uint8)]), id_column="a")
    with pytest.raises(SourceError, match="no item of a dataset is called 'array:0'"):
        DatasetSource(Items([])).read("array:0")


def test_a_spooled_dataset_is_written_once(spool: Files) -> None:
    """What travels is small, whatever the dataset holds, and reads the same pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 30, 30, 3), np.uint8)
    source = DatasetSource(Items(list(pixels)))
    spooled = source.spooled(spool)
    assert isinstance(spooled, SpooledDatasetSource)
    assert spooled == source.spooled(spool)
    assert spooled.spooled(spool) is spooled
    assert len(pickle.dumps(spooled)) < 1000
    assert spool.names() == [spooled.name]
    again = pickle.loads(pickle.dumps(spooled))
    np.testing.assert_array_equal(np.asarray(again.read("dataset:8")), pixels[8])
    assert again.content("dataset:8") == source.content("dataset:8")


def test_a_dataset_that_does_not_travel(spool: Files) -> None:
    """Locks cannot be sent, and a file that is gone stops the run, not one image."""
    first = np.zeros((2, 2, 3), np.uint8)
    locked = open_images(Items([first], lock=threading.Lock())).source
    with pytest.raises(InputError, match=r"dataset Items cannot be sent to workers: "):
        locked.spooled(spool)
    with pytest.raises(StoreError, match=r"/none\.pkl cannot be loaded \(.*packages"):
        SpooledDatasetSource(spool.url, "none.pkl").load("dataset:0")


def test_items_are_asked_for_one_at_a_time() -> None:
    """Datasets expect one thread, so no two ask at once."""
    inside, most = 0, 0
    lock = threading.Lock()

    class Watched(Items):
        def __getitem__(self, row: int) -> Any:
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            threading.Event().wait(0.002)
            with lock:
                inside -= 1
            return super().__getitem__(row)

    images = open_images(Watched([np.zeros((2, 2, 3), np.uint8)] * 64))
    images.contents(np.arange(64))
    assert most == 1
