"""Tests of the decode rule, mode by mode, against numpy."""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from embedkit.errors import SourceError
from embedkit.images import decode as module
from embedkit.images import gray
from embedkit.images.decode import (
    DECODE_POLICY,
    FORMATS,
    decode,
    image_extensions,
    to_rgb,
)

MODES = (
    *("1", "L", "P", "PA", "LA", "La", "RGB", "RGBX", "RGBA", "RGBa", "CMYK"),
    *("YCbCr", "LAB", "HSV", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"),
)
UNDO = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def _save(
    image: Image.Image, file_format: str = "PNG", **options: object
) -> io.BytesIO:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    stream.seek(0)
    return stream


def _over_white(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha.astype(np.float64)[..., np.newaxis] / 255
    return color * share + 255 * (1 - share)


def _random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_rgb(mode: str) -> None:
    """Every mode of Pillow has a way to RGB that keeps the size."""
    rgb = to_rgb(Image.new(mode, (7, 5)))
    assert (rgb.mode, rgb.size, np.asarray(rgb).shape) == ("RGB", (7, 5), (5, 7, 3))


def test_rgb_is_left_alone(pixels: np.ndarray) -> None:
    """Plain RGB is neither converted nor copied."""
    image = Image.fromarray(pixels)
    assert to_rgb(image) is image


def test_bilevel_is_black_and_white() -> None:
    """Mode 1 becomes 0 and 255 in all channels."""
    bits = _random(6, 8) > 127
    rgb = np.asarray(decode(_save(Image.fromarray(bits))))
    np.testing.assert_array_equal(rgb, np.repeat(bits[..., None] * 255, 3, -1))


def test_gray_is_replicated() -> None:
    """Mode L has its level in all three channels."""
    gray = _random(6, 8)
    rgb = np.asarray(decode(_save(Image.fromarray(gray))))
    np.testing.assert_array_equal(rgb, np.repeat(gray[..., None], 3, -1))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_is_divided_by_257(file_format: str) -> None:
    """All 65,536 gray levels are scaled as round(x / 257)."""
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    rgb = np.asarray(decode(_save(Image.fromarray(levels), file_format)))
    expected = np.rint(levels.astype(np.float64) / 257).astype(np.uint8)
    np.testing.assert_array_equal(rgb, np.repeat(expected[..., None], 3, -1))


def test_16_bit_byte_orders_agree() -> None:
    """The four 16-bit modes of Pillow give the same pixels for the same levels."""
    levels = np.random.default_rng(1).integers(0, 65536, (5, 6), np.uint16)
    orders = {"I;16": "<u2", "I;16L": "<u2", "I;16B": ">u2", "I;16N": "=u2"}
    found = [
        np.asarray(
            to_rgb(Image.frombytes(mode, (6, 5), levels.astype(order).tobytes()))
        )
        for mode, order in orders.items()
    ]
    for rgb in found:
        np.testing.assert_array_equal(rgb, found[0])
    np.testing.assert_array_equal(found[0][..., 0], np.rint(levels / 257))


def test_16_bit_transparent_level_is_white() -> None:
    """The one level that a 16-bit PNG declares transparent shows the white below."""
    levels = np.array([[0, 1000, 40000]], np.uint16)
    rgb = np.asarray(decode(_save(Image.fromarray(levels), transparency=1000)))
    np.testing.assert_array_equal(rgb[0, :, 0], [0, 255, round(40000 / 257)])


def test_32_bit_of_16_bit_range_is_scaled_as_such() -> None:
    """Integers within 0..65535 are divided by 257, whatever their own range."""
    levels = np.array([[0, 257, 514, 30000]], np.int32)
    rgb = np.asarray(to_rgb(Image.fromarray(levels)))
    np.testing.assert_array_equal(rgb[0, :, 0], [0, 1, 2, round(30000 / 257)])


@pytest.mark.parametrize(("low", "high"), [(-5, 20), (0, 65536), (-(2**31), 2**31 - 1)])
def test_32_bit_beyond_is_stretched(low: int, high: int) -> None:
    """Other integers are stretched from their own minimum to their own maximum."""
    levels = np.linspace(low, high, 12).astype(np.int32).reshape(3, 4)
    levels[0, 0], levels[-1, -1] = low, high
    rgb = np.asarray(to_rgb(Image.fromarray(levels)))
    expected = np.rint((levels.astype(np.float64) - low) / (high - low) * 255)
    np.testing.assert_allclose(rgb[..., 0], expected, atol=1)
    assert (rgb.min(), rgb.max()) == (0, 255)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.25, 0.25, 0.25], [64, 64, 64]),
        ([0.0, 1.5, 100.4], [0, 2, 100]),
        ([0.0, 300.0, 600.0], [0, 128, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([-7.0, -7.0, -7.0], [0, 0, 0]),
        ([np.nan, np.inf, -np.inf], [0, 255, 0]),
        ([np.nan, 0.5, 1.0], [0, 128, 255]),
        ([np.inf, 0.2, -np.inf], [255, 51, 0]),
        ([np.nan, -100.0, 100.0], [0, 0, 255]),
        ([-3e38, 0.0, 3e38], [0, 128, 255]),
    ],
)
def test_floats(values: list[float], expected: list[int]) -> None:
    """Floats follow their range; what is not finite goes to an end."""
    image = Image.fromarray(np.array([values], np.float32))
    np.testing.assert_array_equal(np.asarray(to_rgb(image))[0, :, 0], expected)


