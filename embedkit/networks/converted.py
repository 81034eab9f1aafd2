"""Converted networks on disk, so that the next process need not convert them again."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_KEPT = 8
"""Converted networks a folder keeps; each takes as much room as its weights."""

_MODEL = "model.xml"
_DIGEST = "sha256"


def cache_folder() -> Path:
    """Return the folder for what can be made again.

    Returns
    -------
    Path
        ``$EMBEDKIT_CACHE`` where that is set, else ``embedkit`` in the folder that the
        system has for the user's caches.
    """
    given = os.environ.get("EMBEDKIT_CACHE")
    if given:
        return Path(given).absolute()
    home = Path.home()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"
        return Path(local) / "embedkit"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "embedkit"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "embedkit"


def find_converted(folder: Path, key: str) -> Path | None:
    """Return the file of a converted network.

    Parameters
    ----------
    folder : Path
        Which may not exist.
    key : str
        What it was kept under.

    Returns
    -------
    Path or None
        None where there is none, or where its bytes are not those that were written.
    """
    kept = folder / key
    try:
        if (kept / _DIGEST).read_text("ascii") != _digest(kept):
            return None
        os.utime(kept)  # the time of the last use decides what is dropped
    except OSError:
        return None
    return kept / _MODEL


def keep_converted(folder: Path, key: str, *, write: Callable[[Path], None]) -> None:
    """Keep a converted network, whole or not at all, and drop the least used ones.

    Where the folder cannot be written, nothing is kept: it can be made again.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    key : str
        What to find it under.
    write : callable
        Writes it to the path it is given, and to others of the same stem beside it.
    """
    with suppress(OSError, RuntimeError):  # RuntimeError: OpenVINO cannot write
        folder.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder, prefix="."))
        try:
            write(part / _MODEL)
            (part / _DIGEST).write_text(_digest(part), "ascii")
            shutil.rmtree(folder / key, ignore_errors=True)
            part.replace(folder / key)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        _drop(folder)


def _digest(kept: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(kept.glob(f"{Path(_MODEL).stem}.*")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _drop(folder: Path) -> None:
    kept = [path for path in folder.iterdir() if (path / _DIGEST).is_file()]
    kept.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in kept[_KEPT:]:
        shutil.rmtree(path, ignore_errors=True)
