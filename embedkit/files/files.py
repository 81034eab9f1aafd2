"""The one way to bytes by name, wherever they lie."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from embedkit.errors import InputError, MissingDependencyError
from embedkit.files.local import LocalFiles


class Files(Protocol):
    """Named bytes in one place: a folder, or a prefix of an object store.

    Names are relative POSIX paths without ``..``; anything else is a ValueError. What
    fails on the way is an OSError in one line, whatever lies behind. Instances are
    small, frozen and hashable, equal where their `url` is, and pickle by it.
    """

    def __hash__(self) -> int:
        """Equal places have equal hashes."""

    @property
    def url(self) -> str:
        """An absolute path, or a URL without a trailing slash; `files_at` takes it."""

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """What reading and writing there may raise, also through `for_zarr`."""

    @property
    def shared(self) -> bool:
        """Whether other processes can reach it."""

    def read(self, name: str) -> bytes:
        """Return the bytes of a file; FileNotFoundError where there is none."""

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all, for good; what is there is replaced."""

    def create(self, name: str, data: bytes) -> bool:
        """Write a file as `write` does, unless it exists: then change nothing, False."""

    def replace(self, name: str, old: bytes, new: bytes) -> bool:
        """Write `new` if the file holds `old` at that moment, else return False."""

    def delete(self, name: str) -> None:
        """Delete a file; one that is not there is deleted already."""

    def delete_tree(self, folder: str) -> None:
        """Delete everything below a folder, and it; ``""`` is the place itself."""

    def names(self, folder: str = "") -> list[str]:
        """Return every finished file below a folder, relative to it, sorted."""

    def exists(self, name: str) -> bool:
        """Return whether there is a file, or a folder with something in it.

        On a file system an empty folder exists too; an object store has no such thing.
        """

    def nbytes(self, folder: str = "") -> int:
        """Return the bytes of all files of `names`; one that vanishes counts 0."""

    def local_copy(self, name: str) -> Path:
        """Return a path in this machine's file system that holds the bytes of a file.

        An object is downloaded once per process to a temporary folder, so its name must
        say its content: it is not looked at again.
        """

    def sync(self, *names: str) -> None:
        """Bring files that somebody else wrote there, and their names, to the disk."""

    def clean(self, folder: str = "") -> int:
        """Delete what killed writers left unfinished below a folder; return how much.

        To be called when nobody writes there: it cannot tell a dead writer from a slow
        one.
        """

    def for_zarr(self) -> Any:
        """Return what Zarr opens: a path (str), or an obstore store."""


def is_url(place: str | os.PathLike[str]) -> bool:
    """Return whether `place` is a URL and no path.

    Parameters
    ----------
    place : str or path
        What a user gave.

    Examples
    --------
    >>> is_url("s3://bucket/photos.zarr"), is_url("photos.zarr")
    (True, False)
    """
    return isinstance(place, str) and "://" in place


def files_at(place: str | os.PathLike[str]) -> Files:
    """Return the files in a folder or below a URL, which need not exist.

    Parameters
    ----------
    place : str or path
        A folder, or a URL like ``s3://bucket/prefix`` or ``memory://name``. Object stores
        take credentials, endpoint and region from the environment variables that their
        own tools read (``AWS_*``, ``GOOGLE_*``, ``AZURE_*``).

    Returns
    -------
    Files
        Nothing is read or written yet.

    Raises
    ------
    InputError
        For a URL of an unknown scheme, one without a bucket, and a URL that went through
        `pathlib`, which takes one of its slashes.
    MissingDependencyError
        For a URL, where obstore is not installed.
    """
    if not is_url(place):
        path = os.fspath(place)
        if re.match(r"[a-z][a-z0-9+.-]+:/", path):
            raise InputError(
                f"{path!r} looks like a URL that was made a path and lost a slash: "
                "give it as a str like 's3://bucket/prefix'"
            )
        return LocalFiles(path)
    with cloud(place):
        # here, because obstore is an extra that a folder does not need
        from embedkit.files.remote import RemoteFiles
    return RemoteFiles(os.fspath(place))


@contextmanager
def cloud(place: str | os.PathLike[str]) -> Iterator[None]:
    """Say which extra is missing, where obstore is imported and is not installed.

    Parameters
    ----------
    place : str or path
        What it is needed for.

    Raises
    ------
    MissingDependencyError
        In place of the error of the import.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "obstore":
            raise
        raise MissingDependencyError(
            f"{place} needs the package obstore, which is not installed: "
            "run pip install 'embedkit[cloud]'"
        ) from error
