"""From the bytes of an image file to 8-bit RGB pixels, by one fixed rule.

Rule ``pil-rgb-1``
------------------
========================== =============================================================
file or pixels             becomes
========================== =============================================================
formats                    the raster formats in `FORMATS`, told by content, not by name
animated, multi-page       its first frame
EXIF or XMP orientation    applied; an illegal or unreadable one counts as upright
colour profile             not applied
1, L                       the gray level in all three channels
16-bit gray (I;16*)        ``round(x / 257)``, so 65535 becomes 255
32-bit integers (I)        like 16-bit gray if all values lie in 0..65535,
                           else stretched from the image's own minimum..maximum to 0..255
floats (F)                 times 255 if all finite values lie in 0..1, as they are if in
                           0..255, else stretched from the finite minimum..maximum;
                           NaN and -inf become 0, +inf becomes 255
P, PA                      through the palette
any transparency           composited over white: LA, La, PA, RGBA, RGBa, palettes with
                           alpha, and a color (tRNS) that is declared transparent
RGBX, CMYK, YCbCr, HSV     Pillow's own conversion
LAB                        to sRGB with LittleCMS, as Pillow does
16 bits per color channel  the high byte of each, as Pillow reads it
truncated or damaged       `SourceError`; nothing is guessed (embedkit never sets
                           ``PIL.ImageFile.LOAD_TRUNCATED_IMAGES``)
more pixels than
``MAX_IMAGE_PIXELS``       `SourceError`, where Pillow alone only warns up to twice that
========================== =============================================================

Warnings of Pillow while it decodes (odd metadata, mostly) say nothing about the pixels
and are silenced; what does spoil the pixels is an error.
"""

from __future__ import annotations

import functools
import io
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, Final

from PIL import ExifTags, Image, ImageCms, JpegImagePlugin, UnidentifiedImageError

from embedkit.errors import SourceError
from embedkit.images.gray import gray_levels
from embedkit.quiet import quiet

DECODE_POLICY: Final = "pil-rgb-1"
"""Name of the rule above. It is part of a store's identity: bump it with the rule."""

