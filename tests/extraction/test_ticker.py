"""Time during which no other thread can run Python."""

import ctypes
import time

import pytest

from embedkit.extraction import ticker
from embedkit.extraction.ticker import Ticker, held, idle_share

_HOLDING = ctypes.PyDLL(None).usleep
"""Sleeps without letting go of the interpreter: PyDLL does not."""


def _spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@pytest.mark.parametrize(
    "work",
    [lambda: _HOLDING(20_000), lambda: _spin(0.02)],
    ids=["call", "python"],
)
def test_work_that_holds_the_interpreter_is_found(work):
    """A call that does not let go of it, and Python itself."""
    idle = idle_share()
    with Ticker() as found:
        began = time.perf_counter()
        for _ in range(15):
            work()
        seconds = time.perf_counter() - began

    assert 0.5 * seconds < held(found, idle=idle, seconds=seconds) <= seconds


def test_waiting_holds_nothing():
    """Neither does reading a disk, which lets go of the interpreter as sleeping does."""
    idle = idle_share()
    with Ticker() as found:
        time.sleep(0.3)

    assert found.looks > 10
    assert held(found, idle=idle, seconds=0.3) < 0.15


@pytest.mark.parametrize(
    ("late", "idle", "expected"), [(3, 0.0, 1.2), (2, 0.2, 0.5), (1, 0.6, 0.0)]
)
def test_what_is_late_in_an_idle_process_does_not_count(late, idle, expected):
    """Of five looks, over two seconds."""
    found = Ticker()
    found.looks, found.late = 5, late

    assert held(found, idle=idle, seconds=2.0) == pytest.approx(expected)


def test_a_system_that_does_not_tell_of_waiting_is_taken_at_its_word(
    monkeypatch, tmp_path
):
    """All of a delay counts then."""
    monkeypatch.setattr(ticker, "_WAITED", tmp_path / "none")

    with Ticker() as found:
        _HOLDING(100_000)

    assert found.late >= 1
