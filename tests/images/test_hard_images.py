"""Tests of the decode rule on Pillow's collection of hard files."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedkit.errors import SourceError
from embedkit.images.decode import decode

DAMAGED = "damaged, or of a kind"
BOMB = "more pixels than Pillow allows"
NO_IMAGE = "not an image, or its header is damaged"
TRUNCATED = "the file is truncated"

# What each file must come to: its upright size, or the reason it is refused for.
EXPECTED: dict[str, tuple[int, int] | str] = {
    "10ct_32bit_128.tiff": (128, 128),
    "12bit.cropped.tif": (100, 100),
    "16_bit_binary_pgm.tiff": (20, 100),
    "16_bit_noise.tif": (32, 32),
    "16bit.s.tif": (10, 10),
    "apng__chunk_no_fctl.png": DAMAGED,
    "apng__mode_grayscale_alpha.png": (128, 64),
    "bmp__b__badbitcount.bmp": "Unsupported BMP pixel depth",
    "bmp__b__badheadersize.bmp": "Unsupported BMP header type",
    "bmp__b__badpalettesize.bmp": "Unsupported BMP Palette size",
    "bmp__b__badwidth.bmp": BOMB,
    "bmp__b__reallybig.bmp": BOMB,
    "bmp__b__shortfile.bmp": TRUNCATED,
    "bmp__q__pal2.bmp": "Unsupported BMP pixel depth",
    "bmp__q__pal8oversizepal.bmp": "invalid palette size",
    "broken.png": NO_IMAGE,
    "broken_data_stream.png": DAMAGED,
    "crash-0c7e0e8e11ce787078f00b5b0ca409a167f070e0.tif": DAMAGED,
    "crash-86214e58da443d2b80820cff9677a38a33dcbbca.tif": DAMAGED,
    "decompression_bomb.gif": BOMB,
    "dispose_bgnd.gif": (100, 100),
    "dispose_bgnd_transparency.gif": (38, 32),
    "empty_gps_ifd.jpg": (10, 10),
    "exif_imagemagick_orientation.png": (512, 512),
    "g4_orientation_5.tif": (590, 88),
    "hopper.Lab.tif": (128, 128),
    "hopper_bw_500.png": (500, 500),
    "hopper_orientation_6.webp": (128, 128),
    "hopper_unknown_pixel_mode.tif": NO_IMAGE,
    "i_trns.png": (64, 64),
    "l2rgb_read.bmp": BOMB,
    "libtiff_segfault.tif": NO_IMAGE,
    "multipage.tiff": (10, 10),
    "multipage_out_of_order.tiff": (10, 10),
    "oom-225817ca0f8c663be7ab4b9e717b02c661e66834.tif": NO_IMAGE,
    "orientation_rectangle.jpg": (1, 2),
    "pil123p.png": (162, 150),
    "pil_sample_cmyk.jpg": (100, 100),
    "png_decompression_dos.png": "Decompressed data too large",
    "rdf.tif": (518, 556),
    "seek_too_large.tif": "Unable to seek to frame",
    "tiff_strip_cmyk_jpeg.tif": (100, 100),
    "tiff_tiled_cmyk_jpeg.tif": (100, 100),
    "transparent.gif": (200, 150),
    "truncated_end_chunk.png": TRUNCATED,
    "truncated_image.png": TRUNCATED,
    "truncated_jpeg.jpg": TRUNCATED,
    "uint16_1_4660.tif": (10, 10),
    "ultrahdr.jpg": TRUNCATED,
    "uncompressed_la.png": (128, 128),
    "unknown_compression_method.png": NO_IMAGE,
    "xmp_tags_orientation.png": (326, 268),
    "zero_width.gif": NO_IMAGE,
}

# Runs in a process of its own: a crash or an exhausted memory then fails one test.
_SCRIPT = """
import json, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from embedkit.errors import SourceError
from embedkit.images.decode import decode
found = {}
for file in sorted(Path(sys.argv[1]).iterdir()):
    try:
        image = decode(file)
        found[file.name] = [image.mode, *image.size]
    except SourceError as error:
        found[file.name] = str(error)
# Not ru_maxrss: it starts from the peak of the process that forked this one.
lines = open("/proc/self/status").read().splitlines()
peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
print(json.dumps({"found": found, "peak": peak}))
"""


@pytest.fixture(scope="module")
def outcome(shared) -> dict[str, object]:
    """Decode all files in one process where warnings are errors and memory is short."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of a process's memory is read from /proc")
    pytest.importorskip("resource", reason="limits of a process are POSIX")
    folder = shared("hard_images_pillow")
    command = [sys.executable, "-W", "error::UserWarning", "-c", _SCRIPT, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Warning" not in done.stderr
    return json.loads(done.stdout)


def test_every_file_decodes_or_says_why(outcome: dict) -> None:
    """Each of the 132 files is RGB, or one line of reason; nothing else comes out."""
    found = {
        name: result
        for name, result in outcome["found"].items()
        if name not in ("labels.csv", "LICENSE")
    }
    assert len(found) == 132
    refused = {name for name, result in found.items() if isinstance(result, str)}
    assert 35 <= len(refused) <= 50
    assert all("\n" not in found[name] and len(found[name]) < 400 for name in refused)
    assert all(found[name][0] == "RGB" for name in found.keys() - refused)


def test_memory_stays_bounded(outcome: dict) -> None:
    """No file takes more than some hundred MB, bombs included."""
    assert outcome["peak"] < 400e6


@pytest.mark.parametrize("name", EXPECTED)
def test_expected_outcome(outcome: dict, name: str) -> None:
    """A file decodes to its upright size, or is refused for its own reason."""
    expected, found = EXPECTED[name], outcome["found"][name]
    if isinstance(expected, str):
        assert isinstance(found, str)
        assert re.search(re.escape(expected), found)
    else:
        assert found == ["RGB", *expected]


def test_no_warning_escapes(shared) -> None:
    """In this process too, no warning of any kind comes out of a decode."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for file in sorted(shared("hard_images_pillow").glob("*.*")):
            with contextlib.suppress(SourceError):
                decode(file)
    assert [str(each.message) for each in caught] == []


@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_hopper_orientations_agree(shared, kind: str) -> None:
    """Seven orientations of one photo, compressed each by itself, come out alike."""
    folder = shared("hard_images_pillow")
    found = [
        np.asarray(decode(folder / f"hopper_orientation_{i}.{kind}")).astype(int)
        for i in range(2, 9)
    ]
    assert all(np.abs(image - found[0]).mean() < 5 for image in found)


def test_group_4_orientations_agree(shared) -> None:
    """TIFF turns itself while loading, and is not turned twice."""
    folder = shared("hard_images_pillow")
    found = [
        np.asarray(decode(folder / f"g4_orientation_{i}.tif")) for i in range(2, 9)
    ]
    # The files differ in a few pixels; a wrong turn differs in 9 % or more.
    assert max((image != found[0]).mean() for image in found) < 0.005


def test_transparent_files_show_white(shared) -> None:
    """One picture as PNG, WebP and GIF is laid over white in each."""
    folder = shared("hard_images_pillow")
    for name in ("transparent.png", "transparent.webp", "transparent.gif"):
        with Image.open(folder / name) as image:
            alpha = np.asarray(image.convert("RGBA"))[..., 3]
        rgb = np.asarray(decode(folder / name))
        assert (alpha == 0).any()
        assert (rgb[alpha == 0] == 255).all()
