"""Tests of folders and globs: which files, in which order, with which labels."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.errors import InputError, SourceError
from embedkit.images.folder import has_images, place_columns
from embedkit.images.open import open_images


def _ids(source: object) -> list[str]:
    return open_images(source).table.index.tolist()


def test_a_flat_folder_has_no_labels(tmp_path: Path, touch) -> None:
    """Files in one folder: ids are names, in order, with absolute uris and sizes."""
    files = touch("b.png", "a.png", "c.PNG")
    images = open_images(tmp_path)
    assert images.table.columns.tolist() == ["uri"]
    assert images.table.index.tolist() == ["a.png", "b.png", "c.PNG"]
    assert images.table["uri"].tolist() == sorted(map(str, files))
    assert images.sizes.dtype == np.int64
    assert images.sizes.tolist() == [file.stat().st_size for file in sorted(files)]


def test_subfolders_are_labels(tmp_path: Path, touch) -> None:
    """The folder that holds a file is its label, however deep."""
    touch("cat/1.png", "dog/2.png", "wild/cat/3.png")
    table = open_images(tmp_path).table
    assert table.columns.tolist() == ["uri", "label"]
    assert table["label"].to_dict() == {
        "cat/1.png": "cat",
        "dog/2.png": "dog",
        "wild/cat/3.png": "cat",
    }


def test_a_file_beside_labelled_folders_has_none(tmp_path: Path, touch) -> None:
    """A missing label is a missing value, not a word."""
    touch("0.png", "cat/1.png")
    assert open_images(tmp_path).table["label"].isna().tolist() == [True, False]


@pytest.mark.parametrize(
    "names", [("train", "test"), ("Train", "VAL", "Test"), ("valid",)]
)
def test_split_folders_are_a_split(
    tmp_path: Path, touch, names: tuple[str, ...]
) -> None:
    """Outer folders of well-known names become a column of their own."""
    touch(*(f"{name}/cat/1.png" for name in names))
    table = open_images(tmp_path).table
    assert table.columns.tolist() == ["uri", "label", "split"]
    assert table["split"].tolist() == sorted(names)
    assert set(table["label"]) == {"cat"}


def test_one_other_folder_makes_them_labels(tmp_path: Path, touch) -> None:
    """Unless all outer folders are of that kind, they are labels."""
    touch("train/1.png", "test/2.png", "extra/3.png")
    table = open_images(tmp_path).table
    assert table.columns.tolist() == ["uri", "label"]
    assert table["label"].tolist() == ["extra", "test", "train"]


def test_other_folders_without_images_do_not_count(tmp_path: Path, touch) -> None:
    """Only folders that hold images decide."""
    touch("train/cat/1.png", "test/dog/2.png")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "readme.txt").write_text("words")
    assert open_images(tmp_path).table["split"].tolist() == ["test", "train"]


def test_files_directly_in_a_split_have_no_label(tmp_path: Path, touch) -> None:
    """The name of a split is no label."""
    touch("train/1.png", "test/2.png")
    assert open_images(tmp_path).table.columns.tolist() == ["uri", "split"]
    touch("train/cat/3.png")
    labels = open_images(tmp_path).table["label"]
    assert labels.dropna().to_dict() == {"train/cat/3.png": "cat"}


def test_hidden_and_other_files_are_left_out(tmp_path: Path, touch) -> None:
    """Hidden names, text and documents are no images."""
    touch("a.png", ".b.png", ".cache/c.png", "d/.e/f.png")
    for name in ("notes.txt", "paper.pdf", "drawing.eps", "none"):
        (tmp_path / name).write_text("words")
    assert _ids(tmp_path) == ["a.png"]


def test_empty_and_damaged_files_stay_rows(tmp_path: Path, touch) -> None:
    """Nothing is decoded, so nothing is dropped."""
    touch("a.png")
    (tmp_path / "b.jpg").write_bytes(b"")
    (tmp_path / "c.jpg").write_bytes(b"<html>")
    assert _ids(tmp_path) == ["a.png", "b.jpg", "c.jpg"]


def test_links_in_a_circle_end(tmp_path: Path, touch) -> None:
    """A link to a folder above is not followed; a link aside is."""
    touch("x/cat/1.png", "y/2.png")
    (tmp_path / "x" / "cat" / "up").symlink_to(tmp_path / "x")
    (tmp_path / "x" / "self").symlink_to(tmp_path / "x" / "self")
    (tmp_path / "x" / "aside").symlink_to(tmp_path / "y")
    assert _ids(tmp_path / "x") == ["aside/2.png", "cat/1.png"]


def test_a_dangling_link_stays_a_row(tmp_path: Path, touch) -> None:
    """A link to nothing is an image that cannot be read."""
    touch("a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    images = open_images(tmp_path)
    assert images.table.index.tolist() == ["a.png", "b.png"]
    assert images.sizes[1] == -1
    with pytest.raises(
        SourceError, match=r"'b.png' cannot be read: the file does not ex"
    ):
        images.read("b.png")


def test_pipes_are_left_out(tmp_path: Path, touch) -> None:
    """Opening a pipe would wait for ever, so one is no image by whatever name."""
    touch("a.png")
    if not hasattr(os, "mkfifo"):
        pytest.skip("there are no named pipes here")
    os.mkfifo(tmp_path / "b.png")
    assert _ids(tmp_path) == ["a.png"]


def test_unicode_and_spaces_in_names(tmp_path: Path, touch) -> None:
    """Names are kept as they are."""
    touch("größe/a b.png", "图/#1%.png")
    assert _ids(tmp_path) == ["größe/a b.png", "图/#1%.png"]
    assert open_images(tmp_path).read("图/#1%.png").shape == (3, 4, 3)


def test_same_stem_in_two_formats_are_two_images(tmp_path: Path, touch) -> None:
    """The extension is part of the id."""
    touch("a.png", "a.jpg", "a.b.png")
    assert _ids(tmp_path) == ["a.b.png", "a.jpg", "a.png"]


def test_names_that_are_no_text_are_refused(tmp_path: Path, touch) -> None:
    """A name that is not UTF-8 cannot be an id, and is shown as bytes."""
    touch("a.png")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.png")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system holds UTF-8 names only")
    with pytest.raises(
        InputError, match=r"not valid UTF-8, for instance b'b\\xff\.png'"
    ):
        open_images(tmp_path)


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    """No file at all is told apart from files of another kind."""
    with pytest.raises(
        SourceError, match=r"no image in folder .*: there is no file at all"
    ):
        open_images(tmp_path)


def test_a_folder_of_text_says_what_there_is(tmp_path: Path) -> None:
    """What was found instead is counted and named."""
    for name in ("a.txt", "b.txt", "c.TXT"):
        (tmp_path / name).write_text("words")
    with pytest.raises(
        SourceError,
        match=r"found 3 files with extensions \.txt, none an image; give a li",
    ):
        open_images(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "README").write_text("words")
    with pytest.raises(
        SourceError, match=r"found 1 file with extension \(none\), none"
    ):
        open_images(tmp_path / "sub")


def test_a_missing_folder_names_near_ones(tmp_path: Path, touch) -> None:
    """The nearest existing names are suggested, at the part that is missing."""
    touch("photos/a.png")
    with pytest.raises(
        SourceError, match=r"no file or folder .*Did you mean 'photos'\?"
    ):
        open_images(tmp_path / "fotos")
    with pytest.raises(SourceError, match=r"In '.*': Did you mean 'photos'\?"):
        open_images(tmp_path / "photo" / "deep" / "er")
    with pytest.raises(SourceError, match=r"a\.png': There is none"):
        open_images(tmp_path / "photos" / "a.png" / "b.png")


def test_a_closed_folder_is_an_error(tmp_path: Path, touch, monkeypatch) -> None:
    """Images that cannot be listed are not silently left out."""
    touch("open/a.png", "closed/b.png")
    scandir = os.scandir

    def refuse(folder: str | Path) -> object:
        if str(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(
        SourceError, match=r"cannot be listed \(.*denied.*make it readable"
    ):
        open_images(tmp_path)


@pytest.mark.slow
@given(
    names=st.lists(
        st.from_regex(r"\A([ab]/)?[a-zA-Z0-9_é-]{1,6}\.(png|jpg)\Z"),
        unique_by=str.lower,
        min_size=1,
        max_size=12,
    ),
    seed=st.integers(0, 99),
)
def test_order_does_not_depend_on_creation(names: list[str], seed: int) -> None:
    """Ids are unique and sorted, in whatever order the files came to be."""
    shuffled = random.Random(seed).sample(names, len(names))
    found = []
    for order in (names, shuffled):
        with tempfile.TemporaryDirectory() as folder:
            for name in order:
                file = Path(folder, name)
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(name.encode())
            images = open_images(folder)
            found.append((images.table.index.tolist(), images.sizes.tolist()))
    ids = sorted(set(names))
    expected = (ids, [len(name.encode()) for name in ids])
    assert found == [expected, expected]


def test_place_columns_of_nothing_placed() -> None:
    """Flat names give no column, and a file beside a split has none."""
    assert place_columns(["a.png", "b.png"]) == {}
    assert place_columns(["a.png", "test/b.png"]) == {"split": [None, "test"]}


def test_glob_is_relative_to_its_literal_part(tmp_path: Path, touch, same) -> None:
    """Ids start after the last folder that is spelt out; labels follow as in a folder."""
    touch("p/train/cat/1.png", "p/train/dog/2.png", "p/test/cat/3.png", "p/0.png")
    images = open_images(f"{tmp_path}/p/**/*.png")
    assert images.table.index.tolist() == _ids(tmp_path / "p")
    assert same(images, open_images(tmp_path / "p"))
    assert _ids(f"{tmp_path}/p/train/*/*.png") == ["cat/1.png", "dog/2.png"]
    assert open_images(f"{tmp_path}/p/t*/*/?.png").table["split"].tolist() == [
        "test",
        "train",
        "train",
    ]


def test_glob_takes_only_visible_images(tmp_path: Path, touch) -> None:
    """Text and hidden files stay out, unless hidden ones are asked for by name."""
    touch("a.png", ".b.png", ".cache/c.png", "d/.thumbs/e.png")
    (tmp_path / "f.txt").write_text("words")
    assert _ids(f"{tmp_path}/**/*") == ["a.png"]
    assert _ids(f"{tmp_path}/*/.thumbs/*.png") == ["d/.thumbs/e.png"]
    assert _ids(f"{tmp_path}/.cache/*.png") == ["c.png"]


def test_glob_relative_to_the_working_directory(
    tmp_path: Path, touch, monkeypatch
) -> None:
    """A relative pattern gives absolute uris."""
    touch("p/a.png")
    monkeypatch.chdir(tmp_path)
    images = open_images("p/*.png")
    assert images.table["uri"].to_dict() == {"a.png": str(tmp_path / "p" / "a.png")}


def test_glob_follows_no_circle(tmp_path: Path, touch) -> None:
    """``**`` ends in the presence of links."""
    touch("x/1.png")
    (tmp_path / "x" / "up").symlink_to(tmp_path)
    assert "x/1.png" in _ids(f"{tmp_path}/**/*.png")


def test_a_folder_with_brackets_is_a_folder(tmp_path: Path, touch) -> None:
    """What exists is taken by its name, wildcards or not."""
    touch("set [1]/a.png")
    assert _ids(tmp_path / "set [1]") == ["a.png"]


def test_glob_errors(tmp_path: Path, touch) -> None:
    """No match, a wrong start and a malformed pattern each have their own line."""
    touch("photos/a.png", "photos/b.txt")
    with pytest.raises(
        SourceError, match=r"no image in glob '.*\*\.gif': there is no file"
    ):
        open_images(f"{tmp_path}/photos/*.gif")
    with pytest.raises(
        SourceError, match=r"found 1 file with extension \.txt, none an"
    ):
        open_images(f"{tmp_path}/photos/*.txt")
    with pytest.raises(
        SourceError, match=r"starts in no folder\. .*Did you mean 'photos'"
    ):
        open_images(f"{tmp_path}/photo/*.png")
    with pytest.raises(InputError, match=r"'\*\*' must stand alone between slashes"):
        open_images(f"{tmp_path}/a**/*.png")


def test_clothing(shared) -> None:
    """A real folder of products: 972 images in 10 classes and two parts."""
    images = open_images(shared("clothing_cc0"))
    assert len(images) == 972
    assert images.table["label"].nunique() == 10
    assert images.table["split"].value_counts().to_dict() == {"train": 600, "test": 372}
    assert images.table.index.is_monotonic_increasing
    assert "972 images · 10 labels · " in repr(images)
    assert repr(images).endswith("split: 600 train, 372 test")
    assert images.read(0).shape[2] == 3


def test_whether_a_folder_has_images(tmp_path: Path, touch) -> None:
    """By extension; a folder that cannot be listed is left to whoever opens it."""
    assert not has_images(tmp_path)
    touch("a.txt", "d/e/a.PNG")
    assert has_images(tmp_path)
    assert has_images(tmp_path / "none")