def test_floats_in_bands_equal_floats_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scaling band by band changes no value."""
    values = np.random.default_rng(2).normal(size=(50, 7)).astype(np.float32)
    once = np.asarray(to_rgb(Image.fromarray(values)))
    monkeypatch.setattr(gray, "_BAND_BYTES", 3 * 8 * 7)
    np.testing.assert_array_equal(np.asarray(to_rgb(Image.fromarray(values))), once)


def test_palette_is_looked_up() -> None:
    """Indices become the palette's colors."""
    palette, indices = _random(256, 3), _random(9, 9, seed=1)
    image = Image.fromarray(indices)
    image.putpalette(palette.tobytes())
    rgb = np.asarray(decode(_save(image)))
    np.testing.assert_array_equal(rgb, palette[indices])


def test_palette_with_alpha_is_composited() -> None:
    """A palette with one alpha per color is laid over white."""
    palette, alphas, indices = _random(256, 3), _random(256, seed=2), _random(9, 9)
    image = Image.fromarray(indices)
    image.putpalette(palette.tobytes())
    rgb = np.asarray(decode(_save(image, transparency=alphas.tobytes())))
    expected = _over_white(palette[indices], alphas[indices])
    np.testing.assert_allclose(rgb, expected, atol=1)


def test_palette_with_a_transparent_color_shows_white() -> None:
    """GIF: the transparent color is white, the others stay."""
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    rgb = np.asarray(decode(_save(image, "GIF", transparency=1)))
    np.testing.assert_array_equal(rgb[0], [[10, 20, 30], [255] * 3, [70, 80, 90]])


def test_palette_in_rgba_is_composited() -> None:
    """A palette that holds alpha itself is laid over white."""
    image = Image.new("P", (2, 1), 1)
    image.putpalette([0, 0, 0, 0, 100, 150, 200, 128], "RGBA")
    expected = _over_white(np.array([100, 150, 200]), np.array(128))
    np.testing.assert_allclose(np.asarray(to_rgb(image))[0, 0], expected, atol=1)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_composited(file_format: str) -> None:
    """RGBA is laid over white, in every format that can hold it."""
    rgba = _random(20, 30, 4)
    rgba[:4, :, 3], rgba[4:8, :, 3] = 0, 255
    stream = _save(Image.fromarray(rgba), file_format, lossless=True, exact=True)
    rgb = np.asarray(decode(stream))
    np.testing.assert_allclose(rgb, _over_white(rgba[..., :3], rgba[..., 3]), atol=1)
    assert (rgb[:4] == 255).all()
    np.testing.assert_array_equal(rgb[4:8], rgba[4:8, :, :3])


