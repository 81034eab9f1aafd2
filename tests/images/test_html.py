"""Tests of what a notebook shows of a set of images."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embedkit.errors import SourceError
from embedkit.images import glance
from embedkit.images.decode import jpeg_size
from embedkit.images.glance import SIDE, look_at, spread_rows
from embedkit.images.html import as_html, kinds_of
from embedkit.images.imageset import ImageSet
from embedkit.images.open import open_images
from embedkit.images.source import FileSource

_VOID = {"img", "br"}


class _Page(HTMLParser):
    """What stands in a fragment: tags in order, addresses, text; all tags closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of every tag of a kind."""
        return [attrs for name, attrs in self.tags if name == tag]

    def pictures(self) -> list[Image.Image]:
        """Return the thumbnails, decoded."""
        found = []
        for attrs in self.of("img"):
            kind, data = re.fullmatch(
                r"data:image/(jpeg|png);base64,(.+)", str(attrs["src"])
            ).groups()  # type: ignore[union-attr]
            image = Image.open(io.BytesIO(base64.b64decode(data)))
            assert (image.format or "").lower() == kind
            found.append(image)
        return found


def _set(source: Any, names: list[str], **columns: list[Any]) -> ImageSet:
    """Return a set of images whose ids are also their uris."""
    table = pd.DataFrame({"uri": names, **columns}, index=pd.Index(names, name="image"))
    return ImageSet(table, source, np.full(len(names), 1000))


class _Colours:
    """A source whose images are of one colour each, 60 by 30 pixels."""

    def read(self, uri: str) -> Image.Image:
        """Return an image."""
        return Image.new("RGB", (60, 30), (200, 0, 100))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """Thirty JPEGs in two folders, five of them text, and two PNGs."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(30):
        file = folder / ("cat", "dog")[i % 2] / f"{i:02d}.JPG"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (400 + i, 300), (i * 8, 90, 200)).save(file, "JPEG")
        if i % 6 == 5:
            file.write_bytes(b"no picture")
    for i in range(2):
        Image.new("RGB", (8, 8)).save(folder / "cat" / f"tiny{i}.png")
    return open_images(folder)


def test_counts_formats_sizes_and_thumbnails_are_shown(photos: ImageSet) -> None:
    """The facts of the plain repr, the formats, and a dozen pictures with their ids."""
    html = photos._repr_html_()
    page = _Page(html)
    assert page.open == []
    assert repr(photos) in page.text
    assert re.search(r"jpg\s*30", page.text)
    assert re.search(r"png\s*2", page.text)
    assert "24 of 32 looked at" in page.text
    assert "height 8 / 300 / 300" in page.text
    assert len(page.of("figure")) == 12
    alts = [attrs["alt"] for attrs in page.of("img")]
    assert set(alts) <= set(photos.table.index)
    assert len(set(alts)) == len(alts)
    assert all(max(each.size) == SIDE for each in page.pictures())


def test_bytes_of_formats_are_exact(photos: ImageSet) -> None:
    """The bytes of the table are those of the files."""
    page = _Page(as_html(photos))
    ends = photos.table["uri"].str.lower().str.endswith(".jpg").to_numpy()
    assert f"{photos.sizes[ends].sum():,}" in page.text
    assert f"{photos.sizes[~ends].sum():,}" in page.text


def test_the_unreadable_are_counted_with_their_reasons(photos: ImageSet) -> None:
    """Boxes in place of thumbnails, and a list of reasons that agrees with the source."""
    page = _Page(as_html(photos))
    rows = spread_rows(len(photos), most=24)
    bad = [
        row
        for row in rows
        if isinstance(
            photos.source.load(photos.table["uri"].iloc[row]).image, SourceError
        )
    ]
    assert len(bad) >= 2
    assert f"{len(bad)} of the 24 looked at cannot be read" in page.text
    assert f"{len(bad)} × not an image" in page.text
    assert len(page.of("img")) + page.text.count("not an image") - 1 == 12


def test_nothing_is_unreadable_among_good_ones() -> None:
    """Arrays are shown too, and of one size that is one number."""
    page = _Page(as_html(open_images(np.zeros((5, 20, 50, 3), np.uint8))))
    assert "5 of 5 looked at, all readable" in page.text
    assert "width 50 · height 20 pixels" in page.text
    assert re.search(r"array\s*5\s*15,000", page.text)


