"""Tests of Parquet files that hold images."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from embedkit.errors import InputError, SourceError
from embedkit.images.held import HELD
from embedkit.images.open import open_images
from embedkit.images.parquet import from_parquet
from embedkit.images.parquet_source import (
    ParquetPlace,
    ParquetSource,
    parquet_place,
    parquet_uri,
)
from embedkit.images.restore import restored
from embedkit.images.source import content_hash


def _png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 3), (shade, 0, 0)).save(file, format="PNG")
    return file.getvalue()


def _structs(n: int, *, start: int = 0, path: str | None = "{}.png") -> pa.Array:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = range(start, start + n)
    return pa.array(
        [{"bytes": _png(i), "path": path and path.format(i)} for i in rows], kind
    )


def _write(path: Path, columns: dict[str, object], group: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


@pytest.fixture(autouse=True)
def forgotten() -> None:
    """Begin with no row group held."""
    HELD.clear()


def test_rows_as_hugging_face_writes_them(tmp_path: Path) -> None:
    """One row per image over all row groups; ids are the paths beside the bytes."""
    file = _write(
        tmp_path / "a%#.parquet",
        {
            "image": _structs(7),
            "label": [i % 2 for i in range(7)],
            "caption": list("abcdefg"),
            "boxes": [[i] for i in range(7)],
            "thumb": [b"x"] * 7,
        },
    )
    images = open_images(file)
    assert images.table.index.tolist() == [f"{i}.png" for i in range(7)]
    assert images.table.columns.tolist() == ["uri", "label", "caption"]
    assert images.table["caption"].tolist() == list("abcdefg")
    assert (
        images.table["uri"].iloc[5] == f"parquet:{tmp_path}/a%25%23.parquet#1/2/image"
    )
    assert [images.read(row)[0, 0, 0] for row in range(7)] == list(range(7))
    expected = [content_hash(_png(i)) for i in range(7)]
    assert images.contents(np.arange(7)).tolist() == expected
    assert images.source.load(images.table["uri"].iloc[5]).content == expected[5]
    assert images.mtimes.tolist() == [file.stat().st_mtime_ns] * 7
    assert images.sizes.tolist() == [-1] * 7


def test_a_source_needs_nothing_but_the_uris(tmp_path: Path) -> None:
    """It pickles small, is restored, and uris come apart as they were put together."""
    images = open_images(_write(tmp_path / "a.parquet", {"image": _structs(2)}))
    uris = images.table["uri"].tolist()
    source = restored(uris)
    assert isinstance(source, ParquetSource)
    assert source.read(uris[1]).getpixel((0, 0)) == (1, 0, 0)
    assert source.spooled(None) is source  # type: ignore[arg-type]
    assert pickle.loads(pickle.dumps(source)) == source
    assert restored([*uris, "array:0"]) is None
    place = ParquetPlace("/a b%23#/é.parquet", 3, 44, "im/a#ge")
    assert parquet_place(parquet_uri(place)) == place
    assert parquet_place("tar:/a#1+2/b") is None


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_plain_bytes(tmp_path: Path, kind: pa.DataType) -> None:
    """A column of bytes holds images where there is no column of paths."""
    column = pa.array([_png(0), _png(1), None], kind)
    images = open_images(_write(tmp_path / "a.parquet", {"pixels": column}))
    assert images.table.index.tolist() == ["a/0000", "a/0001", "a/0002"]
    assert images.read(1)[0, 0, 0] == 1
    with pytest.raises(SourceError, match=r"'a/0002' .*no bytes in column 'pixels'"):
        images.read(2)
    assert images.contents(np.array([2])).tolist() == [0]


def test_a_struct_without_bytes_is_unreadable(tmp_path: Path) -> None:
    """Null bytes, or a null struct, are rows with that reason; ids are row numbers."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": None, "path": "a.png"}, None, {"bytes": b"x", "path": "b.png"}]
    images = open_images(
        _write(tmp_path / "a.parquet", {"image": pa.array(rows, kind)})
    )
    assert images.table.index.tolist() == ["a/0000", "a/0001", "a/0002"]
    for row in (0, 1):
        with pytest.raises(SourceError, match="no bytes in column 'image'"):
            images.read(row)
    with pytest.raises(SourceError, match="not an image"):
        images.read(2)


