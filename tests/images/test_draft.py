"""Tests of JPEGs that are decoded no larger than is needed."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embedkit.errors import SourceError
from embedkit.files.files import Files
from embedkit.images.decode import DECODE_POLICY, decode
from embedkit.images.draft import (
    DraftSource,
    decoded_by,
    draft_policy,
    enough,
    is_known,
)
from embedkit.images.open import open_images
from embedkit.images.source import FileSource


def _jpeg(width: int, height: int, **options: object) -> bytes:
    """Return a smooth picture with a little noise as a JPEG file."""
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([rows / height, columns / width, (rows + columns) % 97 / 97], -1)
    noise = np.random.default_rng(0).normal(0, 4, (height, width, 3))
    pixels = (waves * 220 + 20 + noise).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **{"format": "JPEG", "quality": 92, **options})
    return buffer.getvalue()


def _divisor(width: int, height: int, need: int) -> int:
    """Return by what a side is divided, from the definition."""
    fits = [s for s in (1, 2, 4, 8) if min(width, height) >= s * need]
    return max(fits, default=1)


@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.integers(1, 200),
    st.sampled_from("LRC"),
)
@settings(max_examples=60)
def test_the_smallest_size_that_is_enough(
    width: int, height: int, need: int, kind: str
) -> None:
    """Sides are divided by 1, 2, 4 or 8 and rounded up; below that nothing changes."""
    mode = {"L": "L", "R": "RGB", "C": "CMYK"}[kind]
    buffer = io.BytesIO()
    Image.new(mode, (width, height), 77).save(buffer, "JPEG")

    exact = decode(io.BytesIO(buffer.getvalue()))
    fast = decode(io.BytesIO(buffer.getvalue()), at_least=need)

    by = _divisor(width, height, need)
    assert fast.mode == "RGB"
    assert fast.size == (-(-width // by), -(-height // by))
    assert min(fast.size) >= min(need, width, height)
    if by == 1:
        assert fast.tobytes() == exact.tobytes()


@pytest.mark.parametrize("by", [2, 4, 8])
@pytest.mark.parametrize("progressive", [False, True])
def test_it_looks_like_the_mean_of_the_pixels(by: int, progressive: bool) -> None:
    """Low frequencies of a block are its averages, up to rounding and colour sampling."""
    data = _jpeg(640, 480, subsampling=0, progressive=progressive)

    fast = decode(io.BytesIO(data), at_least=480 // by)
    mean = decode(io.BytesIO(data)).reduce(by)

    assert fast.size == mean.size == (640 // by, 480 // by)
    gaps = np.abs(np.asarray(fast, np.int16) - np.asarray(mean, np.int16))
    assert gaps.mean() < 2.5


def test_real_photos_are_near_their_exact_selves(shared: Callable[[str], Path]) -> None:
    """After the resize that follows, photos differ little, and not by orientation."""
    for file in sorted(shared("exif_mit").glob("*.jpg")):
        exact, fast = decode(file), decode(file, at_least=224)
        assert min(fast.size) >= 224
        assert (fast.width > fast.height) == (exact.width > exact.height)
        one, other = (
            np.asarray(each.resize((224, 224), 2), np.int16) for each in (exact, fast)
        )
        assert 0 < np.abs(one - other).mean() < 3


def test_hard_images_stay_as_they_are(shared: Callable[[str], Path]) -> None:
    """What is no JPEG has the same bits, and what is unreadable the same reason."""
    files = sorted(each for each in shared("hard_images_pillow").iterdir())
    same = reduced = bad = 0
    for file in files:
        exact = FileSource().load(str(file))
        fast = DraftSource(FileSource(), 8).load(str(file))
        assert fast.content == exact.content
        if isinstance(exact.image, SourceError):
            assert str(fast.image) == str(exact.image)
            bad += 1
        elif not isinstance(fast.image, SourceError) and (
            fast.image.size == exact.image.size
        ):
            assert fast.image.tobytes() == exact.image.tobytes()
            same += 1
        else:
            assert file.read_bytes()[:2] == b"\xff\xd8"  # where a JPEG starts
            reduced += 1
    assert min(same, reduced, bad) > 2


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
def test_a_truncated_file_is_unreadable_either_way(keep: float) -> None:
    """A smaller picture from what is there of a file would be a guess."""
    data = _jpeg(800, 600)
    cut = data[: int(len(data) * keep)]

    with pytest.raises(SourceError) as exact:
        decode(io.BytesIO(cut))
    with pytest.raises(SourceError, match="truncated") as fast:
        decode(io.BytesIO(cut), at_least=64)

    assert str(fast.value).partition("(")[0] == str(exact.value).partition("(")[0]


def test_too_many_pixels_are_too_many_either_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The limit is for what a file declares, not for what is made of it."""
    data = _jpeg(800, 600)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400_000)

    with pytest.raises(SourceError, match="more pixels than Pillow allows: 800x600"):
        decode(io.BytesIO(data), at_least=64)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int) -> None:
    """A turned photo that is decoded small is the small photo, turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _jpeg(400, 240, exif=exif)

    exact, fast = decode(io.BytesIO(data)), decode(io.BytesIO(data), at_least=100)

    assert fast.size == (exact.width // 2, exact.height // 2)
    one, other = (np.asarray(each, np.int16) for each in (exact.reduce(2), fast))
    assert np.abs(one - other).mean() < 3


def test_the_first_picture_of_several_in_a_jpeg() -> None:
    """Multi-picture files, as cameras write them, are JPEGs too."""
    frames = [
        Image.open(io.BytesIO(_jpeg(320, 240))),
        Image.new("RGB", (320, 240), "red"),
    ]
    buffer = io.BytesIO()
    frames[0].save(buffer, "MPO", save_all=True, append_images=frames[1:])

    exact = decode(io.BytesIO(buffer.getvalue()))
    fast = decode(io.BytesIO(buffer.getvalue()), at_least=60)

    assert fast.size == (80, 60)
    gaps = np.asarray(exact.reduce(4), np.int16) - np.asarray(fast, np.int16)
    assert np.abs(gaps).mean() < 5


@given(st.integers(1, 10**6))
def test_the_rule_says_its_size(need: int) -> None:
    """A store's rule is enough to decode anywhere as it was."""
    assert enough(draft_policy(need)) == need
    assert is_known(draft_policy(need))


