"""Files in a folder of a file system."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from embedkit.files.names import checked, is_hidden, is_partial
from embedkit.files.whole import (
    make_folder,
    sync_file,
    sync_folder,
    temporary_file,
    to_disk,
    whole_file,
)

_SYNCS = 16
"""Files synced at a time: 134 of them took 15 to 45 ms, and 430 ms one by one."""

# what file systems answer that have no hard links
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
# a folder of that name, or a file where a folder would be: no such file
_NO_FILE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


@dataclass(frozen=True, slots=True, init=False)
class LocalFiles:
    """The files below one folder; see `embedkit.files.files.Files`.

    Parameters
    ----------
    path : str or path
        The folder, which need not exist. A relative one means the current folder of now.

    Attributes
    ----------
    url : str
        Its absolute path; symbolic links stay, as they may differ between machines.
    """

    url: str
    failures: ClassVar[tuple[type[Exception], ...]] = (OSError,)
    shared: ClassVar[bool] = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        object.__setattr__(self, "url", str(Path(path).absolute()))

    def read(self, name: str) -> bytes:
        """Return the bytes of a file; FileNotFoundError where there is none."""
        path = self._path(name)
        try:
            return path.read_bytes()
        except _NO_FILE as error:
            raise _no_file(path) from error

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all, for good; what is there is replaced."""
        path = self._path(name)
        make_folder(path.parent)
        with _guarded(path), whole_file(path) as file:
            file.write(data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file as `write` does, unless it exists: then change nothing, False.

        Where the file system has no hard links, a writer killed in between leaves the
        file torn.
        """
        path = self._path(name)
        make_folder(path.parent)
        with _guarded(path):
            made = not path.exists() and _create(path, data)
        if made:
            sync_folder(path.parent)
        return made

    def replace(self, name: str, old: bytes, new: bytes) -> bool:
        """Write `new` if the file holds `old` at that moment, else return False.

        A guard file, ``.<name>.guard``, stays beside it for the next replacement.
        """
        path = self._path(name)
        if not path.is_file():
            return False
        with _guarded(path, make=True):
            try:
                same = path.read_bytes() == old
            except _NO_FILE:
                return False
            if same:
                with whole_file(path) as file:
                    file.write(new)
        return same

    def delete(self, name: str) -> None:
        """Delete a file; one that is not there is deleted already."""
        path = self._path(name)
        with suppress(FileNotFoundError, NotADirectoryError), _guarded(path):
            path.unlink()
            sync_folder(path.parent)

    def delete_tree(self, folder: str) -> None:
        """Delete everything below a folder, and it; ``""`` is the place itself.

        A folder inside the place goes as one: it is renamed before its files are deleted.
        """
        path = self._path(folder, empty=True)
        if not path.is_dir():
            return
        with suppress(FileNotFoundError):  # another process deletes it too
            if folder:
                path = path.rename(
                    path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
                )
            shutil.rmtree(path)
            sync_folder(path.parent)

    def names(self, folder: str = "") -> list[str]:
        """Return every finished file below a folder, relative to it, sorted."""
        top = self._path(folder, empty=True)
        found = []
        for at, folders, files in os.walk(top, onerror=_unless_gone):
            folders[:] = [each for each in folders if not is_hidden(each)]
            below = Path(at).relative_to(top)
            found += [
                (below / each).as_posix() for each in files if not is_hidden(each)
            ]
        return sorted(found)

    def exists(self, name: str) -> bool:
        """Return whether there is a file or a folder."""
        return self._path(name, empty=True).exists()

    def nbytes(self, folder: str = "") -> int:
        """Return the bytes of all files of `names`; one that vanishes counts 0."""
        top = self._path(folder, empty=True)
        total = 0
        for name in self.names(folder):
            with suppress(FileNotFoundError):
                total += (top / name).stat().st_size
        return total

    def local_copy(self, name: str) -> Path:
        """Return the path of a file; FileNotFoundError where there is none."""
        path = self._path(name)
        if not path.is_file():
            raise _no_file(path)
        return path

    def sync(self, *names: str) -> None:
        """Bring files that somebody else wrote there, and their names, to the disk.

        All at a time: a journal takes many in one go, and one by one they cost some
        milliseconds each. A new folder's own name is not brought there.
        """
        paths = [self._path(name) for name in names]
        folders = {path.parent for path in paths}
        with ThreadPoolExecutor(_SYNCS) as pool:
            list(pool.map(sync_file, paths))
            list(pool.map(sync_folder, folders))

    def clean(self, folder: str = "") -> int:
        """Delete what killed writers left unfinished below a folder; return how much.

        To be called when nobody writes there: it cannot tell a dead writer from a slow
        one.
        """
        count, top = 0, self._path(folder, empty=True)
        for at, folders, files in os.walk(top, onerror=_unless_gone):
            left = [Path(at, each) for each in files + folders if is_partial(each)]
            folders[:] = [each for each in folders if not is_partial(each)]
            for path in left:
                with suppress(FileNotFoundError):
                    _remove(path)
            count += len(left)
        return count

    def for_zarr(self) -> str:
        """Return the path, which Zarr opens as it is."""
        return self.url

    def _path(self, name: str, *, empty: bool = False) -> Path:
        return Path(self.url, checked(name, empty=empty))


def _no_file(path: Path) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "no such file", str(path))


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _create(path: Path, data: bytes) -> bool:
    with temporary_file(path) as (part, file):
        file.write(data)
        to_disk(file)
        try:
            os.link(part, path)
        except FileExistsError:
            # over NFS the answer to a link that was made may get lost and the request be
            # sent again; the second name shows it
            return part.stat().st_nlink == 2
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return _create_in_place(path, data)
    return True


def _create_in_place(path: Path, data: bytes) -> bool:
    try:
        with path.open("xb") as file:
            file.write(data)
            to_disk(file)
    except FileExistsError:
        return False
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True


@contextmanager
def _guarded(path: Path, *, make: bool = False) -> Iterator[None]:
    """Hold the guard of a file against other changes, if it has one or `make` says so.

    Only files that are ever replaced have one, so that the many that are written once
    cost neither a second file nor a lock.
    """
    guard = path.with_name(f".{path.name}.guard")
    flags = os.O_RDWR | (os.O_CREAT if make else 0)
    descriptor = None
    with suppress(FileNotFoundError):
        descriptor = os.open(guard, flags, 0o666)
    try:
        if descriptor is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)
