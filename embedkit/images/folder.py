"""Folders and globs of image files: which files, in which order, with what labels."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from embedkit.errors import InputError, SourceError, did_you_mean
from embedkit.images.decode import image_extensions
from embedkit.images.imageset import ImageSet
from embedkit.images.paths import Stamp, absolute, file_set, stamp_of
from embedkit.images.source import Source

SPLITS = frozenset({"train", "val", "valid", "validation", "test"})
"""First-level folders of these names (in any case) are parts of a split, not labels."""


def from_folder(root: Path) -> ImageSet:
    """Return the images below a folder, sorted by relative POSIX path.

    Hidden files and folders are left out. Links to folders are followed, except to a
    folder that they lie in.

    Parameters
    ----------
    root : Path
        An absolute path.

    Returns
    -------
    ImageSet
        With the columns of `place_columns`.

    Raises
    ------
    SourceError
        If a folder cannot be listed, or there is no image in it.
    """
    try:
        found = {_id(entry.path, root): stamp_of(entry) for entry in _files(root)}
    except OSError as error:
        raise SourceError(
            f"folder {str(root)!r} cannot be listed ({error}); make it readable"
        ) from error
    return placed(root, found, asked=f"folder {str(root)!r}")


def from_glob(pattern: str) -> ImageSet:
    """Return the images that match a glob, sorted by relative POSIX path.

    Parameters
    ----------
    pattern : str
        For instance ``photos/**/*.jpg``. ``**`` matches folders at any depth and
        follows no links. Ids are relative to the part before the first wildcard.

    Returns
    -------
    ImageSet
        With the columns of `place_columns`.

    Raises
    ------
    InputError
        If the pattern is malformed.
    SourceError
        If the folder that it starts in is missing, or no image matches.
    """
    parts = absolute(pattern).parts
    wild = next(i for i, part in enumerate(parts) if has_wildcard(part))
    root, rest = Path(*parts[:wild]), "/".join(parts[wild:])
    if any("**" in part and part != "**" for part in parts):
        raise InputError(f"in glob {pattern!r}, '**' must stand alone between slashes")
    if not root.is_dir():
        raise SourceError(f"glob {pattern!r} starts in no folder. {nearest(root)}")
    hidden = "/." in f"/{rest}"  # asked for by name
    files = {_id(str(file), root): file for file in root.glob(rest) if file.is_file()}
    found = {
        name: stamp_of(file)
        for name, file in files.items()
        if hidden or "/." not in f"/{name}"
    }
    return placed(root, found, asked=f"glob {pattern!r}")


def place_columns(ids: Sequence[str]) -> dict[str, list[str | None]]:
    """Read label and split off the folders that images lie in.

    Parameters
    ----------
    ids : sequence of str
        Relative POSIX paths.

    Returns
    -------
    dict of str to list of str or None
        ``split``, if all first-level folders are called train, val, valid, validation
        or test. ``label``, the folder that holds the file, if any file is in one below
        the split. None for a file outside such folders.

    Examples
    --------
    >>> place_columns(["train/cat/1.jpg", "test/dog/1.jpg"])
    {'label': ['cat', 'dog'], 'split': ['train', 'test']}
    >>> place_columns(["1.jpg", "2.jpg"])
    {}
    """
    folders = [PurePosixPath(name).parts[:-1] for name in ids]
    splits = [parts[0] if parts else None for parts in folders]
    named = {split.lower() for split in splits if split is not None}
    is_split = bool(named) and named <= SPLITS
    inner = [parts[1:] for parts in folders] if is_split else folders
    labels = [parts[-1] if parts else None for parts in inner]
    columns = {"label": labels} if any(inner) else {}
    return columns | ({"split": splits} if is_split else {})


def has_wildcard(text: str) -> bool:
    """Tell whether a path is a glob."""
    return any(sign in text for sign in "*?[")


def has_images(root: Path) -> bool:
    """Tell whether a folder holds an image by its extension, or cannot be listed."""
    try:
        return any(extension(each.name) in image_extensions() for each in _files(root))
    except OSError:
        return True


def nearest(path: Path) -> str:
    """Say which existing names are near the first missing part of a path."""
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    try:
        siblings = sorted(each.name for each in missing.parent.iterdir())
    except OSError:  # a file where a folder was expected, or one that is closed to us
        siblings = []
    return f"In {str(missing.parent)!r}: {did_you_mean(missing.name, siblings)}"


def placed(
    root: Path | str,
    found: Mapping[str, Stamp],
    *,
    asked: str,
    source: Source | None = None,
) -> ImageSet:
    """Return those of the found files that are images, sorted by their ids.

    Parameters
    ----------
    root : Path or str
        A folder, or a URL without a trailing slash.
    found : mapping of str to Stamp
        By POSIX path relative to `root`.
    asked : str
        What the caller was asked for, for messages.
    source : Source, optional
        What reads them; `FileSource` by default.

    Raises
    ------
    SourceError
        If there is no image.
    """
    ids = sorted(name for name in found if extension(name) in image_extensions())
    if not ids:
        raise SourceError(f"no image in {asked}: {_instead(found)}")
    columns = pd.DataFrame(place_columns(ids), index=range(len(ids)))
    stamps = [found[name] for name in ids]
    files = [
        root / name if isinstance(root, Path) else f"{root}/{name}" for name in ids
    ]
    return file_set(ids, files, stamps=stamps, columns=columns, source=source)


def _instead(names: Iterable[str]) -> str:
    """Say what there is where no image is."""
    ends = collections.Counter(extension(name) or "(none)" for name in names)
    if not ends:
        return "there is no file at all; check the path"
    listed = ", ".join(sorted(ends)[:5])
    files, s = ("file", "") if ends.total() == 1 else ("files", "s")
    return (
        f"found {ends.total()} {files} with extension{s} {listed}, none an image; "
        "give a list of paths if these are images all the same"
    )


def _files(
    folder: str | Path, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[os.DirEntry[str]]:
    """Yield every visible file below a folder. `above`: the folders it lies in."""
    status = Path(folder).stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _true(entry.is_dir):
                yield from _files(entry.path, above | {here})
            elif _true(entry.is_file) or entry.is_symlink():  # dangling: a row
                yield entry


def _true(ask: Callable[[], bool]) -> bool:
    """Ask about what an entry leads to; False for a link that leads to itself."""
    try:
        return ask()
    except OSError:
        return False


def _id(path: str, root: Path) -> str:
    """Return the POSIX path relative to `root`."""
    return Path(path).relative_to(root).as_posix()


def extension(name: str) -> str:
    """Return the extension of a file name, lower case, with its dot."""
    return PurePosixPath(name).suffix.lower()
