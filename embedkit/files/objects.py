"""Single files at URLs: objects of object stores, and files of web servers."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import obstore

from embedkit.errors import InputError
from embedkit.files.connect import (
    memory,
    memory_above,
    opened,
    opened_http,
    readable,
    settings,
)
from embedkit.files.names import is_hidden
from embedkit.files.places import Place, host_of, is_http, place_of
from embedkit.files.urls import endpoint

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

REMEMBERED: Final = 30.0
"""Seconds for which a server that could not be reached is not tried again (chosen: three
times what it takes to find out)."""

_Key = tuple[str, tuple[tuple[str, str], ...]]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_CONNECTION: Final = re.compile(r"kind: Connect\b|Connect,\s*TimedOut")
_dead: dict[_Key, tuple[float, str]] = {}


class Found(NamedTuple):
    """What a server says of a file without sending it.

    Attributes
    ----------
    url : str
        Where it is.
    size : int
        Bytes.
    mtime : int
        Last modification, nanoseconds since 1970-01-01 UTC, as exact as the server is.
    """

    url: str
    size: int
    mtime: int


def read_object(url: str, *, limit: float = float("inf")) -> bytes:
    """Return the bytes of the file at a URL.

    Parameters
    ----------
    url : str
        See `place_of`.
    limit : float, default infinity
        The most bytes that are taken; of more than these none is downloaded.

    Raises
    ------
    FileNotFoundError, PermissionError
        Where the server says so.
    OSError
        When it cannot be fetched or is too large, with the reason in one line. A server
        that could not be connected to is not tried again for `REMEMBERED` seconds.
    InputError
        See `place_of`.
    """
    place = place_of(url)
    with _reached("fetch", url):
        found = obstore.get(_store(place), _name(place))
        if found.meta["size"] > limit:
            raise OSError(
                errno.EFBIG,
                f"it has {found.meta['size']:,} bytes, and at most {limit:,} are taken",
                url,
            )
        return bytes(found.bytes())


def find_object(url: str) -> Found | None:
    """Return what an object store says of one object; None where there is none.

    Raises
    ------
    OSError, InputError
        See `read_object`.
    """
    place = place_of(url)
    with _reached("look for", url):
        try:
            return _found(_root(place), obstore.head(_store(place), _name(place)))
        except FileNotFoundError:
            return None


def list_objects(url: str, *, at_most: float = float("inf")) -> list[Found] | None:
    """Return the objects below a prefix of an object store.

    Parameters
    ----------
    url : str
        ``s3://bucket`` or ``s3://bucket/prefix``; the prefix ends with a part of a name.
    at_most : float, default infinity
        How many objects it may take; they are listed a thousand at a request.

    Returns
    -------
    list of Found, or None
        Sorted by URL; None where there are more. Empty where there is no such prefix.

    Raises
    ------
    OSError, InputError
        See `read_object`; for a web server too, since none can be listed.
    """
    place = place_of(url)
    if is_http(url):
        raise InputError(f"{url!r} is on a web server, which cannot list its files")
    found: list[Found] = []
    with _reached("list", url):
        name = _name(place) or None
        for page in obstore.list(_store(place), name, chunk_size=1000):
            found += (_found(_root(place), each) for each in page)
            if len(found) > at_most:
                return None
    # neither the marker by which web consoles show a folder, nor machinery of ours
    inside = [each for each in found if each.url != url.rstrip("/")]
    return sorted(each for each in inside if not is_hidden(each.url.rpartition("/")[2]))


def _store(place: Place) -> ObjectStore:
    if is_http(place.root):
        return opened_http(place.root)
    if not place.root.startswith("memory://"):
        return opened(place.root)
    return memory(_root(place))


def _root(place: Place) -> str:
    """Return the URL that the name that is asked for starts below."""
    if not place.root.startswith("memory://"):
        return place.root
    url = f"{place.root}/{place.name}".rstrip("/")
    above = memory_above(url)
    if above is None:
        raise OSError(
            errno.ENXIO,
            "nothing was written to this memory:// by this process, and each has its own: "
            "use files or an object store where several processes work",
            url,
        )
    return above


def _name(place: Place) -> str:
    """Return the name that is asked for in `_store`."""
    whole = f"{place.root}/{place.name}" if place.name else place.root
    root = _root(place)
    return whole[len(root) + 1 :]


def _found(root: str, meta: ObjectMeta) -> Found:
    age = meta["last_modified"] - _EPOCH
    nanoseconds = age // timedelta(microseconds=1) * 1000
    return Found(f"{root}/{meta['path']}", meta["size"], nanoseconds)


@contextmanager
def _reached(doing: str, url: str) -> Iterator[None]:
    """Raise one line for what fails; at once where the server was away just now."""
    root = host_of(url)
    key = (root, settings())
    until, why = _dead.get(key, (0.0, ""))
    if time.monotonic() < until:
        raise OSError(errno.EIO, why, url)
    try:
        with readable(doing, url):
            yield
    except OSError as error:
        if _NO_CONNECTION.search(str(error.__cause__)) is None:
            raise
        server = endpoint(root, dict(settings()))
        said = str(error.strerror).rpartition(" it: ")[2]
        why = f"cannot connect to {server}: {said}"
        _dead[key] = (time.monotonic() + REMEMBERED, why)
        raise OSError(errno.EIO, why, url) from error
