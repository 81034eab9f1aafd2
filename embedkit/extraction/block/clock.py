"""Seconds by stage, of a task and of the threads that work ahead of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from embedkit.planning.stages import IN_TURN


class Clock:
    """Adds up the time that a block spends in each stage, by pass.

    It runs from when it is made. One thread calls `lap`; any thread may use `aside`.
    """

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], float] = {}
        self._since = time.perf_counter()
        self._adding = threading.Lock()

    def lap(self, stage: str, owner: str, *, pool: float = 0.0) -> None:
        """Add the time since the last lap to a stage of the task, on account of a pass.

        Seconds of it that went into pooling count as the stage ``pool``.
        """
        now = time.perf_counter()
        self._add((owner, stage), now - self._since - pool)
        if stage == "forward":
            self._add((owner, "pool"), pool)
        self._since = now

    @contextmanager
    def aside(self, stage: str, owner: str) -> Iterator[None]:
        """Add the time that the body takes to a stage that runs beside the task."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._add((owner, stage), time.perf_counter() - began)

    def seconds(self, owner: str) -> dict[str, float]:
        """Return them by stage, for one pass, and ``total`` of the task's own stages."""
        with self._adding:
            everything = dict(self._seconds)
        found = {
            stage: value for (by, stage), value in everything.items() if by == owner
        }
        return {**found, "total": sum(found.get(stage, 0.0) for stage in IN_TURN)}

    def _add(self, entry: tuple[str, str], seconds: float) -> None:
        with self._adding:
            self._seconds[entry] = self._seconds.get(entry, 0.0) + seconds
