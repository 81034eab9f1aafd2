"""Tests of what a process holds of what it read last."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from embedkit.images.held import Held


def _ten() -> np.ndarray:
    return np.zeros(10, np.uint8)


def test_the_oldest_goes_first() -> None:
    """All together stay below the bound; what was asked for last stays longest."""
    held, made = Held(20), []

    def ask(key: str) -> None:
        held.get(key, lambda: made.append(key) or _ten())

    for key in "abacab":
        ask(key)
    assert made == ["a", "b", "c", "b"]


def test_one_is_held_whatever_its_size() -> None:
    """What is larger than the bound is read once nevertheless."""
    held = Held(1)
    first = held.get("a", _ten)
    assert held.get("a", _ten) is first
    held.get("b", _ten)
    assert held.get("a", _ten) is not first


def test_many_threads_make_one() -> None:
    """Whoever comes while a value is made waits for it."""
    held, made = Held(), []
    started = threading.Barrier(8)

    def ask(_: int) -> np.ndarray:
        started.wait()
        return held.get("a", lambda: made.append(1) or _ten())

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert made == [1]
    assert all(each is found[0] for each in found)


def test_one_value_may_need_another() -> None:
    """To make a value, another may be asked for."""
    held = Held()
    assert held.get("a", lambda: held.get("b", _ten)) is held.get("b", _ten)


def test_an_error_is_not_held() -> None:
    """Who asks again tries again."""
    held = Held()
    with pytest.raises(OSError, match="gone"):
        held.get("a", lambda: (_ for _ in ()).throw(OSError("gone")))
    assert held.get("a", _ten).size == 10
    held.clear()
    assert not held._entries
