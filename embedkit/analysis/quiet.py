"""Silence one kind of warning of one library, from any number of threads."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_inside: dict[tuple[type[Warning], str], int] = {}


@contextmanager
def quiet(category: type[Warning], message: str = "") -> Iterator[None]:
    """Ignore warnings of `category` while the block runs.

    ``warnings.catch_warnings`` saves and restores the filters of the whole process, so
    that two Dask threads inside of it restore each other's state. Here the first thread
    to enter adds one filter and the last to leave removes it; no other filter changes.

    Parameters
    ----------
    category : type of Warning
        What to ignore.
    message : str, optional
        Regular expression that the start of the message matches; any by default.

    Yields
    ------
    None
    """
    key = (category, message)
    with _lock:
        _inside[key] = _inside.get(key, 0) + 1
        if _inside[key] == 1:
            warnings.filterwarnings("ignore", category=category, message=message)
    try:
        yield
    finally:
        with _lock:
            _inside[key] -= 1
            if not _inside[key]:
                del _inside[key]
                _remove(category, message)


def _remove(category: type[Warning], message: str) -> None:
    """Take out the filter that `quiet` put in, if nobody else has done so."""
    for entry in warnings.filters:
        pattern = getattr(entry[1], "pattern", entry[1]) or ""
        if (entry[0], pattern, entry[2]) == ("ignore", message, category):
            warnings.filters.remove(entry)  # type: ignore[attr-defined]
            return
