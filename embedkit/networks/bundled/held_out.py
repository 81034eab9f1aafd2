"""The held-out digits as picture files, for trying embedkit without any data."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from PIL import Image

from embedkit.errors import SourceError
from embedkit.networks.bundled.digits_data import digits_split


def write_held_out(folder: str | Path) -> Path:
    """Write the digits that the bundled network never saw, as PNG in class folders.

    Parameters
    ----------
    folder : path
        Made whole or not at all: ``<folder>/<digit>/<number>.png``, 450 grey pictures
        of 8 by 8 pixels.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    SourceError
        When it cannot be written, or something else is there.
    """
    target = Path(folder)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    split = digits_split()
    try:
        for number, (pixels, digit) in enumerate(
            zip(split.test_images, split.test_labels, strict=True)
        ):
            place = temporary / str(digit) / f"{number:03d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place)
        temporary.rename(target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        message = (
            f"cannot write the digits to {target}: {error.strerror or error}: "
            "choose a folder that you can write to"
        )
        raise SourceError(message) from error
    return target