def test_gray_with_alpha_is_composited() -> None:
    """LA is laid over white."""
    both = _random(20, 30, 2)
    rgb = np.asarray(decode(_save(Image.fromarray(both, "LA"))))
    gray = np.repeat(both[..., :1], 3, -1)
    np.testing.assert_allclose(rgb, _over_white(gray, both[..., 1]), atol=1)


@pytest.mark.parametrize(
    ("straight", "premultiplied"), [("LA", "La"), ("RGBA", "RGBa")]
)
def test_premultiplied_alpha_is_undone(straight: str, premultiplied: str) -> None:
    """Premultiplied pixels give what their straight ones give."""
    alpha = _random(20, 30, len(straight))
    alpha[..., -1] |= 0xC0  # little alpha leaves few levels to come back from
    image = Image.fromarray(alpha, straight)
    expected = np.asarray(to_rgb(image)).astype(int)
    found = np.asarray(to_rgb(image.convert(premultiplied))).astype(int)
    np.testing.assert_allclose(found, expected, atol=2)


def test_palette_and_alpha_channel_is_composited() -> None:
    """PA goes through its palette and over white."""
    image = Image.new("P", (3, 1), 1)
    image.putpalette([0, 0, 0, 100, 150, 200])
    image = image.convert("PA")
    image.putalpha(Image.fromarray(np.array([[0, 128, 255]], np.uint8)))
    expected = _over_white(np.array([[100, 150, 200]] * 3), np.array([0, 128, 255]))
    np.testing.assert_allclose(np.asarray(to_rgb(image))[0], expected, atol=1)


@pytest.mark.parametrize(
    ("image", "transparency"),
    [
        (Image.new("L", (1, 1), 7), 7),
        (Image.new("RGB", (1, 1), (7, 8, 9)), (7, 8, 9)),
    ],
    ids=["L", "RGB"],
)
def test_transparent_color_of_png_is_white(
    image: Image.Image, transparency: int | tuple[int, int, int]
) -> None:
    """A color that a PNG declares transparent shows the white below."""
    rgb = decode(_save(image, transparency=transparency))
    assert rgb.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("ink", "expected"),
    [
        ((0, 0, 0, 0), (255, 255, 255)),
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 0, 0, 255), (0, 0, 0)),
    ],
)
@pytest.mark.parametrize("file_format", ["JPEG", "TIFF"])
def test_cmyk_is_light_where_there_is_no_ink(
    file_format: str, ink: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """CMYK is inverted to RGB, also as JPEG stores it."""
    rgb = decode(_save(Image.new("CMYK", (8, 8), ink), file_format))
    np.testing.assert_allclose(rgb.getpixel((4, 4)), expected, atol=3)


def test_cmyk_equals_the_formula() -> None:
    """CMYK becomes (255 - ink)(255 - black) / 255."""
    cmyk = _random(10, 10, 4).astype(np.float64)
    image = Image.fromarray(cmyk.astype(np.uint8), "CMYK")
    expected = (255 - cmyk[..., :3]) * (255 - cmyk[..., 3:]) / 255
    np.testing.assert_allclose(np.asarray(to_rgb(image)), expected, atol=1)


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "LAB"])
def test_color_spaces_come_back(mode: str) -> None:
    """A color survives the way into another space and back, within rounding."""
    colors = np.array([[[200, 120, 40], [30, 60, 90], [255, 255, 255]]], np.uint8)
    image = Image.fromarray(colors).convert(mode)
    np.testing.assert_allclose(np.asarray(to_rgb(image)).astype(int), colors, atol=4)


