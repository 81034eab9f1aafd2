"""Lists and tables of images at URLs."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.errors import InputError, SourceError
from embedkit.files import objects
from embedkit.files.files import files_at
from embedkit.images import url_lists
from embedkit.images.open import open_images
from embedkit.images.restore import restored
from embedkit.images.url_lists import common_folder, url_ids
from embedkit.images.url_source import UrlSource

NAMES = ["cat/1.png", "cat/2.png", "dog/a b#.png"]
PARTS = st.text("ab #?%.é", min_size=1, max_size=3)


@pytest.fixture
def place(touch) -> str:
    """A place in memory with three images."""
    url = f"memory://{uuid.uuid4().hex}"
    for name, file in zip(NAMES, touch(*NAMES), strict=True):
        files_at(url).write(name, file.read_bytes())
    return url


def test_a_list_is_what_the_same_list_of_files_is(place: str, touch, same) -> None:
    """Ids, sizes and contents; times where the place knows them."""
    there = open_images([f"{place}/{name}" for name in NAMES])
    here = open_images(touch(*NAMES))

    rows = np.arange(3)
    assert there.table.index.tolist() == here.table.index.tolist() == NAMES
    assert there.sizes.tolist() == here.sizes.tolist()
    assert there.contents(rows).tolist() == here.contents(rows).tolist()
    assert (there.mtimes > 1.5e18).all()


def test_one_image(place: str, s3_bucket: str) -> None:
    """By its URL; relative to a root."""
    images = open_images(f"{place}/cat/1.png")
    rooted = open_images(f"{place}/cat/1.png", root=f"{place}/")

    assert images.table.index.tolist() == ["1.png"]
    assert rooted.table.index.tolist() == ["cat/1.png"]
    assert images.sizes[0] > 0
    assert images.read(0).shape == (3, 4, 3)


def test_missing_ones_stay_rows(place: str) -> None:
    """As missing files do; unless nothing at all is there."""
    images = open_images([f"{place}/no.png", f"{place}/cat/1.png"])

    assert images.sizes[0] == images.mtimes[0] == -1
    assert images.sizes[1] > 0
    with pytest.raises(
        SourceError, match=r"none of the 2 files exists, for.*none of t"
    ):
        open_images([f"{place}/no.png", f"{place}/non.png"])
    with pytest.raises(
        SourceError, match=r"none of the 1 files exists.*nothing was wr"
    ):
        open_images(["memory://nothing-here/no.png"])


def test_web_servers_are_not_asked(monkeypatch) -> None:
    """For a list of a million URLs that would take hours."""
    monkeypatch.setattr(objects.obstore, "get", None)
    monkeypatch.setattr(objects.obstore, "head", None)

    images = open_images(["http://a/1.jpg", "https://b/x/2.jpg?large", "http://a/3"])

    assert images.table.index.tolist() == ["a/1.jpg", "b/x/2.jpg?large", "a/3"]
    assert images.sizes.tolist() == images.mtimes.tolist() == [-1, -1, -1]


def test_several_places(place: str) -> None:
    """Each is asked for its own; one that is away does not keep the others."""
    urls = [f"{place}/cat/1.png", "memory://nothing-here/a.png", "http://a/1.jpg"]

    images = open_images(urls)

    assert images.table.index[0] == f"{place.removeprefix('memory://')}/cat/1.png"
    assert (images.sizes > 0).tolist() == [True, False, False]


def test_places_that_take_long_to_list(place: str, monkeypatch) -> None:
    """Sizes of a few among many are left unknown."""
    monkeypatch.setattr(url_lists, "_FEW", 1)
    monkeypatch.setattr(url_lists, "_PER_IMAGE", 1)

    images = open_images([f"{place}/cat/1.png", f"{place}/dog/a b#.png"])

    assert images.sizes.tolist() == [-1, -1]
    assert images.read(1).shape == (3, 4, 3)


def test_places_that_may_be_read_but_not_listed(place: str, monkeypatch) -> None:
    """As many public buckets are."""

    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr(objects, "list_objects", refuse)
    monkeypatch.setattr(objects, "find_object", refuse)

    assert open_images([f"{place}/{name}" for name in NAMES]).sizes.max() == -1
    assert open_images(f"{place}/cat/1.png").read(0).shape == (3, 4, 3)


@pytest.mark.parametrize(
    ("urls", "reason"),
    [
        (["s3://b/1.jpg", "2.jpg"], r"element 1 of this one is '2.jpg' and others are"),
        (
            [Path("2.jpg"), "s3://b/1.jpg"],
            r"element 0 of this one is PosixPath\('2.jpg'",
        ),
        (["ftp://b/1.jpg"], "the scheme ftp:// is not one of s3://"),
        (
            ["http://b/1.tar"],
            r"cannot open 'http://b/1.tar': .tar files are read from di",
        ),
        (["http://b/1.parquet?x"], r".parquet files are read from disk only; download"),
        (["http://b/1.jpg#a"], "is not sent to the server"),
    ],
)
def test_lists_that_are_refused(urls: list, reason: str) -> None:
    """Before any server is asked."""
    with pytest.raises(InputError, match=reason):
        open_images(urls)


@pytest.mark.parametrize("root", ["s3://b/c", "/data"])
def test_a_root_that_is_not_above(root: str) -> None:
    """As for files."""
    with pytest.raises(InputError, match=r"1 of 2 URLs lie outside root|2 of 2 URLs"):
        open_images(["s3://b/c/1.jpg", "s3://b/1.jpg"], root=root)


@given(st.lists(st.lists(PARTS, min_size=1, max_size=4), min_size=1, max_size=5))
def test_ids_and_the_common_prefix_make_the_url(names: list) -> None:
    """Whatever signs are in it; and no longer prefix does."""
    urls = [f"s3://bucket/{'/'.join(parts)}" for parts in names]

    base, ids = common_folder(urls), url_ids(urls)

    assert [f"{base}/{name}" for name in ids] == urls
    firsts = {name.partition("/")[0] for name in ids}
    assert len(firsts) > 1 or any("/" not in name for name in ids)


def test_tables_of_urls(place: str, tmp_path: Path) -> None:
    """A DataFrame and a CSV; other columns are kept."""
    frame = pd.DataFrame({"url": [f"{place}/{name}" for name in NAMES], "n": [1, 2, 3]})
    frame.to_csv(tmp_path / "t.csv", index=False)

    for source in (frame, tmp_path / "t.csv"):
        images = open_images(source, path_column="url")
        assert images.table.index.tolist() == NAMES
        assert images.table["n"].tolist() == [1, 2, 3]
        assert (images.sizes > 0).all()
    rooted = open_images(frame, path_column="url", root=place.rpartition("/")[0] + "/")
    assert rooted.table.index[0].endswith("cat/1.png")
    named = open_images(frame, path_column="url", id_column="n")
    assert named.table.index.tolist() == ["1", "2", "3"]


def test_tables_relative_to_a_url(place: str) -> None:
    """Ids are the paths as written; whole URLs may stand among them."""
    images = open_images(pd.DataFrame({"path": NAMES}), root=place)
    mixed = pd.DataFrame({"path": [NAMES[0], f"{place}/{NAMES[1]}"]})

    assert images.table.index.tolist() == NAMES
    assert images.table["uri"].tolist() == [f"{place}/{name}" for name in NAMES]
    assert open_images(mixed, root=f"{place}/").table["uri"].tolist() == [
        f"{place}/{name}" for name in NAMES[:2]
    ]
    with pytest.raises(InputError, match=r"1 of 1 rows are paths like '/data/a.png'"):
        open_images(pd.DataFrame({"path": ["/data/a.png"]}), root=place)


def test_boxes_at_urls(place: str, touch, monkeypatch) -> None:
    """The same pixels and contents as from files; fetched once for neighbours."""
    boxes = {"x0": [0, 1], "y0": [0, 1], "x1": [2, 4], "y1": [3, 3]}
    (file,) = touch("cat/1.png")
    here = open_images(pd.DataFrame({"path": [str(file)] * 2, **boxes}))
    there = open_images(pd.DataFrame({"path": [f"{place}/cat/1.png"] * 2, **boxes}))
    fetched = []
    read = objects.read_object
    monkeypatch.setattr(
        objects, "read_object", lambda *a, **k: fetched.append(a) or read(*a, **k)
    )
    monkeypatch.setattr("embedkit.images.crops.time.monotonic", lambda: 5.0)

    pixels = [there.read(i) for i in range(2)]

    assert len(fetched) == 1
    assert there.table.index.tolist() == ["1.png#0", "1.png#1"]
    for i in range(2):
        assert np.array_equal(pixels[i], here.read(i))
    rows = np.arange(2)
    assert there.contents(rows).tolist() == here.contents(rows).tolist()
    monkeypatch.setattr("embedkit.images.crops.time.monotonic", lambda: 25.0)
    fetched.clear()
    there.read(0)
    assert len(fetched) == 1


def test_uris_are_enough_to_read_again(place: str) -> None:
    """Which is all that a store remembers."""
    images = open_images([f"{place}/{name}" for name in NAMES])

    assert restored(images.table["uri"].tolist()) == UrlSource()
    assert restored(["s3://b/a.jpg#xywh=0,0,1,1"]) != UrlSource()
