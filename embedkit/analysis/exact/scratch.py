"""The folder of a search: made for it or kept, used by one run at a time."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import dask.config

from embedkit.errors import InputError
from embedkit.files.whole import whole_file
from embedkit.planning.neighbors import Layout

KEPT = ("layout.json", "lock")
"""Files that stay when a search is finished, beside its result."""

_log = logging.getLogger(__name__)


@contextmanager
def scratch_folder(scratch: str | Path | None) -> Iterator[Path]:
    """Give a folder: the one that was asked for, or one that is removed at the end.

    Parameters
    ----------
    scratch : str or Path, optional
        A folder to keep, which need not exist; by default one where Dask has its
        temporary files.

    Yields
    ------
    Path
        Absolute.
    """
    if scratch is not None:
        yield Path(scratch).absolute()
        return
    place = dask.config.get("temporary-directory", None)
    with tempfile.TemporaryDirectory(prefix="embedkit-", dir=place) as folder:
        yield Path(folder)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder for the length of a ``with`` block.

    The lock is one of the operating system on an open file, so the end of a process, also
    a violent one, is the end of its lock. A file system without locks is told in the log,
    and two runs are then not kept apart.

    Parameters
    ----------
    folder : Path
        Made if it is not there.

    Raises
    ------
    InputError
        When another run has the folder, with its process, its machine and since when.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 1000, 0).decode("utf-8", "replace")
        raise InputError(
            f"neighbors found {folder} in use by {holder or 'another run'}: wait for it "
            "and run the same call again, end it, or pass another scratch="
        ) from error
    except OSError as error:
        _log.warning("no lock on %s (%s): run one search there", folder, error)
    since = datetime.now(UTC).isoformat(timespec="seconds")
    os.ftruncate(descriptor, 0)
    holder = f"process {os.getpid()} on {socket.gethostname()} since {since}"
    os.pwrite(descriptor, holder.encode(), 0)


def kept_layout(folder: Path) -> Layout | None:
    """Return the tiles of a search that was begun in a folder, if one was.

    Raises
    ------
    InputError
        When the file that says so cannot be read.
    """
    path = folder / "layout.json"
    try:
        return Layout(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise InputError(
            f"neighbors cannot read {path} ({error}): delete the folder {folder}, and "
            "the search begins anew"
        ) from error


def keep_layout(folder: Path, layout: Layout) -> None:
    """Write down the tiles of a search, before any file that depends on them."""
    with whole_file(folder / "layout.json") as file:
        file.write(json.dumps(asdict(layout)).encode())
