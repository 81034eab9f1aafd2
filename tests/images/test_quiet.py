"""Tests of silencing Pillow's warnings by thread."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from embedkit.images.quiet import quiet


def _warn(module: str, category: type[Warning] = UserWarning) -> None:
    warnings.warn_explicit("odd", category, "file.py", 1, module=module)


def test_pillow_is_silent_inside() -> None:
    """A warning of Pillow inside the block goes nowhere, even where warnings raise."""
    with quiet():
        _warn("PIL.TiffImagePlugin")


def test_pillow_is_heard_outside() -> None:
    """The same warning after the block is raised as the filters say."""
    with quiet():
        pass
    with pytest.raises(UserWarning, match="odd"):
        _warn("PIL.TiffImagePlugin")


@pytest.mark.parametrize("module", ["PILLOW", "numpy", "embedkit.images.decode"])
def test_others_are_heard_inside(module: str) -> None:
    """Warnings of other modules pass."""
    with quiet(), pytest.raises(UserWarning, match="odd"):
        _warn(module)


def test_nested_blocks_stay_quiet_until_the_last_ends() -> None:
    """Leaving an inner block does not end the outer one."""
    with quiet():
        with quiet():
            _warn("PIL.Image")
        _warn("PIL.Image")


def test_an_error_inside_ends_the_silence() -> None:
    """The block is left cleanly by an exception."""
    with pytest.raises(ZeroDivisionError), quiet():
        _ = 1 // 0
    with pytest.raises(UserWarning, match="odd"):
        _warn("PIL.Image")


def test_another_thread_is_not_silenced() -> None:
    """Only the thread inside the block is quiet."""
    inside, done = threading.Event(), threading.Event()

    def decode() -> None:
        with quiet():
            inside.set()
            done.wait(10)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(decode)
        assert inside.wait(10)
        with pytest.raises(UserWarning, match="odd"):
            _warn("PIL.Image")
        done.set()
        future.result()


def test_filters_added_later_do_not_overtake() -> None:
    """The filter is put in front again, and there is only ever one."""
    with warnings.catch_warnings():
        with quiet():
            pass
        warnings.simplefilter("error")
        with quiet():
            _warn("PIL.Image", DeprecationWarning)
        mine = [each for each in warnings.filters if hasattr(each[3], "depth")]
    assert len(mine) == 1


def test_filters_wiped_out_are_brought_back() -> None:
    """Resetting all filters does not lose the silence of later blocks."""
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("error")
        with quiet():
            _warn("PIL.Image")


def test_threads_that_swap_filters_do_not_break_it() -> None:
    """Blocks of `catch_warnings` in one thread never let a warning out of another."""
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            with warnings.catch_warnings():
                pass

    def decode() -> int:
        for _ in range(300):
            with quiet():
                _warn("PIL.Image")
        return 300

    with quiet(), ThreadPoolExecutor(4) as pool:
        swapping = pool.submit(swap)
        counts = [pool.submit(decode) for _ in range(3)]
        try:
            assert [each.result() for each in counts] == [300, 300, 300]
        finally:
            stop.set()
        swapping.result()
