"""Warnings silenced by kind and by thread."""

from __future__ import annotations

import pickle
import re
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from sklearn.utils.parallel import Parallel, delayed

from embedkit.quiet import Silence, quiet


def _warn(
    module: str, category: type[Warning] = UserWarning, text: str = "odd"
) -> None:
    warnings.warn_explicit(text, category, "file.py", 1, module=module)


def _warn_of_pillow() -> None:
    _warn("PIL.Image")


def _ours() -> list[object]:
    return [each for each in warnings.filters if hasattr(each[3], "depth")]


@pytest.fixture
def pillow() -> Silence:
    """Every warning of Pillow, as the decoder silences them."""
    return quiet(module=r"PIL\.")


def test_the_named_kind_is_silent_inside(pillow: Silence) -> None:
    """A warning of the kind goes nowhere, even where warnings raise."""
    with pillow:
        _warn("PIL.TiffImagePlugin")


def test_the_named_kind_is_heard_outside(pillow: Silence) -> None:
    """The same warning after the block is raised as the filters say."""
    with pillow:
        pass
    with pytest.raises(UserWarning, match="odd"):
        _warn("PIL.TiffImagePlugin")


@pytest.mark.parametrize("module", ["PILLOW", "numpy", "embedkit.images.decode"])
def test_other_modules_are_heard_inside(pillow: Silence, module: str) -> None:
    """Warnings of other modules pass."""
    with pillow, pytest.raises(UserWarning, match="odd"):
        _warn(module)


def test_category_and_message_narrow_the_kind() -> None:
    """Another category or message passes; the case of the message does not matter."""
    with quiet(RuntimeWarning, message="known"):
        _warn("any", RuntimeWarning, "Known trouble")
        with pytest.raises(RuntimeWarning, match="new"):
            _warn("any", RuntimeWarning, "new trouble")
        with pytest.raises(UserWarning, match="known"):
            _warn("any", UserWarning, "known trouble")


def test_nested_blocks_stay_quiet_until_the_last_ends(pillow: Silence) -> None:
    """Leaving an inner block does not end the outer one."""
    with pillow:
        with pillow:
            _warn_of_pillow()
        _warn_of_pillow()


def test_an_error_inside_ends_the_silence(pillow: Silence) -> None:
    """The block is left cleanly by an exception."""
    with pytest.raises(ZeroDivisionError), pillow:
        _ = 1 // 0
    with pytest.raises(UserWarning, match="odd"):
        _warn_of_pillow()


def test_another_thread_is_not_silenced(pillow: Silence) -> None:
    """Only the thread inside the block is quiet."""
    inside, done = threading.Event(), threading.Event()

    def decode() -> None:
        with pillow:
            inside.set()
            done.wait(10)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(decode)
        try:
            assert inside.wait(10)
            with pytest.raises(UserWarning, match="odd"):
                _warn_of_pillow()
        finally:
            done.set()
        future.result()


def test_a_thread_that_leaves_early_does_not_expose_others(pillow: Silence) -> None:
    """Blocks of two threads that overlap are independent."""
    entered, left = threading.Event(), threading.Event()

    def stay() -> None:
        with pillow:
            entered.set()
            left.wait(10)
            _warn_of_pillow()

    with ThreadPoolExecutor(1) as pool:
        with pillow:
            future = pool.submit(stay)
            assert entered.wait(10)
        left.set()
        future.result()


def test_an_identical_filter_of_the_user_stays() -> None:
    """Leaving the block takes nothing out that somebody else put in."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)
        mine = warnings.filters[0]
        with quiet(UserWarning):
            _warn("any")
        assert sum(each is mine for each in warnings.filters) == 1
        _warn("any")


def test_another_thread_that_leaves_catch_warnings_does_not_end_it() -> None:
    """The silence was made first, so the filters that come back hold it."""
    silence = quiet(UserWarning, module="left_by_another")
    with warnings.catch_warnings(), ThreadPoolExecutor(1) as pool:
        swapped, entered = threading.Event(), threading.Event()

        def swap() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                swapped.set()
                entered.wait(10)

        future = pool.submit(swap)
        assert swapped.wait(10)
        with silence:
            entered.set()
            future.result()
            _warn("left_by_another")


def test_filters_added_later_do_not_overtake(pillow: Silence) -> None:
    """The filter is put in front again, and there is only ever one of a kind."""
    with warnings.catch_warnings():
        with pillow:
            pass
        before = len(_ours())
        warnings.simplefilter("error")
        for _ in range(3):
            with pillow:
                _warn("PIL.Image", DeprecationWarning)
        assert len(_ours()) == before
    with pillow:
        _warn_of_pillow()
    assert len(_ours()) == before


def test_kinds_do_not_push_each_other_back(pillow: Silence) -> None:
    """Two kinds entered in turn leave the list of filters alone."""
    with pillow, quiet(UserWarning):
        before = list(warnings.filters)
    for _ in range(3):
        with pillow, quiet(UserWarning):
            assert list(warnings.filters) == before


def test_a_kind_has_one_silence() -> None:
    """Asking again adds no filter."""
    first = quiet(UserWarning, module="asked_twice")
    before = len(warnings.filters)
    assert quiet(UserWarning, module="asked_twice") is first
    assert len(warnings.filters) == before


def test_filters_wiped_out_are_brought_back(pillow: Silence) -> None:
    """Resetting all filters does not lose the silence of later blocks."""
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("error")
        with pillow:
            _warn_of_pillow()


def test_filters_can_be_pickled(pillow: Silence) -> None:
    """A copy is an ordinary expression: as deaf as the thread that was asked."""
    with pillow:
        inside = pickle.loads(pickle.dumps(warnings.filters[0]))[3]
    outside = pickle.loads(pickle.dumps(_ours()))
    assert inside == re.compile(r"PIL\.")
    assert not any(each[3].match("PIL.Image") for each in outside)  # type: ignore[index]


def test_filters_that_sklearn_hands_to_its_workers(pillow: Silence) -> None:
    """It reads their patterns; workers of a quiet thread are quiet, others are not."""
    with pillow:
        Parallel()([delayed(_warn_of_pillow)()])
    with pytest.raises(UserWarning, match="odd"):
        Parallel()([delayed(_warn_of_pillow)()])


def test_threads_that_swap_filters_do_not_break_it(pillow: Silence) -> None:
    """Blocks of `catch_warnings` in one thread never let a warning out of another."""
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            with warnings.catch_warnings():
                pass

    def decode() -> int:
        for _ in range(300):
            with pillow:
                _warn_of_pillow()
        return 300

    with pillow, ThreadPoolExecutor(4) as pool:
        swapping = pool.submit(swap)
        counts = [pool.submit(decode) for _ in range(3)]
        try:
            assert [each.result() for each in counts] == [300, 300, 300]
        finally:
            stop.set()
        swapping.result()
