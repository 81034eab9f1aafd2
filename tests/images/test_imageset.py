"""Tests of `ImageSet`: construction, choosing rows, reading, repr."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from embedkit.errors import InputError, SourceError
from embedkit.images.imageset import ImageSet
from embedkit.images.open import open_images
from embedkit.images.source import FileSource


def _images(
    ids: list[object], sizes: list[int] | None = None, **columns: object
) -> ImageSet:
    index = pd.Index(ids, name="image")
    table = pd.DataFrame({"uri": [f"/{each}" for each in ids], **columns}, index=index)
    numbers = np.arange(len(ids)) if sizes is None else np.array(sizes)
    return ImageSet(table, FileSource(), numbers.astype(np.int64))


def _arrays(n: int) -> ImageSet:
    rows = np.arange(n, dtype=np.uint8)[:, None, None, None]
    return open_images(np.broadcast_to(rows, (n, 2, 3, 3)).copy())


def test_no_image_is_refused() -> None:
    """A set holds at least one image."""
    with pytest.raises(InputError, match="needs at least one image, found none"):
        _images([])


def test_duplicate_ids_are_named() -> None:
    """Up to five ids that occur twice are named, with their number and the remedy."""
    with pytest.raises(
        InputError,
        match=r"^2 image ids given to more than one image: 'b', 'a'; drop .* id_column=",
    ):
        _images(["a", "b", "b", "a", "c", "b"])
    many = [str(i % 7) for i in range(14)]
    with pytest.raises(
        InputError, match=r"^7 image ids .*: '0', '1', '2', '3', '4', …;"
    ):
        _images(many)
    with pytest.raises(InputError, match=r"^1 image id given to .*: 'a'; drop"):
        _images(["a", "a"])


@pytest.mark.parametrize("ids", [[1, 2], ["a", None], ["a", 1], [b"a", b"b"]])
def test_ids_must_be_text(ids: list[object]) -> None:
    """Numbers and gaps are no ids."""
    with pytest.raises(InputError, match=r"image ids must be text, found .*str"):
        _images(ids)


def test_ids_of_object_dtype_are_text_too() -> None:
    """Python strings in an object index are as good as a string index."""
    table = pd.DataFrame(
        {"uri": ["/a"]}, index=pd.Index(["a"], dtype=object, name="image")
    )
    assert len(ImageSet(table, FileSource(), np.array([1]))) == 1


def test_sizes_must_match() -> None:
    """There is one size per image."""
    with pytest.raises(InputError, match=r"2 images need as many sizes.*shape \(3,\)"):
        _images(["a", "b"], [1, 2, 3])


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"uri": ["/a"]}, index=["a"]),
        pd.DataFrame(
            {"label": ["x"], "uri": ["/a"]}, index=pd.Index(["a"], name="image")
        ),
        pd.DataFrame(index=pd.Index(["a"], name="image")),
    ],
    ids=["index", "order", "none"],
)
def test_layout_is_checked(table: pd.DataFrame) -> None:
    """The index is called image and uri stands first."""
    with pytest.raises(
        InputError, match="index named 'image' and 'uri' as first column"
    ):
        ImageSet(table, FileSource(), np.array([1]))


def test_slices_and_numbers_and_masks_choose_alike() -> None:
    """The three ways to choose rows keep table and sizes together."""
    images = _images(list("abcde"), label=list("vwxyz"))
    mask = np.array([False, True, False, True, False])
    for chosen in (
        images[1:4:2],
        images[[1, 3]],
        images[np.array([-4, -2])],
        images[mask],
    ):
        assert isinstance(chosen, ImageSet)
        assert chosen.table.index.tolist() == ["b", "d"]
        assert chosen.table["label"].tolist() == ["w", "y"]
        assert chosen.sizes.tolist() == [1, 3]
        assert chosen.source is images.source
    assert len(images) == 5


def test_numbers_reorder() -> None:
    """Row numbers give their own order."""
    assert _images(list("abc"))[[2, 0]].table.index.tolist() == ["c", "a"]
    assert _images(list("abc"))[pd.Series([True, False, True])].sizes.tolist() == [0, 2]


@pytest.mark.parametrize("rows", [3, "a", [0.5], [[0]], ["a"], [True, False], None, []])
def test_other_choices_are_refused(rows: object) -> None:
    """Anything else is refused, with the way to one image's pixels."""
    with pytest.raises(InputError, match=r"chosen with a slice, row .* use read\(\)"):
        _images(list("abc"))[rows]


@pytest.mark.parametrize("row", [3, -4])
def test_rows_outside_are_refused(row: int) -> None:
    """A row that is not there is refused with the range."""
    with pytest.raises(InputError, match=f"there is no image {row}: rows are 0 to 2"):
        _images(list("abc"))[[0, row]]
    with pytest.raises(InputError, match=f"there is no image {row}: rows are 0 to 2"):
        _images(list("abc")).read(row)


def test_choosing_nothing_is_refused() -> None:
    """An empty choice is no set of images."""
    with pytest.raises(InputError, match="at least one image"):
        _images(list("abc"))[5:]
    with pytest.raises(InputError, match="at least one image"):
        _images(list("abc"))[np.zeros(3, bool)]


