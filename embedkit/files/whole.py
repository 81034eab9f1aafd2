"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

# what file systems answer that cannot sync a folder (some network and FUSE ones)
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


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
        disk and renamed, and the folder is synced, so that file and name survive a loss
        of power; after an error it is removed.
    """
    with temporary_file(path) as (part, file):
        yield file
        to_disk(file)
        part.replace(path)
    sync_folder(path.parent)


@contextmanager
def temporary_file(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Open a hidden file beside `path` that is gone at the end of the ``with`` block.

    Parameters
    ----------
    path : Path
        The name it may be linked or renamed to before that end.

    Yields
    ------
    part : Path
        Its name, ``.<name>.<hex>.partial``.
    file : binary file
        Opened to write.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with part.open("wb") as file:
            yield part, file
    finally:
        part.unlink(missing_ok=True)


def to_disk(file: BinaryIO) -> None:
    """Bring what was written to an open file to the disk.

    Parameters
    ----------
    file : binary file
        Opened to write.
    """
    file.flush()
    os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """Bring the bytes of a file that somebody else wrote to the disk.

    Parameters
    ----------
    path : Path
        A file.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Bring the entries of a folder to the disk, where its file system can.

    Parameters
    ----------
    folder : Path
        An existing folder.
    """
    try:
        sync_file(folder)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, each entry on disk before the next is made.

    Parameters
    ----------
    folder : Path
        One that may exist already.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)
