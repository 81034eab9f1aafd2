"""What was read last, held by each process up to a number of bytes.

Images that lie side by side in a row group or a chunk are read together, so that it is
decompressed once and not once an image.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Hashable
from typing import Any, Final

HELD_BYTES: Final = 256 * 2**20
"""Row groups and chunks are held by each process up to this many bytes together; the one
that was read last is held whatever its size (chosen: two row groups as is usual)."""


class _Entry:
    """One thing held; whoever locks it first reads it."""

    __slots__ = ("lock", "value")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.value: Any = None

    @property
    def nbytes(self) -> int:
        return 0 if self.value is None else int(self.value.nbytes)


class Held:
    """The values that were asked for last; any thread may ask.

    Parameters
    ----------
    limit : int
        Bytes of all values together, but for the last one.
    """

    def __init__(self, limit: int = HELD_BYTES) -> None:
        self.limit = limit
        self._entries: collections.OrderedDict[Hashable, _Entry] = (
            collections.OrderedDict()
        )
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return what `make` gave for a key, and ask it if nothing is held.

        Parameters
        ----------
        key : hashable
            Has to change with the value.
        make : function
            Returns something that has ``nbytes``. It is called by one thread for a key;
            the others wait. What it raises goes to each that asks, and is not held.
        """
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
        # Not under the lock of all: to make one value may take another.
        with entry.lock:
            if entry.value is None:
                try:
                    entry.value = make()
                except BaseException:
                    self._drop(key)
                    raise
                self._trim()
            return entry.value

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._entries.clear()

    def _drop(self, key: Hashable) -> None:
        with self._lock:
            self._entries.pop(key, None)

    def _trim(self) -> None:
        """Let go of the oldest, as long as all are too large together."""
        with self._lock:
            total = sum(entry.nbytes for entry in self._entries.values())
            while total > self.limit and len(self._entries) > 1:
                total -= self._entries.popitem(last=False)[1].nbytes


HELD: Final = Held()
"""What this process holds."""
