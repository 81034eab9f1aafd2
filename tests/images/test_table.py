"""Tests of tables: DataFrame, CSV, TSV and Parquet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from embedkit.errors import InputError, SourceError
from embedkit.images.open import open_images


@pytest.fixture
def frame(touch) -> pd.DataFrame:
    """Return a table of three images below `tmp_path`, with columns of many dtypes."""
    touch("cat/1.png", "dog/2.png", "cat/3.png")
    return pd.DataFrame(
        {
            "weight": [1.5, np.nan, 3.0],
            "path": ["dog/2.png", "cat/1.png", "cat/3.png"],
            "split": ["train", "test", "train"],
            "count": np.array([1, 2, 3], np.int8),
            "label": pd.Categorical(["dog", "cat", "cat"]),
            "day": pd.to_datetime(["2026-01-01", "2026-01-02", "2026-01-03"]),
            "good": [True, False, True],
        }
    )


def test_dataframe_keeps_rows_columns_and_dtypes(tmp_path: Path, frame) -> None:
    """Rows stay in order, ids are paths, and every other column is as it was."""
    given = frame.copy()
    images = open_images(frame, root=tmp_path)
    table = images.table
    assert table.index.tolist() == ["dog/2.png", "cat/1.png", "cat/3.png"]
    assert table.columns.tolist() == [
        *("uri", "label", "split", "weight", "count", "day", "good")
    ]
    assert table["uri"].tolist() == [str(tmp_path / each) for each in frame["path"]]
    for name in ("weight", "split", "count", "label", "day", "good"):
        pd.testing.assert_series_equal(
            table[name].reset_index(drop=True), frame[name], check_names=True
        )
    pd.testing.assert_frame_equal(frame, given)
    assert images.read(0)[0, 0, 0] == 1


def test_dataframe_starts_at_the_working_directory(
    tmp_path, frame, monkeypatch, same
) -> None:
    """Without a root, relative paths start where the process does."""
    monkeypatch.chdir(tmp_path)
    assert same(open_images(frame), open_images(frame, root=tmp_path))


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_table_files(tmp_path: Path, frame, kind: str, same) -> None:
    """A table file gives what its DataFrame gives; paths start in its folder."""
    file = tmp_path / f"table.{kind}"
    if kind == "parquet":
        frame.to_parquet(file)
    else:
        frame.to_csv(file, index=False, sep="\t" if kind == "tsv" else ",")
    images = open_images(file)
    expected = open_images(frame, root=tmp_path)
    assert same(images, expected)
    assert images.table["uri"].tolist() == expected.table["uri"].tolist()
    assert images.table.columns.tolist() == expected.table.columns.tolist()
    assert images.table["count"].tolist() == [1, 2, 3]
    assert images.table["weight"].isna().tolist() == [False, True, False]
    if kind == "parquet":
        assert images.table.dtypes.to_dict() == expected.table.dtypes.to_dict()
    assert same(open_images(str(file)), images)


def test_root_overrides_the_tables_folder(tmp_path: Path, frame, same) -> None:
    """Paths start at root where one is given, also relative to the working directory."""
    (tmp_path / "lists").mkdir()
    frame.to_csv(tmp_path / "lists" / "table.CSV", index=False)
    images = open_images(tmp_path / "lists" / "table.CSV", root=str(tmp_path))
    assert same(images, open_images(frame, root=tmp_path))


@pytest.mark.parametrize(
    "name", ["path", "uri", "file", "filename", "image", "filepath"]
)
def test_usual_path_columns_are_found(tmp_path: Path, frame, name: str) -> None:
    """Each of the usual names will do."""
    images = open_images(frame.rename(columns={"path": name}), root=tmp_path)
    assert images.table.index[0] == "dog/2.png"


def test_the_first_usual_name_wins_and_others_stay(tmp_path: Path, frame) -> None:
    """A second usual name is a column like others."""
    images = open_images(frame.assign(filename="x", file="y"), root=tmp_path)
    assert set(images.table["filename"]) == {"x"}
    assert set(images.table["file"]) == {"y"}


def test_path_column_is_named(tmp_path: Path, frame) -> None:
    """Any column can hold the paths."""
    given = frame.rename(columns={"path": "where"})
    images = open_images(given, path_column="where", root=tmp_path)
    assert images.table.index[0] == "dog/2.png"
    assert "where" not in images.table


def test_id_column_gives_ids(tmp_path: Path, frame) -> None:
    """Ids are the text of a column, which then is the index."""
    images = open_images(frame.assign(sku=[7, 8, 9]), id_column="sku", root=tmp_path)
    assert images.table.index.tolist() == ["7", "8", "9"]
    assert "sku" not in images.table


def test_ids_in_csv_are_text(tmp_path: Path, frame) -> None:
    """Leading zeros stay."""
    frame.assign(sku=["007", "008", "1e3"]).to_csv(tmp_path / "t.csv", index=False)
    images = open_images(tmp_path / "t.csv", id_column="sku")
    assert images.table.index.tolist() == ["007", "008", "1e3"]


def test_path_column_can_be_the_ids(tmp_path: Path, frame, same) -> None:
    """Naming the path column as ids is what happens anyway."""
    images = open_images(frame, id_column="path", root=tmp_path)
    assert same(images, open_images(frame, root=tmp_path))


def test_paths_are_written_with_slashes(tmp_path: Path, touch) -> None:
    """Needless parts of a path are no part of the id; Path objects are paths."""
    touch("a/1.png", "a/2.png")
    frame = pd.DataFrame({"path": ["./a//1.png", Path("a/2.png")]})
    assert open_images(frame, root=tmp_path).table.index.tolist() == [
        "a/1.png",
        "a/2.png",
    ]


def test_absolute_paths_have_relative_ids(tmp_path: Path, touch) -> None:
    """Ids are relative to root, or to what the paths have in common."""
    files = touch("p/a/1.png", "p/b/2.png")
    frame = pd.DataFrame({"path": [str(file) for file in files]})
    assert open_images(frame).table.index.tolist() == ["a/1.png", "b/2.png"]
    below = open_images(frame, root=tmp_path).table.index.tolist()
    assert below == ["p/a/1.png", "p/b/2.png"]
    aside = open_images(frame, root=tmp_path / "q").table.index.tolist()
    assert aside == ["a/1.png", "b/2.png"]


def test_a_set_opens_from_its_own_table(tmp_path: Path, frame, same) -> None:
    """The table of a set, filtered, is a set again with the same ids."""
    images = open_images(frame, root=tmp_path)
    cats = open_images(images.table[images.table["label"] == "cat"])
    assert same(cats, images[1:])
    pd.testing.assert_frame_equal(cats.table, images[1:].table)


def test_missing_files_stay_rows(tmp_path: Path, frame) -> None:
    """A file that is not there is an unreadable image, not a lost row."""
    frame.loc[1, "path"] = "cat/gone.png"
    images = open_images(frame, root=tmp_path)
    assert len(images) == 3
    assert images.sizes[1] == -1
    with pytest.raises(
        SourceError, match=r"'cat/gone.png' .*: the file does not exist"
    ):
        images.read(1)


def test_no_file_at_all_is_an_error(tmp_path: Path, frame) -> None:
    """Where nothing exists the paths start elsewhere."""
    with pytest.raises(
        SourceError, match=r"none of the 3 files exists, .*dog/2.*root="
    ):
        open_images(frame, root=tmp_path / "elsewhere")


@pytest.mark.parametrize("name", ["image", "uri", "status", "error"])
def test_reserved_names_are_refused(tmp_path: Path, frame, name: str) -> None:
    """Columns that embedkit writes itself must be renamed."""
    with pytest.raises(InputError, match=rf"\['{name}'\] .* rename .*'my_{name}'"):
        open_images(frame.assign(**{name: 1}), root=tmp_path)


def test_reserved_name_that_is_used_is_fine(tmp_path: Path, frame) -> None:
    """A column of ids called image becomes the index."""
    images = open_images(
        frame.assign(image=list("xyz")), id_column="image", root=tmp_path
    )
    assert images.table.index.tolist() == ["x", "y", "z"]


def test_odd_column_names_are_refused(tmp_path: Path, frame) -> None:
    """Names that are no text, or used twice, cannot be stored."""
    with pytest.raises(InputError, match=r"must be text, each used once, found \[3\]"):
        open_images(frame.assign(n=1).rename(columns={"n": 3}), root=tmp_path)
    twice = frame.rename(columns={"good": "count"})
    with pytest.raises(InputError, match=r"each used once, found \['count'\]"):
        open_images(twice, root=tmp_path)


def test_no_path_column_lists_columns(tmp_path: Path, frame) -> None:
    """The columns that there are are named."""
    bare = frame[["weight", "label"]]
    with pytest.raises(
        InputError, match=r"looked for path, .*found weight, label; say"
    ):
        open_images(bare)
    bare.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InputError, match=r"no column of paths: .*path_column="):
        open_images(tmp_path / "t.csv")


@pytest.mark.parametrize("option", ["path_column", "id_column"])
def test_unknown_columns_name_near_ones(tmp_path: Path, frame, option: str) -> None:
    """A misspelt column is answered with the nearest."""
    with pytest.raises(InputError, match=rf"{option}='labl' is not .* mean 'label'\?"):
        open_images(frame, root=tmp_path, **{option: "labl"})
    frame.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InputError, match=rf"{option}='labl' is not .* mean 'label'\?"):
        open_images(tmp_path / "t.csv", **{option: "labl"})


@pytest.mark.parametrize("option", ["path_column", "id_column"])
def test_gaps_are_refused(tmp_path: Path, frame, option: str) -> None:
    """An image without path or id is refused, with its row."""
    given = frame.assign(name=["a", None, "c"])
    with pytest.raises(
        InputError, match="'name' is empty in 1 rows, for instance row 1"
    ):
        open_images(given, root=tmp_path, **{option: "name"})


def test_values_that_are_no_paths_are_refused(tmp_path: Path, frame) -> None:
    """Numbers are no paths."""
    with pytest.raises(
        InputError, match=r"'count' must hold paths, but row 0 holds int"
    ):
        open_images(frame, path_column="count")


def test_a_mix_of_urls_and_paths_is_refused(frame) -> None:
    """One set is read from one kind of place."""
    n = len(frame)
    frame.loc[2, "path"] = "https://example.org/a.png"
    with pytest.raises(
        InputError,
        match=rf"either URLs or paths, but {n - 1} of {n} rows are paths like",
    ):
        open_images(frame)


def test_duplicate_paths_are_refused(tmp_path: Path, frame) -> None:
    """Two rows of one image need ids of their own."""
    twice = pd.concat([frame, frame[:1]])
    with pytest.raises(
        InputError, match=r"1 image id given to more .*'dog/2.png'; .*id_col"
    ):
        open_images(twice, root=tmp_path)
    named = twice.assign(n=list("abcd"))
    assert len(open_images(named, root=tmp_path, id_column="n")) == 4


def test_an_empty_table_is_refused(frame) -> None:
    """A table without rows holds no images."""
    with pytest.raises(InputError, match="at least one image, found none"):
        open_images(frame[:0])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b""),
        ("a.csv", b"path,label\n1,2,3,4\n1,2\n1,2,3,4,5,6,7\n"),
        ("a.csv", b"path\n\xff\xfe\x00"),
        ("a.parquet", b"not parquet"),
    ],
    ids=["empty", "ragged", "bytes", "parquet"],
)
def test_unreadable_tables_say_why(tmp_path: Path, name: str, content: bytes) -> None:
    """A table that cannot be parsed is one line with the parser's reason."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        SourceError, match=r"table .* cannot be read: .*was expected"
    ) as caught:
        open_images(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_clothing_labels(shared) -> None:
    """A real table beside its images agrees with the folder."""
    folder = shared("clothing_cc0")
    by_table = open_images(folder / "labels.csv")
    by_folder = open_images(folder)
    table = by_table.table.loc[by_folder.table.index]
    assert len(by_table) == 972
    assert (table["uri"] == by_folder.table["uri"]).all()
    assert (table["label"] == by_folder.table["label"]).all()
    assert (table["bytes"] == by_folder.sizes).all()
