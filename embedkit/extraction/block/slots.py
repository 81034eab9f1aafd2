"""How many blocks a process computes at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_TURN = threading.Condition()
_running: list[int] = []
"""Thread identifiers of the tasks that compute now; changed under `_TURN`."""


@contextmanager
def a_slot(slots: int) -> Iterator[None]:
    """Wait until fewer than so many blocks are computed in this process, then be one.

    A plan says how many blocks of a worker fit into its memory. Workers may have more
    threads than that; the others wait here, where they hold nothing yet.

    Parameters
    ----------
    slots : int
        Most at once, this one included; 0 for no limit, but it counts for the others.
    """
    me = threading.get_ident()
    with _TURN:
        _TURN.wait_for(lambda: slots == 0 or len(_running) < slots)
        _running.append(me)
    try:
        yield
    finally:
        with _TURN:
            _running.remove(me)
            _TURN.notify_all()