def test_paths_that_repeat_are_no_ids(tmp_path: Path) -> None:
    """Then, and without a path in the struct, rows are numbered."""
    same = _write(tmp_path / "a.parquet", {"image": _structs(2, path="x.png")})
    assert open_images(same).table.index.tolist() == ["a/0000", "a/0001"]
    bare = pa.array([{"bytes": _png(0)}], pa.struct([("bytes", pa.binary())]))
    images = open_images(_write(tmp_path / "b.parquet", {"image": bare}))
    assert images.table.index.tolist() == ["b/0000"]


def test_ids_from_a_column(tmp_path: Path) -> None:
    """The column of ids is text, and no column of the table any more."""
    columns = {"image": _structs(2), "key": [7, 8]}
    file = _write(tmp_path / "a.parquet", columns)
    images = open_images(file, id_column="key")
    assert images.table.index.tolist() == ["7", "8"]
    assert images.table.columns.tolist() == ["uri"]
    with pytest.raises(InputError, match=r"id_column='kee' is not .* mean 'key'"):
        open_images(file, id_column="kee")
    file = _write(tmp_path / "a.parquet", {**columns, "key": [None, "b"]})
    with pytest.raises(InputError, match="column 'key' is empty in 1 rows"):
        open_images(file, id_column="key")


@pytest.mark.parametrize("asked", ["folder", "glob"])
def test_many_files(tmp_path: Path, asked: str) -> None:
    """Files of a folder or glob follow each other by name."""
    for i in range(3):
        columns = {"image": _structs(2, path=None), "n": [i, i]}
        _write(tmp_path / "d" / f"p-{i}.parquet", columns)
    (tmp_path / "d" / ".cache").mkdir()
    (tmp_path / "d" / ".cache" / "half.parquet").write_bytes(b"")
    source = tmp_path / "d" if asked == "folder" else f"{tmp_path}/d/*.parquet"
    images = open_images(source)
    assert images.table.index[[0, 1, 5]].tolist() == [
        "p-0/0000",
        "p-0/0001",
        "p-2/0001",
    ]
    assert images.table["n"].tolist() == [0, 0, 1, 1, 2, 2]
    assert images.read(5)[0, 0, 0] == 1


def test_files_of_one_name_in_two_folders(tmp_path: Path) -> None:
    """Where names do not tell files apart, their folders do; folders give no columns."""
    for part in ("s=1", "s=2"):
        _write(tmp_path / part / "0.parquet", {"image": _structs(1, path=None)})
    images = open_images(tmp_path)
    assert images.table.index.tolist() == ["s=1/0/0000", "s=2/0/0000"]
    assert images.table.columns.tolist() == ["uri"]


def test_paths_go_before_plain_bytes_unless_asked(tmp_path: Path, touch) -> None:
    """A table with paths stays one, whatever bytes it holds beside them."""
    touch("a.png")
    file = _write(tmp_path / "t.parquet", {"path": ["a.png"], "thumb": [_png(9)]})
    assert open_images(file, image_column="thumb").read(0)[0, 0, 0] == 9
    images = open_images(file, path_column="path")
    assert images.table["uri"].tolist() == [str(tmp_path / "a.png")]
    assert open_images(file).table["uri"].tolist() == [str(tmp_path / "a.png")]
    assert open_images(tmp_path).table.index.tolist() == ["a.png"]


def test_structs_go_before_paths(tmp_path: Path) -> None:
    """Bytes and path in a struct are images; a file name beside them is a column."""
    columns = {"filename": ["gone.png"], "image": _structs(1)}
    images = open_images(_write(tmp_path / "t.parquet", columns))
    assert images.table["filename"].tolist() == ["gone.png"]
    assert images.read(0)[0, 0, 0] == 0


def test_what_is_ambiguous_is_refused(tmp_path: Path) -> None:
    """Two columns of images, none, and options that do not belong."""
    two = _write(
        tmp_path / "two.parquet", {"a": _structs(1), "b": _structs(1, start=5)}
    )
    with pytest.raises(InputError, match=r"2 columns of bytes, a, b; .*image_column="):
        open_images(two)
    assert open_images(two, image_column="b").read(0)[0, 0, 0] == 5
    with pytest.raises(
        InputError, match=r"image_column='c' is no column of image bytes"
    ):
        open_images(two, image_column="c")
    with pytest.raises(InputError, match=r"root= is for tables"):
        open_images(two, image_column="a", root=tmp_path)
    with pytest.raises(InputError, match=r"image_column= is for Parquet files"):
        open_images(pd.DataFrame({"path": ["a"]}), image_column="a")
    with pytest.raises(InputError, match=r"image_column= is for Parquet files"):
        open_images(tmp_path / "none.png", image_column="a")
    _write(tmp_path / "d" / "n.parquet", {"n": [1]})
    with pytest.raises(InputError, match=r"n\.parquet' has no column of image bytes"):
        open_images(tmp_path / "d")
    clash = {"image": _structs(1), "error": [1]}
    with pytest.raises(InputError, match=r"columns \['error'\] bear names"):
        open_images(_write(tmp_path / "clash.parquet", clash))
    with pytest.raises(SourceError, match=r"there is no file or folder '.*q\.parquet'"):
        open_images(tmp_path / "q.parquet")
    (tmp_path / "not.parquet").write_bytes(b"PAR")
    with pytest.raises(SourceError, match=r"not\.parquet' cannot be read: .* expected"):
        open_images(tmp_path / "not.parquet")
    with pytest.raises(SourceError, match=r"there is no \.parquet file here"):
        from_parquet([])
    with pytest.raises(SourceError, match=r"no image in glob '.*q\*\.parquet'"):
        open_images(f"{tmp_path}/q*.parquet")


