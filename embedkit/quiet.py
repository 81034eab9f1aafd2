"""Silence one kind of warning in one thread, whatever other threads do.

`warnings.catch_warnings` swaps the filters of the whole process, so two threads that
enter and leave it in turn undo each other (before Python 3.14). Here one filter for each
kind stays in place for good and decides by thread: its pattern matches only in a thread
that is inside of a ``with`` block of that kind at that moment. The filters of others are
never taken out.
"""

from __future__ import annotations

import re
import threading
import warnings
from itertools import takewhile
from types import TracebackType
from typing import Any, TypeAlias, cast

Kind: TypeAlias = tuple[type[Warning], str, str]
Entry: TypeAlias = tuple[Any, ...]  # of `warnings.filters`, as `warnings` lays it out

_NOTHING = "(?!)"  # a regular expression that matches no text

_lock = threading.RLock()


class _Depth(threading.local):
    """How many blocks of one kind this thread is inside of."""

    value: int = 0


class _Pattern:
    """What a filter asks whether the module of a warning is meant.

    Other libraries read and copy filters (scikit-learn passes those of the caller to its
    workers), so this answers to ``pattern`` and pickles like a regular expression, as
    far as the thread that asks is concerned.
    """

    __slots__ = ("depth", "regex")

    def __init__(self, depth: _Depth, regex: re.Pattern[str]) -> None:
        self.depth = depth
        self.regex = regex

    def match(self, module: str) -> re.Match[str] | None:
        """Match only inside of a block in this thread."""
        return self.regex.match(module) if self.depth.value else None

    @property
    def pattern(self) -> str:
        """The expression that matches what `match` does in this thread."""
        return self.regex.pattern if self.depth.value else _NOTHING

    def __reduce__(self) -> tuple[Any, ...]:
        return re.compile, (self.pattern,)


class Silence:
    """A context manager that any number of threads may enter, also one within another.

    Made by `quiet`, best when a module is imported: a block of `catch_warnings` that
    another thread leaves later then brings back filters that already hold this one.
    """

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._depth = _Depth()
        self._install()

    def __enter__(self) -> None:
        self._install()
        self._depth.value += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._depth.value -= 1

    def _install(self) -> None:
        """Put the filter before all foreign ones, where ``error`` cannot overtake it."""
        with _lock:
            filters = cast("list[Entry]", warnings.filters)
            if any(map(self._is_mine, takewhile(_is_ours, filters))):
                return
            stale = [entry for entry in filters if self._is_mine(entry)]
            # The new one first: another thread may be inside of a block right now.
            filters.insert(0, self._entry())
            for entry in stale:  # unequal to the new one, by its pattern
                filters.remove(entry)

    def _entry(self) -> Entry:
        category, message, module = self._kind
        text = re.compile(message, re.IGNORECASE) if message else None
        return "ignore", text, category, _Pattern(self._depth, re.compile(module)), 0

    def _is_mine(self, entry: Entry) -> bool:
        return _is_ours(entry) and entry[3].depth is self._depth


def _is_ours(entry: Entry) -> bool:
    return isinstance(entry[3], _Pattern)


_known: dict[Kind, Silence] = {}


def quiet(
    category: type[Warning] = Warning, *, message: str = "", module: str = ""
) -> Silence:
    r"""Return what silences one kind of warning in this thread, in a ``with`` block.

    Parameters
    ----------
    category : type of Warning, default Warning
        What to ignore, with its subclasses.
    message : str, optional
        Regular expression that the start of the message matches, in any case.
    module : str, optional
        Regular expression that the start of the name of the warning module matches.

    Returns
    -------
    Silence
        The same for the same kind, so that the filters of the process do not pile up.

    Examples
    --------
    >>> with quiet(UserWarning, message="known"):
    ...     warnings.warn("known trouble", stacklevel=1)
    """
    kind = category, message, module
    with _lock:
        if kind not in _known:
            _known[kind] = Silence(kind)
        return _known[kind]