FORMATS: Final = (
    *("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "JPEG2000", "AVIF", "MPO"),
    *("PPM", "PSD", "ICO", "CUR", "ICNS", "SGI", "SUN", "PCX", "DCX", "QOI", "DDS"),
    *("FITS", "XBM", "XPM", "TGA"),
)
"""Formats that are tried, in this order. Left out: what needs another program to be
drawn (EPS, WMF), what Pillow only recognises (HDF5, GRIB), and rarities."""

_TRANSPOSE: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each orientation. References: EXIF 2.32 (CIPA DC-008), tag 0x0112."""

_TURNED: Final = (5, 6, 7, 8)
"""Orientations that change width for height."""

# Everything that Pillow raises on damaged files: its parsers let the errors of struct,
# zlib, indexing and arithmetic through. BaseExceptions and ours are not among them.
_DAMAGE: Final = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError),
    *(AttributeError, AssertionError, RuntimeError, EOFError, MemoryError, ImportError),
    *(struct.error, zlib.error, ImageCms.PyCMSError, Image.DecompressionBombError),
)

_REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (FileNotFoundError, "the file does not exist"),
    (PermissionError, "the file may not be read"),
    (IsADirectoryError, "it is a folder, not a file"),
    (Image.DecompressionBombError, "more pixels than Pillow allows"),
    (MemoryError, "not enough memory to decode it"),
    (EOFError, "the file is truncated"),
)

# Odd metadata is no reason to disturb whoever decodes; what cannot be decoded raises.
_pillow_says_nothing = quiet(module=r"PIL\.")


def decode(file: Path | BinaryIO, *, at_least: int | None = None) -> Image.Image:
    """Decode one image to 8-bit RGB by the rule at the top of this module.

    Safe to call from many threads at once.

    Parameters
    ----------
    file : Path or binary file
        A file on disk, or an open one that can seek, read from its start. Bytes in
        memory (``io.BytesIO``) give what the file that holds them gives.
    at_least : int, optional
        Pixels of the shorter side that are enough: a JPEG that has twice as many or more
        is decoded at a half, a quarter or an eighth of its size, whichever is the
        smallest that leaves as many. Other images stay as they are.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, fully loaded and upright, without metadata.

    Raises
    ------
    SourceError
        If the file cannot be read or decoded. The message is one line: the reason in
        plain words, and what Pillow said.
    """
    # Bytes or an open file rather than a name: Pillow memory-maps what it opens by name,
    # and a mapped file that shrinks kills the process.
    stream = io.BytesIO(read_bytes(file)) if isinstance(file, Path) else file
    try:
        with _pillow_says_nothing:
            return _decode(stream, at_least)
    except SourceError:
        raise
    except _DAMAGE as error:
        raise SourceError(_explain(error)) from error


def read_bytes(path: str | Path) -> bytes:
    """Return the bytes of a file.

    Parameters
    ----------
    path : str or Path
        A file on disk.

    Raises
    ------
    SourceError
        If it cannot be read, with the reason in one line.
    """
    try:
        # Bare, because a buffer that is used once costs 3 % of the time of a small photo.
        with io.FileIO(os.fspath(path)) as file:
            return file.readall()
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a null character
        raise SourceError(_explain(error)) from error


def jpeg_size(stream: BinaryIO) -> tuple[int, int] | None:
    """Return the size that a JPEG file declares, from its header alone.

    Parameters
    ----------
    stream : binary file
        One that can seek, read from its start.

    Returns
    -------
    tuple of int, or None
        Width and height in pixels, upright; None for files of other formats and where
        the header cannot be read.
    """
    try:
        with _pillow_says_nothing:
            image: Image.Image = Image.open(stream, formats=("JPEG", "MPO"))
            turned = _orientation(image) in _TURNED
    except _DAMAGE:
        return None
    return (image.height, image.width) if turned else image.size


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image of any Pillow mode to RGB by the rule of this module.

    Parameters
    ----------
    image : PIL.Image.Image
        Any mode. Its orientation is left alone.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, the same width and height; `image` itself if it is plain RGB already.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(gray_levels(image)).convert("RGB")
    if image.mode == "La":  # Pillow knows no way from here to RGBA but this one
        image = image.convert("LA")
    if image.has_transparency_data:
        return _over_white(image.convert("RGBA"))
    return image.convert("RGB") if image.mode != "RGB" else image


@functools.cache
def image_extensions() -> frozenset[str]:
    """Return the file name extensions of `FORMATS`: lower case, with the dot."""
    known = Image.registered_extensions()
    return frozenset(end for end, name in known.items() if name in FORMATS)


@functools.cache
def _readable() -> tuple[str, ...]:
    """Return those of `FORMATS` that this build of Pillow can open."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _decode(stream: BinaryIO, at_least: int | None) -> Image.Image:
    """Open, check, load, convert and turn, in an order that bounds memory."""
    try:
        image: Image.Image = Image.open(stream, formats=_readable())
    except UnidentifiedImageError as error:
        raise SourceError(_unidentified(stream)) from error
    _check_size(image)
    if at_least is not None and isinstance(image, JpegImagePlugin.JpegImageFile):
        image.draft(None, (at_least, at_least))
    image.load()
    _check_size(image)  # an icon can hold a larger image than it declares
    # TIFF turns itself while loading, so the orientation is read after that.
    orientation = _orientation(image)
    rgb = to_rgb(image)
    if orientation in _TRANSPOSE:
        rgb = rgb.transpose(_TRANSPOSE[orientation])
    rgb.info = {}  # or a transform that reads EXIF would turn the image once more
    return rgb


def _check_size(image: Image.Image) -> None:
    """Refuse images without pixels, and those that Pillow would only warn about."""
    width, height = image.size
    limit = Image.MAX_IMAGE_PIXELS
    if width < 1 or height < 1:
        raise SourceError(f"the image has no pixels: it is {width}x{height}")
    if limit is not None and width * height > limit:
        raise SourceError(
            f"more pixels than Pillow allows: {width}x{height} is above "
            f"{limit:,}; shrink the image or raise PIL.Image.MAX_IMAGE_PIXELS"
        )


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1, upright, where there is none that can be read."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DAMAGE:  # the pixels are whole, and viewers show them as they are
        return 1
    return found if isinstance(found, int) else 1


def _over_white(rgba: Image.Image) -> Image.Image:
    """Composite an RGBA image over white."""
    canvas = Image.new("RGB", rgba.size, "white")
    canvas.paste(rgba, mask=rgba)
    return canvas


def _explain(error: BaseException) -> str:
    """Say in one line why a file could not be decoded, and what Pillow said."""
    said = " ".join(str(error).split())[:200]
    named = (reason for kind, reason in _REASONS if isinstance(error, kind))
    reason = next(named, None) or _guess(error, said)
    return f"{reason} ({type(error).__name__}: {said})"


def _guess(error: BaseException, said: str) -> str:
    """Tell truncation, trouble with the disk, and damage apart."""
    if "truncated" in said.lower():
        return "the file is truncated"
    if isinstance(error, OSError) and error.errno is not None:
        return "the file cannot be read from disk"
    return "the file is damaged, or of a kind that Pillow cannot decode"


def _unidentified(stream: BinaryIO) -> str:
    """Say what stands at the start of a file that is no image."""
    stream.seek(0)
    start = stream.read(16)
    if not start:
        return "the file is empty"
    return f"not an image, or its header is damaged: the file begins with {start!r}"
