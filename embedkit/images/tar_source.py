"""Images inside uncompressed tar files, read by their place without the rest.

The uri of a member is ``tar:<absolute path>#<offset>+<size>/<member name>``: where its
bytes begin in the file and how many there are, both in bytes. In the path ``%`` and
``#`` are written ``%25`` and ``%23``. The name is there for people. Instead of a size
stands ``sparse`` for a member with holes, and ``damaged`` where no more is readable.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias, cast

from embedkit.errors import SourceError
from embedkit.images.source import EncodedSource
from embedkit.images.uris import escaped, unescaped

Extent: TypeAlias = int | Literal["sparse", "damaged"]
"""Bytes of a member, or why they cannot be read."""

_URI: Final = re.compile(r"tar:([^#]+)#(\d+)\+(\d+|sparse|damaged)/(.*)", re.DOTALL)


class TarPlace(NamedTuple):
    """Where a member of a tar file is.

    Attributes
    ----------
    path : str
        The tar file, absolute.
    offset : int
        Where the bytes of the member begin in it.
    extent : int, "sparse" or "damaged"
        How many there are.
    name : str
        What the member is called.
    """

    path: str
    offset: int
    extent: Extent
    name: str


@dataclass(frozen=True, slots=True)
class TarSource(EncodedSource):
    """Members of tar files; the uri says where in which file."""

    def fetch(self, uri: str) -> bytes:
        """Return the bytes of a member, or raise `SourceError` with the reason."""
        place = tar_place(uri)
        if place is None:
            raise SourceError(f"no member of a tar file is called {uri!r}")
        if place.extent == "sparse":
            raise SourceError("it is stored with holes (a sparse file); pack it again")
        if isinstance(place.extent, str):
            raise SourceError(
                f"the tar file is cut off or damaged from byte {place.offset:,} on; what was "
                "there is lost: copy it again"
            )
        return _part(place.path, place.offset, place.extent)


def tar_uri(place: TarPlace) -> str:
    """Return the uri of a member of a tar file.

    Examples
    --------
    >>> tar_uri(TarPlace("/data/a.tar", 512, 2048, "cat/1.jpg"))
    'tar:/data/a.tar#512+2048/cat/1.jpg'
    """
    return f"tar:{escaped(place.path)}#{place.offset}+{place.extent}/{place.name}"


def tar_place(uri: str) -> TarPlace | None:
    """Return what a uri of `tar_uri` says; None for any other.

    Examples
    --------
    >>> tar_place("tar:/data/a%23b.tar#512+2048/cat/1.jpg")
    TarPlace(path='/data/a#b.tar', offset=512, extent=2048, name='cat/1.jpg')
    """
    found = _URI.fullmatch(uri)
    if found is None:
        return None
    path, offset, extent, name = found.groups()
    known = int(extent) if extent.isdecimal() else cast("Extent", extent)
    return TarPlace(unescaped(path), int(offset), known, name)


def _part(path: str, offset: int, size: int) -> bytes:
    """Return a part of a file, or raise `SourceError` with the reason."""
    try:
        with Path(path).open("rb") as file:
            # Before any memory is asked for: a damaged header can claim any size.
            if offset + size <= os.fstat(file.fileno()).st_size:
                file.seek(offset)
                return file.read(size)
    except (OSError, ValueError, MemoryError) as error:
        raise SourceError(f"the tar file cannot be read ({error})") from error
    raise SourceError("the tar file ends within it: it is truncated")