def test_choosing_a_row_twice_is_refused() -> None:
    """Ids stay unique."""
    with pytest.raises(
        InputError, match="1 image id given to more than one image: 'b'"
    ):
        _images(list("abc"))[[1, 1]]


@given(st.data())
def test_slicing_keeps_rows_together(data: st.DataObject) -> None:
    """Any slice of the set is that slice of ids, sizes and pixels."""
    n = data.draw(st.integers(1, 30))
    images, rows = _arrays(n), data.draw(st.slices(n))
    kept = list(range(n))[rows]
    if not kept:
        with pytest.raises(InputError, match="at least one image"):
            images[rows]
        return
    chosen = images[rows]
    assert chosen.table.index.tolist() == [f"{i:04d}" for i in kept]
    assert [chosen.read(i)[0, 0, 0] for i in range(len(kept))] == kept
    assert chosen.sizes.tolist() == [18] * len(kept)


@pytest.mark.parametrize("i", [1, -2, "0001", np.int64(1)])
def test_read_by_number_and_id(i: int | str) -> None:
    """One image by row, from the end, or by id: writable uint8 (H, W, 3)."""
    found = _arrays(3).read(i)
    assert (found.dtype, found.shape) == (np.uint8, (2, 3, 3))
    assert (found == 1).all()
    found[:] = 9


def test_read_of_an_unknown_id_names_near_ones() -> None:
    """A misspelt id is answered with the nearest."""
    with pytest.raises(
        InputError, match=r"no image 'cat/11.jp'\. Did you .*'cat/11\.jpg'"
    ):
        _images(["cat/11.jpg", "dog/7.jpg"]).read("cat/11.jp")


def test_read_of_a_bad_file_names_the_image(tmp_path: Path) -> None:
    """The error says which image, and why."""
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(
        SourceError, match=r"^image 'a.png' cannot be read: the file is em"
    ):
        open_images(tmp_path).read(0)


def test_times_are_unknown_unless_given() -> None:
    """A set that is made without times says so for every image."""
    images = _images(["a", "b"])
    assert images.mtimes.dtype == np.int64
    assert images.mtimes.tolist() == [-1, -1]


def test_times_must_match() -> None:
    """There is one time per image."""
    images, sizes = _images(["a", "b"]), np.array([1, 2])
    with pytest.raises(
        InputError, match=r"2 images need as many mtimes, but `mtimes` .*shape \(3,\)"
    ):
        ImageSet(images.table, images.source, sizes, np.array([1, 2, 3]))


@given(st.data())
def test_choosing_keeps_times_aligned(data: st.DataObject) -> None:
    """However rows are chosen, and chosen again, each keeps its own time and size."""
    n = data.draw(st.integers(1, 20))
    plain = _images([str(i) for i in range(n)])
    times = np.arange(n, dtype=np.int64) * 10**18 // 3
    images = ImageSet(plain.table, plain.source, plain.sizes, times)
    first = data.draw(st.permutations(range(n)))
    rows = data.draw(st.slices(n).filter(lambda rows: len(range(n)[rows])))
    chosen = images[first][rows]
    numbers = [int(name) for name in chosen.table.index]
    assert numbers == first[rows]
    assert chosen.mtimes.tolist() == [int(times[i]) for i in numbers]
    assert chosen.sizes.tolist() == numbers
    assert images.mtimes is times


def test_repr_of_little_and_much() -> None:
    """One line says how many, how large, and how they are split."""
    assert repr(_images(["a"], [12])) == "1 image · 12 bytes"
    assert repr(_images(["a"], [-1])) == "1 image"
    full = _images(
        list("abc"),
        [10_000_000, 24_400_000, -1],
        label=["x", "y", None],
        split=["test", "train", "train"],
    )
    assert repr(full) == "3 images · 2 labels · 34 MB · split: 2 train, 1 test"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (999, "999 bytes"),
        (1000, "1 kB"),
        (999_600, "1 MB"),
        (34_400_000, "34 MB"),
        (5_000_000_000, "5 GB"),
        (2_340_000_000_000, "2.3 TB"),
    ],
)
def test_repr_of_sizes(size: int, text: str) -> None:
    """Bytes are shown in decimal units."""
    assert repr(_images(["a"], [size])) == f"1 image · {text}"


def test_survives_pickling(tmp_path: Path, touch) -> None:
    """A set goes to another process and back, its times with it."""
    touch("cat/1.png", "dog/2.png")
    images = open_images(tmp_path)
    again = pickle.loads(pickle.dumps(images))
    pd.testing.assert_frame_equal(again.table, images.table)
    assert again.mtimes.tolist() == images.mtimes.tolist()
    np.testing.assert_array_equal(again.read(1), images.read(1))


def test_images_are_not_decoded_on_opening(tmp_path: Path, touch, monkeypatch) -> None:
    """Listing a folder opens no file."""
    touch("cat/1.png", "dog/2.png")
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("decoded"))
    images = open_images(tmp_path)
    assert images.sizes.tolist() == [
        Path(uri).stat().st_size for uri in images.table["uri"]
    ]