def test_lab_is_converted_through_srgb() -> None:
    """A LAB file of pure lightness is neutral gray."""
    rgb = np.asarray(decode(_save(Image.new("LAB", (4, 4), (128, 128, 128)), "TIFF")))
    assert int(rgb.max()) - int(rgb.min()) <= 3
    assert 100 < rgb.mean() < 140


@pytest.mark.parametrize("file_format", ["GIF", "TIFF", "PNG", "WEBP"])
def test_first_frame_of_many(file_format: str) -> None:
    """Animated and multi-page files give their first frame."""
    first, second = Image.new("RGB", (6, 4), "red"), Image.new("RGB", (6, 4), "blue")
    stream = _save(
        first, file_format, save_all=True, append_images=[second], lossless=True
    )
    assert decode(stream).getpixel((3, 2)) == (255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
def test_orientation_is_applied(
    file_format: str, orientation: int, pixels: np.ndarray
) -> None:
    """Each of the eight orientations gives the upright image, exactly."""
    upright = Image.fromarray(pixels)
    stored = upright.transpose(UNDO[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = _save(stored, file_format, exif=exif, lossless=True)
    np.testing.assert_array_equal(np.asarray(decode(stream)), pixels)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_illegal_orientation_is_upright(orientation: int, pixels: np.ndarray) -> None:
    """An orientation that the standard does not know is passed over."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = _save(Image.fromarray(pixels), exif=exif)
    np.testing.assert_array_equal(np.asarray(decode(stream)), pixels)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage!", b"Exif\0\0II*\0\xff\xff\xff\x7f"]
)
def test_unreadable_exif_is_upright(exif: bytes, pixels: np.ndarray) -> None:
    """Broken EXIF does not spoil whole pixels."""
    stream = _save(Image.fromarray(pixels), exif=exif)
    np.testing.assert_array_equal(np.asarray(decode(stream)), pixels)


def test_text_for_an_orientation_is_upright(pixels: np.ndarray) -> None:
    """An orientation that is no number is passed over."""
    entry = struct.pack("<HHI4s", 0x0112, 2, 4, b"six\0")  # type 2 is text
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + b"\0" * 4
    stream = _save(Image.fromarray(pixels), exif=exif)
    np.testing.assert_array_equal(np.asarray(decode(stream)), pixels)


def test_orientation_is_applied_once(pixels: np.ndarray) -> None:
    """A transform that reads EXIF again finds none and leaves the image upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = decode(_save(Image.fromarray(pixels), "JPEG", exif=exif))
    again = ImageOps.exif_transpose(upright)
    np.testing.assert_array_equal(np.asarray(again), np.asarray(upright))


def test_exif_mit_orientations_agree(shared) -> None:
    """Photos stored in eight orientations come out alike; the illegal 0 passes."""
    folder = shared("exif_mit")
    for kind, tall in (("Landscape", False), ("Portrait", True)):
        found = [decode(folder / f"{kind}_{i}.jpg") for i in range(9)]
        assert {image.size for image in found[1:]} == {found[1].size}
        assert (found[1].height > found[1].width) is tall
        # Each was compressed by itself: averages over 16 x 16 pixels see past that.
        small = [np.asarray(image.reduce(16)).astype(int) for image in found[1:]]
        assert max(np.abs(image - small[0]).mean() for image in small) <= 1.4


@pytest.mark.parametrize("number", range(9))
@pytest.mark.parametrize("kind", ["Landscape", "Portrait"])
def test_exif_mit_equals_pillows_own_turn(shared, kind: str, number: int) -> None:
    """Every photo is what `PIL.ImageOps.exif_transpose` makes of it."""
    file = shared("exif_mit") / f"{kind}_{number}.jpg"
    with Image.open(file) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(np.asarray(decode(file)), expected)


def test_path_and_stream_agree(tmp_path: Path, pixels: np.ndarray) -> None:
    """A file gives the same pixels by path, by handle, and by bytes."""
    file = tmp_path / "ünïcode 图.png"
    Image.fromarray(pixels).save(file)
    with file.open("rb") as handle:
        by_handle = np.asarray(decode(handle))
        assert not handle.closed
    np.testing.assert_array_equal(np.asarray(decode(file)), by_handle)
    np.testing.assert_array_equal(by_handle, pixels)


def test_content_counts_not_the_name(tmp_path: Path, pixels: np.ndarray) -> None:
    """A PNG called .jpg, or nothing at all, is still a PNG."""
    for name in ("a.jpg", "a"):
        Image.fromarray(pixels).save(tmp_path / name, format="PNG")
        np.testing.assert_array_equal(np.asarray(decode(tmp_path / name)), pixels)


def _open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def test_no_file_stays_open(tmp_path: Path, pixels: np.ndarray) -> None:
    """Decoding leaves no open file behind, after success or failure."""
    whole, cut = tmp_path / "a.tif", tmp_path / "b.tif"
    Image.fromarray(pixels).save(whole, compression="tiff_lzw")
    cut.write_bytes(whole.read_bytes()[:-40])
    before = _open_files()
    kept = [decode(whole) for _ in range(5)]
    for _ in range(5):
        with pytest.raises(SourceError):
            decode(cut)
    assert (len(kept), _open_files()) == (5, before)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"the file is empty"),
        (b"<!DOCTYPE html><html>", r"not an image.* begins with b'<!DOCTYPE html>"),
        (b"\0" * 100, r"not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", r"not an image"),
        (b"GIF89a\0\0\0\0\0\0\0", r"not an image, or its header is damaged"),
        (b"\x89PNG\r\n\x1a\n", r"not an image, or its header is damaged"),
    ],
)
def test_what_is_no_image_says_so(tmp_path: Path, content: bytes, reason: str) -> None:
    """Files that are no image are refused with what they begin with."""
    file = tmp_path / "a.jpg"
    file.write_bytes(content)
    with pytest.raises(SourceError, match=reason):
        decode(file)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"])