@pytest.mark.parametrize(
    "other",
    ["pil-rgb-2", "pil-rgb-1-draft-", "pil-rgb-1-draft-0", "pil-rgb-1-draft-12x", ""],
)
def test_another_rule_is_not_known(other: str) -> None:
    """Rules of other versions are told apart."""
    assert enough(other) is None
    assert not is_known(other)
    assert is_known(DECODE_POLICY)


def test_only_whole_files_are_decoded_small(tmp_path: Path) -> None:
    """Arrays have nothing to decode; boxes are in pixels of the whole image."""
    arrays = open_images(np.zeros((2, 9, 9, 3), np.uint8)).source
    policy = draft_policy(64)

    assert decoded_by(arrays, policy) is arrays
    assert decoded_by(FileSource(), DECODE_POLICY) == FileSource()
    assert decoded_by(FileSource(), policy) == DraftSource(FileSource(), 64)


def test_the_source_is_that_of_the_files_but_for_the_pixels(
    tmp_path: Path, spool: Files
) -> None:
    """Contents, errors and what travels to workers are the file source's."""
    file = tmp_path / "a.jpg"
    file.write_bytes(_jpeg(300, 200))
    source = DraftSource(FileSource(), 50)

    assert source.content(str(file)) == FileSource().content(str(file))
    assert source.load(str(file)).content == source.content(str(file))
    assert source.read(str(file)).size == (75, 50)
    assert pickle.loads(pickle.dumps(source)) == source
    assert source.spooled(spool) == source
    assert source.load(str(tmp_path / "no.jpg")).content == 0
    with pytest.raises(SourceError, match="the file does not exist"):
        source.read(str(tmp_path / "no.jpg"))
