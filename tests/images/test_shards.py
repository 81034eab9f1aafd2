"""Tests of tar shards: members, keys, sidecars, and shards that are not whole."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import posixpath
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embedkit.errors import InputError, SourceError
from embedkit.images.open import open_images
from embedkit.images.restore import restored
from embedkit.images.source import content_hash
from embedkit.images.tar_source import TarPlace, TarSource, tar_place, tar_uri


def _png(shade: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 3), (shade, 0, 0)).save(file, format="PNG")
    return file.getvalue()


def _tar(path: Path, members: Sequence[tuple[str, bytes]], format: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_members_in_order_with_what_stands_beside_them(tmp_path: Path) -> None:
    """Images keep the order of the shard; sidecars of their key are columns."""
    extra = {"caption": "a cat", "uri": "x", "width": 4, "deep": {"a": 1}, "layers": 2}
    shard = _tar(
        tmp_path / "a-000.tar",
        [
            ("b.png", _png(1)),
            ("b.cls", b"3\n"),
            ("a.jpeg.json", b"not of this key's kind"),
            ("b.json", json.dumps(extra).encode()),
            ("a.cls", b"1"),
            ("a.png", _png(2)),
            ("a.txt", b" of a \n"),
            ("notes", b"no extension"),
        ],
    )
    images = open_images(shard)
    assert images.table.index.tolist() == ["a-000/b", "a-000/a"]
    assert images.table.drop(columns="uri").astype(object).fillna("-").to_dict(
        "list"
    ) == {
        "label": ["3", "1"],
        "txt": ["-", "of a"],
        "caption": ["a cat", "-"],
        "json_layers": [2.0, "-"],
        "json_uri": ["x", "-"],
        "width": [4.0, "-"],
    }
    assert [images.read(row)[0, 0, 0] for row in (0, 1)] == [1, 2]
    assert images.sizes.tolist() == [len(_png(1)), len(_png(2))]
    assert images.mtimes.tolist() == [shard.stat().st_mtime_ns] * 2
    assert images.contents(np.arange(2)).tolist() == [
        content_hash(_png(1)),
        content_hash(_png(2)),
    ]


def test_a_member_is_where_its_uri_says(tmp_path: Path) -> None:
    """Any program can cut the image out of the file, and a later process read it."""
    shard = _tar(tmp_path / "100%#1.tar", [("x/a.png", _png(5))])
    images = open_images(str(shard))
    uri = images.table["uri"].iloc[0]
    assert uri == f"tar:{tmp_path}/100%25%231.tar#512+{len(_png(5))}/x/a.png"
    assert shard.read_bytes()[512:][: len(_png(5))] == _png(5)
    source = restored([uri])
    assert isinstance(source, TarSource)
    assert source.read(uri).getpixel((0, 0)) == (5, 0, 0)
    assert source.content(uri) == source.load(uri).content == content_hash(_png(5))
    assert source.spooled(None) is source  # type: ignore[arg-type]
    assert pickle.loads(pickle.dumps(source)) == source
    assert restored([uri, str(shard)]) is None


@given(
    st.text("ab#%+/ é:", min_size=1), st.integers(0), st.integers(0), st.text("a#/+9é")
)
def test_uris_say_what_they_were_given(
    path: str, offset: int, size: int, name: str
) -> None:
    """A uri comes apart as it was put together, whatever the names."""
    place = TarPlace(path, offset, size, name)
    assert tar_place(tar_uri(place)) == place
    assert tar_place(path) is None


_NAMES = st.text("ab.é/", min_size=1, max_size=8).map(lambda name: f"d/{name}x.png")


@settings(max_examples=60)
@given(
    st.lists(st.tuples(_NAMES, st.integers(0, 255)), max_size=6),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_any_members_are_read_back(members: list[tuple[str, int]], format: int) -> None:
    """Every image has one id, its pixels, and a uri that says where tarfile finds it."""
    members = [("z.png", 1), *members]
    with tempfile.TemporaryDirectory() as folder:
        packed = [(name, _png(shade)) for name, shade in members]
        shard = _tar(Path(folder, "s.tar"), packed, format)
        with tarfile.open(shard) as tar:
            there = {
                each.offset_data: (each, tar.extractfile(each).read())
                for each in tar.getmembers()
            }
        last = {
            posixpath.normpath(f"/{each.name}"): at for at, (each, _) in there.items()
        }
        images = open_images(shard)
        found = [tar_place(uri) for uri in images.table["uri"]]
        pixels = [images.read(row) for row in range(len(images))]
    assert images.table.index.is_unique
    visible = [at for name, at in last.items() if "/." not in name[name.rindex("/") :]]
    assert [place.offset for place in found] == sorted(visible)
    for place, read in zip(found, pixels, strict=True):
        member, data = there[place.offset]
        assert place.extent == member.size == len(data)
        np.testing.assert_array_equal(read, np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize(
    ("format", "name"),
    [
        (tarfile.PAX_FORMAT, "mäuse/" + "猫" * 90 + ".png"),
        (tarfile.GNU_FORMAT, "x/" * 90 + "a.png"),
        (tarfile.USTAR_FORMAT, "y" * 80 + "/" + "a" * 90 + ".png"),
    ],
)
def test_long_and_foreign_names(tmp_path: Path, format: int, name: str) -> None:
    """Names of all three formats are whole, and offsets are those of the data."""
    shard = _tar(tmp_path / "s.tar", [(name, _png(7)), ("b.png", _png(8))], format)
    images = open_images(shard)
    assert images.table.index.tolist() == [f"s/{name[:-4]}", "s/b"]
    assert images.read(0)[0, 0, 0] == 7


def test_names_that_lead_elsewhere_stay_inside(tmp_path: Path) -> None:
    """Nothing is unpacked, and ids hold no way out either."""
    names = ["../../etc/a.png", "/root/b.png", "./c.png", "d/../../e.png"]
    images = open_images(_tar(tmp_path / "s.tar", [(each, _png()) for each in names]))
    assert images.table.index.tolist() == ["s/etc/a", "s/root/b", "s/c", "s/e"]


def test_only_plain_files_are_images(tmp_path: Path) -> None:
    """Folders, links and devices are left out."""
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in [
            ("dir.png", tarfile.DIRTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("soft.png", tarfile.SYMTYPE),
            ("pipe.png", tarfile.FIFOTYPE),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "a.png"
            tar.addfile(info)
        info = tarfile.TarInfo("a.png")
        info.size = len(_png())
        tar.addfile(info, io.BytesIO(_png()))
    assert open_images(path).table.index.tolist() == ["s/a"]


def test_a_sparse_member_is_unreadable(tmp_path: Path) -> None:
    """A file with holes is not one piece of the shard: a row with that reason."""
    path = tmp_path / "s.tar"
    data = _png()
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("GNUSparseFile.0/a.png")
        body = f"1\n0\n{len(data)}\n".encode().ljust(512, b"\0") + data
        info.size = len(body)
        info.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "a.png",
            "GNU.sparse.realsize": str(len(data)),
        }
        tar.addfile(info, io.BytesIO(body))
    images = open_images(path)
    assert images.sizes.tolist() == [-1]
    with pytest.raises(
        SourceError, match=r"'s/a' cannot .*holes \(a sparse file\); pack"
    ):
        images.read(0)


def test_images_that_share_a_key_keep_their_extension(tmp_path: Path) -> None:
    """Two images of one key are two rows, with the same label."""
    members = [("a.left.png", _png(1)), ("a.right.png", _png(2)), ("a.cls", b"9")]
    images = open_images(_tar(tmp_path / "s.tar", members))
    assert images.table.index.tolist() == ["s/a.left.png", "s/a.right.png"]
    assert images.table["label"].tolist() == ["9", "9"]
    images = open_images(_tar(tmp_path / "s.tar", [("a.png", b""), ("a.PNG", b"")]))
    assert images.table.index.tolist() == ["s/a.png", "s/a.PNG"]


@pytest.mark.parametrize(
    ("values", "kind", "stored"),
    [
        ([1, 2], "int64", [1, 2]),
        ([1, 2.5], "float64", [1, 2.5]),
        ([2**70, 1], "float64", [2.0**70, 1.0]),
        ([True, False], "bool", [True, False]),
        ([True, None], "boolean", [True, None]),
        ([True, 2], "str", ["True", "2"]),
        (["a", [1]], "str", ["a", None]),
    ],
)
def test_kinds_of_values(tmp_path: Path, values: list, kind: str, stored: list) -> None:
    """Scalars keep their kind where a column has but one; else they become text."""
    members = [
        (f"{i}.json", json.dumps({"v": v}).encode()) for i, v in enumerate(values)
    ]
    members += [(f"{i}.png", _png()) for i in range(2)]
    column = open_images(_tar(tmp_path / "s.tar", members)).table["v"]
    assert column.dtype == kind
    assert column.astype(object).where(column.notna(), None).tolist() == stored


@pytest.mark.parametrize("asked", ["braces", "glob", "list", "choices"])
def test_many_shards(tmp_path: Path, asked: str) -> None:
    """A pattern, a glob and a list stand for the same shards in the same order."""
    files = [
        _tar(tmp_path / f"s-{i:03d}.tar", [("a.png", _png(i))]) for i in range(8, 12)
    ]
    source = {
        "braces": f"{tmp_path}/s-{{008..011}}.tar",
        "glob": f"{tmp_path}/*.tar",
        "list": files,
        "choices": f"{tmp_path}/s-0{{08,09,10,11}}.tar",
    }[asked]
    images = open_images(source)
    assert images.table.index.tolist() == [f"s-{i:03d}/a" for i in range(8, 12)]
    assert images.read(3)[0, 0, 0] == 11


def test_shards_of_one_name_in_two_folders(tmp_path: Path) -> None:
    """Where file names do not tell shards apart, their folders do."""
    files = [
        _tar(tmp_path / part / "0.tar", [("a.png", _png())]) for part in ("x", "y")
    ]
    assert open_images(files).table.index.tolist() == ["x/0/a", "y/0/a"]


def test_missing_shards_are_named(tmp_path: Path) -> None:
    """A shard of the pattern that is not there is an error: its rows would be gone."""
    _tar(tmp_path / "s-0.tar", [("a.png", _png())])
    with pytest.raises(
        SourceError, match=r"for 3 tar files, of which 2 .* first '.*s-1"
    ):
        open_images(f"{tmp_path}/s-{{0..2}}.tar")
    with pytest.raises(
        SourceError, match=r"for 0 tar files, of which 0 are not there;"
    ):
        open_images(f"{tmp_path}/q*.tar")


@pytest.mark.parametrize("end", [".tar", ".tar.gz", ".tgz"])
def test_compressed_shards_are_refused(tmp_path: Path, end: str) -> None:
    """By what they begin with, whatever they are called."""
    path = tmp_path / f"s{end}"
    path.write_bytes(gzip.compress(_tar(tmp_path / "t.tar", []).read_bytes()))
    with pytest.raises(InputError, match=r"compressed with gzip, .*decompress it"):
        open_images(path)


def test_what_is_no_tar_file_is_refused(tmp_path: Path, monkeypatch) -> None:
    """Other bytes, no images, options of tables, and a disk that fails."""
    path = tmp_path / "s.tar"
    path.write_bytes(b"nothing of the kind" * 99)
    with pytest.raises(SourceError, match=r"s\.tar' is no tar file \(.*copy it again"):
        open_images(path)
    _tar(path, [("a.txt", b"text")])
    with pytest.raises(SourceError, match=r"no image in 1 tar files, .*extensions"):
        open_images(path)
    with pytest.raises(InputError, match=r"id_column= .* are for tables .*tar files"):
        open_images(path, id_column="x")
    with pytest.raises(InputError, match=r"root= is for tables"):
        open_images(_tar(path, [("a.png", _png())]), root=tmp_path)
    with pytest.raises(InputError, match=r"root= is for tables"):
        open_images([path], root=tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "input/output error")

    monkeypatch.setattr(tarfile, "open", fail)
    with pytest.raises(SourceError, match=r"s\.tar' cannot be read \(.*input/output"):
        open_images(path)


@pytest.mark.parametrize("member", [("a.json", b"{"), ("a.cls", b"\xff")])
def test_a_damaged_sidecar_is_an_error(tmp_path: Path, member: tuple) -> None:
    """A label that cannot be read is not left out in silence."""
    shard = _tar(tmp_path / "s.tar", [("a.png", _png()), member])
    with pytest.raises(InputError, match=rf"'{member[0]}' in .*s\.tar' cannot be read"):
        open_images(shard)


def test_a_shard_cut_within_an_image(tmp_path: Path) -> None:
    """Rows before the cut stay, and the one that is cut says so."""
    shard = _tar(tmp_path / "s.tar", [("a.png", _png(1)), ("b.png", _png(2))])
    data = shard.read_bytes()
    shard.write_bytes(data[: 512 + 512 + 512 + 20])
    images = open_images(shard)
    assert images.table.index.tolist() == ["s/a", "s/b"]
    assert images.read(0)[0, 0, 0] == 1
    assert images.contents(np.arange(2))[1] == 0
    with pytest.raises(
        SourceError, match=r"'s/b' cannot .*ends within it: .*truncated"
    ):
        images.read(1)


@pytest.mark.parametrize("rest", [b"x" * 100, b"x" * 512])
def test_a_shard_that_is_damaged_from_somewhere_on(tmp_path: Path, rest: bytes) -> None:
    """What is lost cannot be named, so one row says that something is."""
    shard = _tar(tmp_path / "s.tar", [("a.png", _png(1))])
    shard.write_bytes(shard.read_bytes()[:1024] + rest)
    images = open_images(shard)
    assert images.table.index.tolist() == ["s/a", "s/@1024"]
    assert images.read(0)[0, 0, 0] == 1
    with pytest.raises(SourceError, match=r"cut off or damaged from byte 1,024 on"):
        images.read(1)
    assert restored(images.table["uri"].tolist()) == TarSource()


def test_a_shard_cut_within_a_sidecar(tmp_path: Path) -> None:
    """The row before it stays, without a label, and one row tells of the loss."""
    shard = _tar(tmp_path / "s.tar", [("a.png", _png(1)), ("a.cls", b"3" * 600)])
    shard.write_bytes(shard.read_bytes()[: 1536 + 100])
    images = open_images(shard)
    assert images.table.index.tolist()[0] == "s/a"
    assert len(images) == 2
    assert "label" not in images.table


def test_a_shard_without_its_end_mark_is_whole(tmp_path: Path) -> None:
    """Some writers leave the two empty blocks out."""
    shard = _tar(tmp_path / "s.tar", [("a.png", _png(1))])
    shard.write_bytes(shard.read_bytes()[:1024])
    assert open_images(shard).table.index.tolist() == ["s/a"]


def test_a_shard_that_is_gone_later(tmp_path: Path) -> None:
    """Rows say why they cannot be read; other uris are none of its business."""
    shard = _tar(tmp_path / "s.tar", [("a.png", b"no image")])
    images = open_images(shard)
    with pytest.raises(SourceError, match="not an image"):
        images.read(0)
    shard.unlink()
    with pytest.raises(SourceError, match=r"tar file cannot be read \(.*No such file"):
        images.read(0)
    with pytest.raises(
        SourceError, match=r"no member of a tar file is called 'a\.png'"
    ):
        images.source.read("a.png")