@pytest.mark.parametrize("part", [0.4, 0.7, 0.95])
def test_truncated_files_are_errors(file_format: str, part: float) -> None:
    """Nothing is guessed for the part of a file that is missing."""
    whole = _save(Image.fromarray(_random(64, 64, 3)), file_format).getvalue()
    with pytest.raises(SourceError) as caught:
        decode(io.BytesIO(whole[: int(len(whole) * part)]))
    assert "\n" not in str(caught.value)


def test_truncated_jpeg_is_called_truncated() -> None:
    """The usual damage has its plain name, and what Pillow said."""
    whole = _save(Image.fromarray(_random(64, 64, 3)), "JPEG").getvalue()
    with pytest.raises(
        SourceError, match=r"^the file is truncated \(OSError: image fil"
    ):
        decode(io.BytesIO(whole[:-100]))


@given(
    file_format=st.sampled_from(["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "ICO"]),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
)
def test_any_damage_is_pixels_or_a_source_error(
    file_format: str, changes: list[tuple[float, int]]
) -> None:
    """Whatever bytes are changed, RGB or `SourceError` comes out, and no warning."""
    damaged = bytearray(
        _save(Image.fromarray(_random(20, 20, 3)), file_format).getvalue()
    )
    for place, value in changes:
        damaged[int(place**2 * len(damaged))] = value  # the header most of all
    try:
        image = decode(io.BytesIO(bytes(damaged)))
    except SourceError:
        assert changes
    else:
        assert image.mode == "RGB"


def test_missing_file(tmp_path: Path) -> None:
    """A missing file is said to be missing."""
    with pytest.raises(SourceError, match=r"^the file does not exist \(FileNotFound"):
        decode(tmp_path / "none.jpg")


def test_folder_for_a_file(tmp_path: Path) -> None:
    """A folder is said to be one."""
    with pytest.raises(SourceError, match=r"^it is a folder, not a file"):
        decode(tmp_path)


def test_path_with_a_null_character() -> None:
    """A path that no system takes is an error like the others."""
    with pytest.raises(SourceError, match="null"):
        decode(Path("a\0b.jpg"))


def _png(width: int, height: int) -> bytes:
    """Return a PNG of any declared size with hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_460, 13_300, 13_400, 60_000])
def test_bombs_are_refused_where_pillow_warns(side: int) -> None:
    """Above Pillow's limit is an error: at once, not only from twice the limit on."""
    with pytest.raises(SourceError, match=r"^more pixels than Pillow allows"):
        decode(io.BytesIO(_png(side, side)))


def test_the_users_own_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is Pillow's setting, and can be lifted there."""
    stream = _save(Image.new("L", (20, 20)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 399)
    with pytest.raises(
        SourceError, match="20x20 is above 399; shrink the image or raise"
    ):
        decode(stream)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode(stream).size == (20, 20)


def test_no_pixels_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image without width is refused even where Pillow lets it through."""
    monkeypatch.setattr(Image, "open", lambda *_, **__: Image.new("RGB", (0, 4)))
    with pytest.raises(SourceError, match="the image has no pixels: it is 0x4"):
        decode(io.BytesIO())


@pytest.mark.parametrize(
    "error",
    [
        *(OSError("a\nb"), SyntaxError("odd"), ValueError("odd"), struct.error("odd")),
        *(zlib.error("odd"), EOFError("odd"), TypeError("odd"), IndexError("odd")),
        *(KeyError("odd"), OverflowError("odd"), ZeroDivisionError("odd")),
        *(AttributeError("odd"), AssertionError("odd"), NotImplementedError("odd")),
        *(
            MemoryError("odd"),
            RecursionError("odd"),
            UnicodeDecodeError("a", b"", 0, 1, ""),
        ),
    ],
    ids=lambda error: f"{type(error).__module__}.{type(error).__name__}",
)
def test_whatever_pillow_raises_is_a_source_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Every kind of failure is one line that names it."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(SourceError, match=type(error).__name__) as caught:
        decode(io.BytesIO())
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


def test_trouble_with_the_disk_is_called_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """An input/output error is not blamed on the file."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(SourceError, match=r"^the file cannot be read from disk"):
        decode(io.BytesIO())


def test_an_interrupt_is_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is no damage."""

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(KeyboardInterrupt):
        decode(io.BytesIO())


def test_threads_give_what_one_gives(tmp_path: Path) -> None:
    """Four threads over many files of many kinds decode them as one thread does."""
    files = []
    for i in range(48):
        file = tmp_path / f"{i}.{('png', 'jpg', 'gif', 'webp', 'tif', 'bmp')[i % 6]}"
        Image.fromarray(_random(40 + i, 50, 3, seed=i)).save(file)
        files.append(file)
    serial = [np.asarray(decode(file)) for file in files]
    with ThreadPoolExecutor(4) as pool:
        threaded = [np.asarray(image) for image in pool.map(decode, files * 2)]
    for one, other in zip(serial * 2, threaded, strict=True):
        np.testing.assert_array_equal(one, other)


def test_extensions_are_of_raster_formats() -> None:
    """The usual extensions are images; drawings and containers are not."""
    found = image_extensions()
    assert {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".gif", ".bmp", ".webp"} <= found
    assert not {".pdf", ".eps", ".ps", ".wmf", ".h5", ".mpg", ".txt", ".csv"} & found
    assert all(end == end.lower() and end.startswith(".") for end in found)


def test_policy_is_named_in_the_rule() -> None:
    """The recorded name is the one that the documentation describes."""
    assert f"Rule ``{DECODE_POLICY}``" in (module.__doc__ or "")
    assert len(set(FORMATS)) == len(FORMATS)
