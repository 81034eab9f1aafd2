"""Time during which no other thread can run Python."""

import ctypes
import time

import pytest

from embedkit.extraction.block import ticker
from embedkit.extraction.block.ticker import Ticker, held, idle_share

_HOLDING = ctypes.PyDLL(None).usleep
"""Sleeps without letting go of the interpreter: PyDLL does not."""


def _spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def _begun(found):
    """Wait until it looks."""
    while not found.looks:
        time.sleep(0.001)


def _share_of(work):
    """The share of its time that some work holds the interpreter."""
    idle = idle_share()
    with Ticker() as found:
        _begun(found)
        began = time.perf_counter()
        work()
        seconds = time.perf_counter() - began
    return held(found, idle=idle, seconds=seconds) / seconds


@pytest.mark.parametrize(
    "work",
    [lambda: _HOLDING(20_000), lambda: _spin(0.02)],
    ids=["call", "python"],
)
def test_work_that_holds_the_interpreter_is_found(work):
    """A call that does not let go of it, and Python itself."""
    shares = [_share_of(lambda: [work() for _ in range(15)]) for _ in range(5)]

    assert any(0.5 < share <= 1 for share in shares)  # a busy machine may spoil some


def test_waiting_holds_nothing():
    """Neither does reading a disk, which lets go of the interpreter as sleeping does."""
    shares = [_share_of(lambda: time.sleep(0.2)) for _ in range(5)]

    assert any(share < 0.5 for share in shares)


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
        _begun(found)
        for _ in range(20):  # one may fall between two looks
            _HOLDING(50_000)

    assert found.late >= 1
