"""Files below a URL of an object store."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from embedkit.files.connect import memory, opened, readable
from embedkit.files.names import checked, is_hidden
from embedkit.files.urls import normal
from embedkit.files.whole import temporary_file

if TYPE_CHECKING:
    from obstore import ObjectMeta, UpdateVersion
    from obstore.store import ObjectStore

# Bytes of one request of a download, so that no file is too large for the time of one.
PIECE = 64 * 2**20

# The attribute by which a conditional put knows its own object again (no hyphen: Azure).
_WRITER = "writer"
_CONFLICT = (AlreadyExistsError, PreconditionError)
_download = threading.Lock()


@dataclass(frozen=True, slots=True, init=False)
class RemoteFiles:
    """The objects below one URL; see `embedkit.files.files.Files`.

    An object store shows an object whole or not at all, so nothing is ever unfinished.

    Parameters
    ----------
    url : str
        ``s3://bucket/prefix``, likewise ``gs://`` and ``az://``; or ``memory://name``: all
        of it is the name, nothing below another name, and each process has its own.

    Attributes
    ----------
    url : str
        The same without a trailing slash.

    Raises
    ------
    InputError
        For another scheme, no bucket, a prefix that is no plain path, a plain-http
        endpoint that is neither on this machine nor allowed by ``AWS_ALLOW_HTTP``, and
        settings that obstore refuses.

    Notes
    -----
    Two writers exclude each other by conditional requests (``If-None-Match: *`` and
    ``If-Match`` [1]_). When the answer to one is lost and obstore sends it again, the
    condition fails on the writer's own object; each therefore carries a random token.

    References
    ----------
    .. [1] Fielding, R., Nottingham, M., Reschke, J. (2022). HTTP Semantics. RFC 9110,
       section 13.
    """

    url: str
    failures: ClassVar[tuple[type[Exception], ...]] = (OSError, BaseError)

    def __init__(self, url: str) -> None:
        object.__setattr__(self, "url", normal(url))
        self._store()

    @property
    def shared(self) -> bool:
        """Whether other processes can reach it."""
        return not self.url.startswith("memory://")

    def read(self, name: str) -> bytes:
        """Return the bytes of a file; FileNotFoundError where there is none."""
        with self._readable("read", name):
            return bytes(obstore.get(self._store(), checked(name)).bytes())

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all, for good; what is there is replaced."""
        with self._readable("write", name):
            obstore.put(self._store(), checked(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file as `write` does, unless it exists: then change nothing, False."""
        mine = {_WRITER: uuid.uuid4().hex}
        with self._readable("create", name):
            try:
                obstore.put(
                    self._store(), checked(name), data, mode="create", attributes=mine
                )
            except AlreadyExistsError:
                return self._wrote(name, mine)
        return True

    def replace(self, name: str, old: bytes, new: bytes) -> bool:
        """Write `new` if the file holds `old` at that moment, else return False."""
        mine = {_WRITER: uuid.uuid4().hex}
        with suppress(FileNotFoundError), self._readable("replace", name):
            found = obstore.get(self._store(), checked(name))
            version: UpdateVersion = {"e_tag": found.meta["e_tag"]}
            if found.meta["version"] is not None:
                version["version"] = found.meta["version"]
            if bytes(found.bytes()) != old:
                return False
            try:
                obstore.put(self._store(), name, new, mode=version, attributes=mine)
            except _CONFLICT:
                return self._wrote(name, mine)
            return True
        return False

    def delete(self, name: str) -> None:
        """Delete a file; one that is not there is deleted already."""
        with suppress(FileNotFoundError), self._readable("delete", name):
            obstore.delete(self._store(), checked(name))

    def delete_tree(self, folder: str) -> None:
        """Delete everything below a folder, and it; ``""`` is the place itself."""
        with self._readable("delete", folder):
            # again while it changes something, as some stores fail on an object that
            # another process deleted meanwhile, and a folder's marker may never go
            before: list[str] = []
            while (paths := [each["path"] for each in self._list(folder)]) != before:
                with suppress(FileNotFoundError):
                    obstore.delete(self._store(), paths)
                before = paths

    def names(self, folder: str = "") -> list[str]:
        """Return every finished file below a folder, relative to it, sorted."""
        return sorted(name for name, _ in self._sizes(folder))

    def exists(self, name: str) -> bool:
        """Return whether there is a file, or a folder with something in it."""
        with self._readable("look for", name):
            if checked(name, empty=True):
                with suppress(FileNotFoundError):
                    obstore.head(self._store(), name)
                    return True
            pages = obstore.list(self._store(), name or None, chunk_size=1000)
            # more than the marker by which web consoles show an empty folder
            return any(len(each["path"]) > len(name) for page in pages for each in page)

    def nbytes(self, folder: str = "") -> int:
        """Return the bytes of all files of `names`."""
        return sum(size for _, size in self._sizes(folder))

    def local_copy(self, name: str) -> Path:
        """Return a path in this machine's file system that holds the bytes of a file.

        An object is downloaded once per process to a temporary folder, so its name must
        say its content: it is not looked at again.
        """
        digest = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        path = _downloads(os.getpid()) / digest / checked(name)
        with _download:
            if not path.exists():
                with self._readable("download", name):
                    self._fetch(name, path)
        return path

    def sync(self, *names: str) -> None:
        """Do nothing: an object that can be seen is stored for good."""
        for name in names:
            checked(name)

    def clean(self, folder: str = "") -> int:
        """Return 0: a killed writer leaves nothing that can be seen."""
        checked(folder, empty=True)
        return 0

    def for_zarr(self) -> ObjectStore:
        """Return the obstore store, which ``zarr.storage.ObjectStore`` wraps."""
        return self._store()

    def _store(self) -> ObjectStore:
        return opened(self.url) if self.shared else memory(self.url)

    def _list(self, folder: str) -> list[ObjectMeta]:
        prefix = checked(folder, empty=True) or None
        return list(obstore.list(self._store(), prefix, chunk_size=1000).collect())

    def _sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        with self._readable("list", folder):
            found = self._list(folder)
        start = len(folder) + 1 if folder else 0
        for each in found:
            name = each["path"][start:]
            if name and not any(map(is_hidden, name.split("/"))):
                yield name, each["size"]

    def _wrote(self, name: str, mine: dict[str, str]) -> bool:
        with suppress(FileNotFoundError):
            found = obstore.get(self._store(), name).attributes
            return found.get(_WRITER) == mine[_WRITER]
        return False

    def _size(self, name: str) -> int:
        with suppress(FileNotFoundError):
            return obstore.head(self._store(), name)["size"]
        # the answer to a HEAD has no body to tell a missing bucket from a missing file
        return obstore.get(self._store(), name).meta["size"]

    def _fetch(self, name: str, path: Path) -> None:
        size = self._size(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(path) as (part, file):
            for start in range(0, size, PIECE):
                end = min(start + PIECE, size)
                file.write(obstore.get_range(self._store(), name, start=start, end=end))
            file.flush()
            part.replace(path)

    def _readable(self, doing: str, name: str) -> AbstractContextManager[None]:
        return readable(doing, f"{self.url}/{name}".rstrip("/"))


@lru_cache(maxsize=1)
def _downloads(pid: int) -> Path:
    """Return the folder of the copies of one process, removed when that one ends."""
    folder = Path(tempfile.mkdtemp(prefix="embedkit-"))
    atexit.register(_remove_downloads, folder, pid)
    return folder


def _remove_downloads(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # a forked child ends with its parent's list of things to do
        shutil.rmtree(folder, ignore_errors=True)
