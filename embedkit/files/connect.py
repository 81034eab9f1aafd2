"""Connections to object stores and web servers, and what their errors come to."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import HTTPStore, MemoryStore, from_url

from embedkit.errors import InputError
from embedkit.files.reasons import reason
from embedkit.files.urls import plain_http

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

# A dead endpoint is told within about CONNECT + RETRY = 10 s; a server that restarts or
# throttles is asked again for as long.
CONNECT = timedelta(seconds=3)
RETRY = timedelta(seconds=7)
LONGEST_PAUSE = timedelta(seconds=2)
# An answer may come late, since sending counts: twelve parts of 5 MB share one slow line.
ANSWER = timedelta(seconds=120)
# Nothing is sent to a web server: one that says nothing for so long has hung up.
SILENCE = timedelta(seconds=30)
# One request, its body included: 1 GB at 3.5 MB/s.
REQUEST = timedelta(seconds=300)

_DENIED = (PermissionDeniedError, UnauthenticatedError)
_memories: dict[str, ObjectStore] = {}


def opened(url: str) -> ObjectStore:
    """Return the object store at a URL, as the environment describes it.

    Parameters
    ----------
    url : str
        As `embedkit.files.urls.normal` returns it; not ``memory://``.

    Returns
    -------
    obstore.store.ObjectStore
        Made once for one environment. Nothing is asked of it.

    Raises
    ------
    InputError
        For a plain-http endpoint that is not allowed, and settings that obstore refuses.
    """
    return _open(url, settings())


@lru_cache(maxsize=64)
def opened_http(base: str) -> ObjectStore:
    """Return a web server, or one file on it whose name is ``""``; it is only read.

    Parameters
    ----------
    base : str
        ``https://host``, or the whole URL of a file.

    Returns
    -------
    obstore.store.HTTPStore
        It keeps its connections open. Nothing is asked of it.

    Raises
    ------
    InputError
        For what is no URL.
    """
    # nothing is sent that could be overheard: what a web server shows, it shows to all
    client: ClientConfig = {"allow_http": True, "user_agent": "embedkit"}
    try:
        return HTTPStore(
            base,
            client_options=client | _patience() | {"read_timeout": SILENCE},
            retry_config=_retries(),
        )
    except (BaseError, ValueError) as error:
        raise InputError(
            f"cannot use {base!r}: {reason(str(error))}; check the URL"
        ) from error


def memory(url: str) -> ObjectStore:
    """Return the store of this process under one whole ``memory://`` URL."""
    return _memories.setdefault(url, MemoryStore())


def memory_above(url: str) -> str | None:
    """Return the longest ``memory://`` URL of a store that `url` is in, or is.

    Parameters
    ----------
    url : str
        Without a trailing slash.

    Returns
    -------
    str or None
        None where this process has written to no such store.
    """
    while url not in _memories:
        url, slash, _ = url.rpartition("/")
        if not slash:
            return None
    return url


def settings() -> tuple[tuple[str, str], ...]:
    """Return the environment variables that object stores are described by, sorted."""
    given = ("AWS_", "GOOGLE_", "AZURE_")
    return tuple(
        sorted(each for each in os.environ.items() if each[0].startswith(given))
    )


@contextmanager
def readable(doing: str, place: str) -> Iterator[None]:
    """Raise what obstore raises as an OSError of one line.

    Parameters
    ----------
    doing : str
        A verb: what cannot be done to `place`.
    place : str
        The URL of a file or folder.

    Raises
    ------
    FileNotFoundError
        For a missing file; a missing bucket is another OSError.
    PermissionError
        Where the server says so.
    """
    try:
        yield
    except (FileNotFoundError, BaseError) as error:
        raise _as_os_error(error, doing=doing, place=place) from error


def _patience() -> ClientConfig:
    return {"connect_timeout": CONNECT, "read_timeout": ANSWER, "timeout": REQUEST}


def _retries() -> RetryConfig:
    return {
        "retry_timeout": RETRY,
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": LONGEST_PAUSE,
            "base": 2,
        },
    }


@lru_cache(maxsize=64)
def _open(url: str, settings: tuple[tuple[str, str], ...]) -> ObjectStore:
    """Return the store at `url`, made once for one environment; asks nothing of it."""
    client = _patience()
    if url.startswith("s3") and plain_http(dict(settings)):
        client["allow_http"] = True
    try:
        return from_url(url, client_options=client, retry_config=_retries())
    except (BaseError, ValueError) as error:
        raise InputError(
            f"cannot use {url!r}: {reason(str(error))}; check it and the environment variables of "
            "its object store"
        ) from error


def _as_os_error(error: Exception, *, doing: str, place: str) -> OSError:
    missing = isinstance(error, FileNotFoundError)
    if missing and "NoSuchBucket" not in str(error):
        return FileNotFoundError(errno.ENOENT, "no such file", place)
    # a missing bucket is no missing file: nobody may take it for an empty place
    number = errno.EACCES if isinstance(error, _DENIED) else errno.EIO
    return OSError(number, f"cannot {doing} it: {reason(str(error))}", place)