@settings(max_examples=30)  # each starts eight threads
@given(
    st.lists(st.text(min_size=1, max_size=400), min_size=1, max_size=4, unique=True),
    st.text(max_size=300),
)
def test_hostile_text_stays_text(names: list[str], label: str) -> None:
    """No id, label or reason opens a tag, ends an attribute, or makes the page grow."""
    hostile = [f"</style><script>alert(1)</script>\"'><img src=x>{n}" for n in names]
    images = _set(FileSource(), hostile, label=[f"<b onclick=x>{label}"] * len(names))
    html = as_html(images)
    page = _Page(html)
    assert page.open == []
    kinds = {tag for tag, _ in page.tags}
    assert kinds <= {
        *("div", "style", "p", "b", "table", "tr", "th", "td", "span", "figure"),
        *("figcaption", "br", "ul", "li"),
    }
    assert all(
        set(attrs) <= {"class", "title"} for tag, attrs in page.tags if tag != "img"
    )
    assert len(html) < 20_000


def test_no_address_outside(photos: ImageSet) -> None:
    """No script, no link, nothing that a browser would fetch."""
    html = as_html(photos)
    page = _Page(html)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert all(str(each["src"]).startswith("data:") for each in page.of("img"))
    assert "http" not in html
    assert "url(" not in html


def test_style_is_scoped(photos: ImageSet) -> None:
    """Every rule is for what lies inside the wrapper."""
    style = as_html(photos).partition("<style>")[2].partition("</style>")[0]
    heads = re.findall(r"([^{}]+)\{[^@]", style.replace("}", "}\n"))
    selectors = [one.strip() for head in heads for one in head.split(",")]
    rules = [one for one in selectors if not one.startswith("@media")]
    assert len(rules) > 8
    assert all(".embedkit-images" in one for one in rules)


def test_real_hard_images(shared: Callable[[str], Path]) -> None:
    """Truncated, huge and odd files are shown or told, quickly and in few bytes."""
    images = open_images(shared("hard_images_pillow"))
    began = time.perf_counter()
    html = as_html(images)
    assert time.perf_counter() - began < 10
    page = _Page(html)
    assert len(html) < 150_000
    assert len(page.of("figure")) == 12
    assert "cannot be read" in page.text
    assert len(page.pictures()) >= 4


def test_sizes_are_those_of_the_whole_upright_image(
    shared: Callable[[str], Path],
) -> None:
    """A photo that was decoded small, and turned, has the size that `read` gives."""
    images = open_images(shared("exif_mit"))
    for seen in look_at(images, range(len(images)), seconds=60):
        height, width, _ = images.read(seen.row).shape
        assert seen.size == (width, height)


def test_thumbnails_look_like_their_image(shared: Callable[[str], Path]) -> None:
    """A thumbnail is the image, scaled; within what JPEG and scaling cost."""
    images = open_images(shared("clothing_cc0"))
    for seen in look_at(images, [0, 300, 900], seconds=60):
        small = Image.open(io.BytesIO(seen.thumbnail)).convert("RGB")
        whole = Image.fromarray(images.read(seen.row)).resize(small.size, 3)
        one, other = (np.asarray(each, np.int16) for each in (small, whole))
        assert np.abs(one - other).mean() < 8
        assert np.abs(one - other).mean() < np.abs(one[:, ::-1] - other).mean() / 2


def test_a_reader_that_hangs_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there in time is a box that says so, and counts as not looked at."""
    go_on = threading.Event()

    class Slow(_Colours):
        def read(self, uri: str) -> Image.Image:
            if uri == "slow":
                go_on.wait(60)
            return super().read(uri)

    monkeypatch.setattr("embedkit.images.html._SECONDS", 0.3)
    began = time.perf_counter()
    page = _Page(as_html(_set(Slow(), ["a", "slow", "c"])))
    took = time.perf_counter() - began
    go_on.set()
    assert took < 10
    assert "not read within 0.3 s" in page.text
    assert "2 of 3 looked at, 1 left out" in page.text
    assert len(page.of("img")) == 2


def test_all_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing was read in time, that is what stands there."""
    go_on = threading.Event()

    class Hangs(_Colours):
        def read(self, uri: str) -> Image.Image:
            go_on.wait(60)
            raise SourceError("gone")

    monkeypatch.setattr("embedkit.images.html._SECONDS", 0.1)
    page = _Page(as_html(_set(Hangs(), ["a"])))
    go_on.set()
    assert "none of the 0 looked at could be read" in page.text
    assert "0 of 1 looked at, 1 left out" in page.text