def _reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows with every row group that is read."""
    groups: list[int] = []
    read = pq.ParquetFile.read_row_group

    def counted(self: pq.ParquetFile, i: int, **options: object) -> pa.Table:
        groups.append(i)
        return read(self, i, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    return groups


def test_a_row_group_is_read_once(tmp_path: Path, monkeypatch) -> None:
    """Rows in order cost one reading of each group, and of the bytes alone."""
    images = open_images(_write(tmp_path / "a.parquet", {"image": _structs(7)}))
    groups = _reads(monkeypatch)
    images.contents(np.arange(7))
    for row in range(7):
        images.read(row)
    assert sorted(groups) == [0, 1, 2]
    assert {each.value.type for each in HELD._entries.values()} == {
        pa.struct([("bytes", pa.binary())])
    }


def test_held_row_groups_are_bounded(tmp_path: Path, monkeypatch) -> None:
    """Beyond the bound only the group read last is held; the longest unused goes first."""
    images = open_images(_write(tmp_path / "a.parquet", {"image": _structs(9)}))
    monkeypatch.setattr(HELD, "limit", 1)
    groups = _reads(monkeypatch)
    for row in (0, 1, 3, 0):
        images.read(row)
    assert groups == [0, 1, 0]
    assert [key[4] for key in HELD._entries] == [0]


def test_a_file_that_is_written_again_is_read_again(tmp_path: Path) -> None:
    """What is held belongs to one state of the file."""
    file = _write(tmp_path / "a.parquet", {"image": _structs(2)})
    images = open_images(file)
    assert images.read(1)[0, 0, 0] == 1
    _write(file, {"image": _structs(1, start=200)})
    assert images.read(0)[0, 0, 0] == 200
    with pytest.raises(SourceError, match="the Parquet file cannot be read"):
        images.read(1)
    file.unlink()
    with pytest.raises(SourceError, match=r"cannot be read \(.*No such file"):
        images.read(0)
    with pytest.raises(SourceError, match=r"no row of a Parquet file is called 'x'"):
        images.source.read("x")


@pytest.mark.parametrize(
    ("told", "labels"),
    [
        ({"info": {"features": {"label": {"names": ["cat", "dog"]}}}}, ["dog", "cat"]),
        ({"info": {"features": {"label": {"dtype": "int64"}, "n": 1}}}, [1, 0]),
        ({"info": {"features": {"other": {"names": ["cat", "dog"]}}}}, [1, 0]),
        ({"info": None}, [1, 0]),
        ([], [1, 0]),
    ],
)
def test_classes_have_the_names_that_the_file_tells(
    tmp_path: Path, told: object, labels: list
) -> None:
    """Numbers become names where a dataset was written with them, else they stay."""
    table = pa.table({"image": _structs(2), "label": [1, 0]})
    marked = table.replace_schema_metadata({"huggingface": json.dumps(told)})
    pq.write_table(marked, tmp_path / "a.parquet")
    assert open_images(tmp_path / "a.parquet").table["label"].tolist() == labels


def test_a_class_without_a_name_is_empty(tmp_path: Path) -> None:
    """Hugging Face writes -1 where a label is unknown."""
    told = {"info": {"features": {"label": {"names": ["cat", "dog"]}}}}
    table = pa.table({"image": _structs(2), "label": [-1, 0]})
    marked = table.replace_schema_metadata({"huggingface": json.dumps(told)})
    pq.write_table(marked, tmp_path / "a.parquet")
    labels = open_images(tmp_path / "a.parquet").table["label"]
    assert labels.isna().tolist() == [True, False]
    assert labels.iloc[1] == "cat"
