"""Paths inside uris that go on behind them."""

from __future__ import annotations


def escaped(path: str) -> str:
    """Return a path without ``#``, for a uri that goes on behind it.

    Examples
    --------
    >>> escaped("/data/a#b.tar")
    '/data/a%23b.tar'
    """
    return path.replace("%", "%25").replace("#", "%23")


def unescaped(path: str) -> str:
    """Return the path that `escaped` was given.

    Examples
    --------
    >>> unescaped("/data/a%23b.tar")
    '/data/a#b.tar'
    """
    return path.replace("%23", "#").replace("%25", "%")