def test_an_error_of_any_kind_is_shown() -> None:
    """A source that raises what it should not is told with the error's name."""

    class Odd(_Colours):
        def read(self, uri: str) -> Image.Image:
            raise ZeroDivisionError("by\nzero")

    page = _Page(as_html(_set(Odd(), ["a", "b"])))
    assert "2 × ZeroDivisionError: by zero" in page.text


def test_many_reasons_and_formats_are_summed_up() -> None:
    """Lists from outside have an end."""

    class Each(_Colours):
        def read(self, uri: str) -> Image.Image:
            raise SourceError(f"reason of {uri}")

    page = _Page(as_html(_set(Each(), [f"/x/{i}.e{i}" for i in range(11)])))
    assert "and 5 other reasons" in page.text
    assert re.search(r"3 others\s*3\s*3,000", page.text)


def test_a_large_file_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file beyond the limit is left out, and is not called unreadable."""
    monkeypatch.setattr(glance, "_LARGEST", 10)
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    page = _Page(as_html(open_images(tmp_path)))
    assert "not looked at: 0 MB" in page.text
    assert "cannot be read" not in page.text


@pytest.mark.slow
def test_a_million_images() -> None:
    """As many as that take seconds, and no more bytes than a few do."""
    n = 1_000_000
    names = [f"/nowhere/{i}.{'jpg' if i % 4 else 'png'}" for i in range(n)]
    images = _set(FileSource(), names)
    began = time.perf_counter()
    html = as_html(images)
    assert time.perf_counter() - began < 20
    assert len(html) < 20_000
    assert re.search(r"jpg\s*750,000", _Page(html).text)


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("/a/b.JPEG", "jpeg"),
        ("/a.b/c", "no extension"),
        ("/a/b.jpg#xywh=1,2,3,4", "jpg"),
        ("/a/b.png#xywh=none", "png"),
        ("tar:/data/a.tar#512+2048/cat.webp", "webp"),
        ("parquet:/data/a.parquet#0/7/image.bytes", "parquet"),
        ("https://example.org/a/b.gif?size=3", "gif"),
        ("dataset:12", "dataset"),
        ("", "no extension"),
    ],
)
def test_kinds(uri: str, kind: str) -> None:
    """The extension of the file's own name, or what it comes from."""
    assert kinds_of(pd.Series([uri])).tolist() == [kind]


@given(st.integers(1, 10**7), st.integers(2, 60))
def test_rows_are_spread(n: int, most: int) -> None:
    """Distinct rows in order, with both ends, at distances that differ by one at most."""
    rows = spread_rows(n, most=most)
    assert len(rows) == min(n, most)
    assert rows[0] == 0
    assert rows[-1] == (n - 1 if len(rows) > 1 else 0)
    gaps = np.diff(rows)
    assert len(gaps) == 0 or (gaps.min() >= 1 and np.ptp(gaps) <= 1)


def test_size_from_a_header(tmp_path: Path) -> None:
    """Upright for JPEGs, nothing for others and for damaged ones."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer, other = io.BytesIO(), io.BytesIO(b"nothing")
    Image.new("RGB", (40, 30)).save(buffer, "JPEG", exif=exif)
    assert jpeg_size(buffer) == (30, 40)
    assert jpeg_size(other) is None


@pytest.mark.slow
def test_a_browser_draws_the_thumbnails(tmp_path: Path) -> None:
    """Headless Chromium draws each picture in its place, in its colours."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is on PATH")
    colours = [(250, 10, 10), (10, 200, 10), (10, 10, 250), (230, 10, 230)]
    for i, colour in enumerate(colours):
        Image.new("RGB", (500, 500), colour).save(tmp_path / f"{i}.jpg", quality=95)
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    (tmp_path / "page.html").write_text(
        f'<meta charset="utf8"><body>{as_html(open_images(tmp_path / "*.jpg"))}'
    )
    shot = tmp_path / "shot.png"
    subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu"),
            *("--window-size=900,600", f"--screenshot={shot}"),
            *(f"--user-data-dir={tmp_path / 'profile'}",),
            (tmp_path / "page.html").as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    pixels = np.asarray(Image.open(shot).convert("RGB"), np.int16)  # H W C
    for colour in colours:
        near = (np.abs(pixels - colour).max(axis=-1) < 12).sum()
        assert near == pytest.approx(SIDE**2, rel=0.05)
