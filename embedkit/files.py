"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write that appears under its name when it is complete.

    Parameters
    ----------
    path : Path
        Where it will be; its folder must exist. What is there already is replaced.

    Yields
    ------
    binary file
        A temporary one beside `path`. At the end of the ``with`` block it is synced to
        disk and renamed; after an error it is removed.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
