"""Images at URLs: their bytes, and why there are none."""

from __future__ import annotations

import pickle
import sys
import uuid
from pathlib import Path

import numpy as np
import obstore
import pytest
from PIL import Image

from embedkit.errors import MissingDependencyError, SourceError
from embedkit.files import objects
from embedkit.files.files import files_at
from embedkit.images.source import FileSource
from embedkit.images.url_source import UrlSource


@pytest.fixture(params=["memory", "s3", "web"])
def at_url(request, tmp_path: Path):
    """Return what puts a file at a URL, by its name there."""
    if request.param == "web":
        folder, url = request.getfixturevalue("web")
        return lambda name, data: (folder / name).write_bytes(data) and f"{url}/{name}"
    place = (
        request.getfixturevalue("s3_bucket")
        if request.param == "s3"
        else f"memory://{uuid.uuid4().hex}"
    )
    return lambda name, data: files_at(place).write(name, data) or f"{place}/{name}"


def test_the_same_as_the_file(at_url, touch) -> None:
    """Pixels and content hash."""
    (file,) = touch("a.png")
    url = at_url("a.png", file.read_bytes())

    here, there = FileSource().load(str(file)), UrlSource().load(url)

    assert there.content == here.content == UrlSource().content(url)
    assert np.array_equal(there.unwrap(), here.unwrap())
    assert pickle.loads(pickle.dumps(UrlSource())) == UrlSource()


def test_a_missing_file(at_url) -> None:
    """Has no content, and says why."""
    url = at_url("a.png", b"12").replace("a.png", "b.png")

    with pytest.raises(SourceError, match=r"^there is no such file at this URL$"):
        UrlSource().read(url)
    assert UrlSource().content(url) == 0


def test_what_is_no_image(at_url) -> None:
    """Has a content, as a file on disk has."""
    loaded = UrlSource().load(at_url("a.png", b"no image"))

    assert "not an image" in str(loaded.image)
    assert loaded.content > 0


def test_too_large_for_any_image(at_url, monkeypatch) -> None:
    """More than eight bytes for each pixel that Pillow allows is not downloaded."""
    url = at_url("a.png", bytes(33))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)

    with pytest.raises(SourceError, match="it has 33 bytes, and at most 32 are taken"):
        UrlSource().fetch(url)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert UrlSource().fetch(url) == bytes(33)


def test_what_may_not_be_read(at_url, monkeypatch) -> None:
    """The server's answer is told."""
    url = at_url("a.png", b"1")

    def refuse(*_):
        raise obstore.exceptions.PermissionDeniedError(
            "Server returned non-2xx status code: 403 Forbidden: <html>\n no"
        )

    monkeypatch.setattr(objects.obstore, "get", refuse)

    with pytest.raises(
        SourceError, match=r"not be read: .*the server answers 403 Forb"
    ):
        UrlSource().fetch(url)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("http://127.0.0.1:9/a.jpg", "cannot connect to http://127.0.0.1:9: was away"),
        ("ftp://host/a.jpg", "the scheme ftp:// is not one of"),
        ("memory://nobody-wrote-here/a.jpg", "by this process, and each has its own"),
    ],
)
def test_reasons(uri: str, reason: str, monkeypatch) -> None:
    """One line each, without the number that Python puts before."""
    key = ("http://127.0.0.1:9", objects.settings())
    why = "cannot connect to http://127.0.0.1:9: was away"
    monkeypatch.setitem(objects._dead, key, (float("inf"), why))

    with pytest.raises(SourceError, match=reason) as caught:
        UrlSource().fetch(uri)
    assert "\n" not in str(caught.value)
    assert "Errno" not in str(caught.value)


def test_no_memory_is_told(at_url, monkeypatch) -> None:
    """A file may be as large as an image may be."""

    def refuse(*_, **__):
        raise MemoryError

    url = at_url("a.png", b"1")
    monkeypatch.setattr(objects, "read_object", refuse)

    with pytest.raises(SourceError, match="not enough memory for it"):
        UrlSource().fetch(url)


def test_without_obstore_the_extra_is_named(monkeypatch) -> None:
    """Instead of a row of NaN for each image."""
    monkeypatch.delitem(sys.modules, "embedkit.files.objects", raising=False)
    monkeypatch.delattr("embedkit.files.objects", raising=False)
    monkeypatch.setitem(sys.modules, "obstore", None)

    with pytest.raises(
        MissingDependencyError, match=r"pip install 'embedkit\[cloud\]'"
    ):
        UrlSource().fetch("s3://bucket/a.jpg")
