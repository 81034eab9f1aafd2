"""Keep Pillow's warnings inside the decode that caused them, in any number of threads.

`warnings.catch_warnings` swaps the filters of the whole process, so two threads that
enter and leave it in turn undo each other (before Python 3.14). Here one filter stays
in place for good and decides by thread: its module pattern matches only Pillow's own
modules, and only in a thread that is inside `quiet` at that moment.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from typing import Any, cast


class _WhileDecoding(threading.local):
    """Pattern for the module field of a warning filter; the depth is per thread."""

    depth: int = 0

    def match(self, module: str) -> bool:
        """Tell whether a warning of `module` belongs to a decode in this thread."""
        return self.depth > 0 and module.startswith("PIL.")


_here = _WhileDecoding()
_FILTER = ("ignore", None, Warning, _here, 0)
_lock = threading.Lock()


def _install() -> None:
    """Put the filter in front, where an ``error`` filter cannot overtake it."""
    with _lock:
        filters = cast("list[Any]", warnings.filters)
        if filters and filters[0] is _FILTER:
            return
        if _FILTER in filters:
            filters.remove(_FILTER)
        filters.insert(0, _FILTER)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's warnings in this thread for the length of a ``with`` block."""
    _install()
    _here.depth += 1
    try:
        yield
    finally:
        _here.depth -= 1


# At import too: a `catch_warnings` block that another thread leaves while this one
# decodes then brings back filters that already hold ours.
_install()
