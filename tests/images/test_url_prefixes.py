"""Prefixes and globs of object stores."""

from __future__ import annotations

import time
import uuid
from pathlib import Path, PurePosixPath

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.errors import InputError, SourceError
from embedkit.files import connect, objects
from embedkit.files.files import files_at
from embedkit.images.open import open_images
from embedkit.images.url_prefixes import _matches

NAMES = ["train/cat/1.png", "train/dog/2 #%.PNG", "test/cat/a[1].png", "test/dog/?.png"]


@pytest.fixture(params=["memory", "s3"])
def place(request, touch) -> str:
    """A place with four images, a hidden one and a text."""
    url = (
        request.getfixturevalue("s3_bucket")
        if request.param == "s3"
        else f"memory://{uuid.uuid4().hex}"
    )
    names = [*NAMES, "train/.hidden/3.png", "read.me"]
    for name, file in zip(names, touch(*names), strict=True):
        files_at(url).write(name, file.read_bytes())
    return url


@pytest.mark.parametrize("end", ["", "/"])
def test_a_prefix_is_what_the_same_folder_is(
    place: str, end: str, tmp_path: Path
) -> None:
    """Ids, labels, splits, sizes and pixels."""
    there, here = open_images(place + end), open_images(tmp_path)

    assert there.table.drop(columns="uri").equals(here.table.drop(columns="uri"))
    assert sorted(there.table.index) == sorted(NAMES)
    assert there.sizes.tolist() == here.sizes.tolist()
    assert (there.mtimes > 1.5e18).all()
    assert there.table["uri"].tolist() == [
        f"{place}/{name}" for name in there.table.index
    ]
    assert all((there.read(i) == here.read(i)).all() for i in range(4))


@pytest.mark.parametrize(
    "pattern",
    ["**/*.png", "train/*/*", "*/cat/**/*", "t*/d[a-o]g/*", "train/.hidden/*.png"],
)
def test_a_glob_is_what_the_same_glob_is(
    place: str, pattern: str, tmp_path: Path
) -> None:
    """Same ids and labels."""
    there, here = (
        open_images(f"{place}/{pattern}"),
        open_images(f"{tmp_path}/{pattern}"),
    )

    assert there.table.drop(columns="uri").equals(here.table.drop(columns="uri"))
    assert there.sizes.tolist() == here.sizes.tolist()


@pytest.mark.parametrize("name", NAMES[2:])
def test_an_image_whose_name_looks_like_a_glob(place: str, name: str) -> None:
    """Is meant if it is there."""
    assert open_images(f"{place}/{name}").table["uri"].tolist() == [f"{place}/{name}"]


@given(st.lists(st.text("ab.", min_size=1), min_size=1), st.data())
def test_globs(parts: list, data) -> None:
    """As pathlib has them; two stars stand for any parts."""
    name = [each for each in parts if each != "."] or ["a"]
    pattern = [data.draw(st.sampled_from([each, "*", f"{each[0]}*"])) for each in name]
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(name))] * 2)))

    assert _matches(name, pattern) == PurePosixPath(*name).match("/".join(pattern))
    assert _matches(name, [*pattern[:start], "**", *pattern[end:]])
    assert not _matches(name, [*pattern, "*"])
    assert not _matches([*name, "c"], pattern)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("/trian", r"no image in '.*/trian': there is no file at all; check the path"),
        ("/trian.png", r"no image in '.*/trian.png': there is no file at all"),
        ("/*.me", r"no image in glob '.*me': found 1 file with extension .me, none an"),
    ],
)
def test_no_image(place: str, end: str, reason: str) -> None:
    """What is there instead is said."""
    with pytest.raises(SourceError, match=reason):
        open_images(place + end)


def test_names_that_cannot_be_asked_for(s3_bucket: str) -> None:
    """The listing ends with the name, since such an object would silently be missing."""
    bucket, _, prefix = s3_bucket.removeprefix("s3://").partition("/")
    boto3.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/a//b.png", Body=b"1")

    with pytest.raises(
        SourceError,
        match=r"cannot be listed: .*invalid path: .*a//b\.png.*empty path seg",
    ) as caught:
        open_images(s3_bucket)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://host/photos/", "a web server cannot list its files; give a list or a"),
        ("https://host/a/*.jpg", "a web server cannot list its files"),
        ("s3://bucket/a**/b.jpg", r"'\*\*' must stand alone between slashes"),
        (
            "s3://bucket/a.csv",
            r"cannot open 's3://bucket/a.csv': .csv files are read from",
        ),
        ("s3://bucket/{00..10}.tar", "download it first"),
        ("ftp://bucket/a", "the scheme ftp:// is not one of"),
        ("s3://bucket/a//b/", "is not a relative path of plain parts"),
    ],
)
def test_urls_that_are_refused(s3_server, url: str, reason: str) -> None:
    """With what to do."""
    with pytest.raises(InputError, match=reason):
        open_images(url)


def test_root_belongs_to_lists(place: str) -> None:
    """A prefix is its own."""
    with pytest.raises(InputError, match="root= is for tables and lists of paths"):
        open_images(place, root=place)


def test_one_image_of_a_web_server(web, touch) -> None:
    """With a query behind its extension."""
    (file,) = touch("a.png")
    (web[0] / "a b.png").write_bytes(file.read_bytes())

    images = open_images(f"{web[1]}/a%20b.png?*")

    assert images.table.index.tolist() == ["a%20b.png?*"]
    assert images.read(0).shape == (3, 4, 3)


@pytest.mark.parametrize("end", ["", "/*.jpg", "/a.jpg", "/a?.jpg"])
def test_a_dead_endpoint_is_told_soon(s3_server, monkeypatch, end: str) -> None:
    """By its name, and once for all."""
    connect._open.cache_clear()
    objects._dead.clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(connect, "RETRY", connect.RETRY / 10)
    start = time.monotonic()

    for _ in range(3):
        with pytest.raises(
            SourceError,
            match=r"cannot connect to http://127\.0\.0\.1:9: Connection ref",
        ):
            open_images(f"s3://bucket/photos{end}")

    assert time.monotonic() - start < 5
    objects._dead.clear()
    connect._open.cache_clear()
