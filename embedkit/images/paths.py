"""Lists of image files: absolute paths, their sizes and times, and ids."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from embedkit.errors import InputError, SourceError
from embedkit.images.imageset import ImageSet
from embedkit.images.source import FileSource, Source


class Stamp(NamedTuple):
    """What a file system says of a file without opening it.

    Attributes
    ----------
    size : int
        Bytes; -1 where unknown.
    mtime : int
        Last modification, nanoseconds since 1970-01-01 UTC; -1 where unknown.
    """

    size: int
    mtime: int


NO_STAMP: Final = Stamp(size=-1, mtime=-1)
_LATEST: Final = np.iinfo(np.int64).max


def from_paths(
    paths: Sequence[str | os.PathLike[str]], *, root: str | Path | None = None
) -> ImageSet:
    """Return the images in a list of files, in the order of the list.

    Parameters
    ----------
    paths : sequence of str or Path
        Files, absolute or relative to the working directory. Missing ones stay rows.
    root : str or Path, optional
        The folder that ids are relative to; by default the files' common folder.

    Returns
    -------
    ImageSet

    Raises
    ------
    InputError
        If an element is not a path, or a file lies outside `root`.
    SourceError
        If none of the files exists.
    """
    for row, path in enumerate(paths):
        if not isinstance(path, str | os.PathLike):
            raise InputError(
                f"a list of images must hold paths, but element {row} is "
                f"{type(path).__name__}; for pixels give one uint8 array (N, H, W, 3)"
            )
    if not paths:
        raise InputError("a list of images needs at least one path, found none")
    files = [absolute(path) for path in paths]
    nothing_else = pd.DataFrame(index=range(len(files)))
    return image_files(relative_ids(files, root=root), files, columns=nothing_else)


def image_files(
    ids: Sequence[str], files: Sequence[Path], *, columns: pd.DataFrame
) -> ImageSet:
    """Return the set of `files` under `ids`, with `columns` beside them.

    Raises
    ------
    SourceError
        If none of the files exists.
    """
    stamps = [stamp_of(file) for file in files]
    if max((stamp.size for stamp in stamps), default=0) < 0:
        raise SourceError(
            f"none of the {len(files)} files exists, for instance {str(files[0])!r}; "
            "check the paths, or say with root= which folder they are relative to"
        )
    return file_set(ids, files, stamps=stamps, columns=columns)


def file_set(
    ids: Sequence[str],
    files: Iterable[Path | str],
    *,
    stamps: Sequence[Stamp],
    columns: pd.DataFrame,
    source: Source | None = None,
) -> ImageSet:
    """Return an `ImageSet` of files whose sizes and times are known.

    Parameters
    ----------
    ids, files, stamps : of the same length
        Row by row: the id, the absolute path or URL, what `stamp_of` says of the file.
    columns : DataFrame
        What else is known, row by row; its index is replaced by the ids.
    source : Source, optional
        What reads them; `FileSource` by default.
    """
    table = image_table(ids, [str(file) for file in files], columns=columns)
    sizes, mtimes = np.array(stamps, np.int64).reshape(-1, 2).T.copy()
    return ImageSet(table, source or FileSource(), sizes, mtimes)


def image_table(
    ids: Sequence[str], uris: Sequence[str], *, columns: pd.DataFrame
) -> pd.DataFrame:
    """Return a table laid out as `ImageSet.table`.

    Parameters
    ----------
    ids, uris : of the same length
        Row by row: the id, and where its source finds the image.
    columns : DataFrame
        What else is known, row by row; its index is replaced by the ids.

    Raises
    ------
    InputError
        If an id or a uri is not valid Unicode.
    """
    _check_text([*ids, *uris])
    table = columns.set_axis(pd.Index([*ids], name="image"))
    table.insert(0, "uri", [*uris])
    first = [name for name in ("uri", "label", "split") if name in table]
    rest = [name for name in table.columns if name not in first]
    return table[first + rest]


def absolute(path: str | os.PathLike[str], *, folder: Path | None = None) -> Path:
    """Return an absolute path without ``..``; symbolic links are kept as they are.

    Parameters
    ----------
    path : str or path-like
        May start with ``~``.
    folder : Path, optional
        Where relative paths start; the working directory by default.
    """
    expanded = Path(path).expanduser()
    return Path(os.path.normpath((folder or Path.cwd()) / expanded))


def stamp_of(file: Path | os.DirEntry[str]) -> Stamp:
    """Return the size and time of a file, asked in one go; -1 where there is none."""
    try:
        status = file.stat()
    except (OSError, ValueError):  # ValueError: a path with a null character
        return NO_STAMP
    mtime = status.st_mtime_ns
    # File systems know years that 64 bits of nanoseconds do not reach (after 2262).
    return Stamp(status.st_size, mtime if abs(mtime) <= _LATEST else -1)


def relative_ids(files: Sequence[Path], *, root: str | Path | None = None) -> list[str]:
    """Return POSIX paths relative to `root`, or to the files' common folder.

    Raises
    ------
    InputError
        If a file lies outside `root`.
    """
    if root is None:
        base = Path(os.path.commonpath([file.parent for file in files]))
    else:
        base = absolute(root)
    outside = [file for file in files if not file.is_relative_to(base)]
    if outside:
        raise InputError(
            f"{len(outside)} of {len(files)} files lie outside root {str(base)!r}, for "
            f"instance {str(outside[0])!r}; choose a root above all of them"
        )
    return [file.relative_to(base).as_posix() for file in files]


def _check_text(names: Iterable[str]) -> None:
    """Refuse names that no table or store can hold as text."""
    bad = [name for name in names if not name.isascii() and not _is_unicode(name)]
    if bad:
        raise InputError(
            f"{len(bad)} file names are not valid UTF-8, for instance "
            f"{os.fsencode(bad[0])!r}; rename the files"
        )


def _is_unicode(name: str) -> bool:
    """Tell whether a name is free of the stand-ins for undecodable bytes."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)
