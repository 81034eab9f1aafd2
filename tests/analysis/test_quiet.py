"""Warnings silenced for one kind, from many threads."""

from __future__ import annotations

import threading
import warnings

import pytest

from embedkit.analysis.quiet import quiet


def test_only_the_kind_that_was_named() -> None:
    """Inside, one kind is ignored and others are not; outside, none is."""
    with quiet(RuntimeWarning, "known"):
        warnings.warn("known trouble", RuntimeWarning, stacklevel=1)
        with pytest.warns(RuntimeWarning, match="new"):
            warnings.warn("new trouble", RuntimeWarning, stacklevel=1)
        with pytest.warns(UserWarning, match="known"):
            warnings.warn("known trouble", UserWarning, stacklevel=1)
    with pytest.warns(RuntimeWarning, match="known"):
        warnings.warn("known trouble", RuntimeWarning, stacklevel=1)


def test_filters_are_left_as_they_were() -> None:
    """Nested or failing, the list of filters is restored."""
    before = list(warnings.filters)
    with (
        pytest.raises(ValueError, match="boom"),
        quiet(UserWarning),
        quiet(UserWarning),
    ):
        raise ValueError("boom")
    assert list(warnings.filters) == before


def test_threads_do_not_end_each_others_silence() -> None:
    """A thread that leaves early does not expose one that is still inside."""
    before = list(warnings.filters)
    entered, left = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def stay() -> None:
        try:
            with quiet(UserWarning):
                entered.set()
                left.wait(10)
                warnings.warn("late", UserWarning, stacklevel=1)
        except UserWarning as warning:
            failures.append(warning)

    thread = threading.Thread(target=stay)
    with quiet(UserWarning):
        thread.start()
        entered.wait(10)
    left.set()
    thread.join()
    assert failures == []
    assert list(warnings.filters) == before


def test_a_filter_that_is_gone_is_not_missed() -> None:
    """Whoever resets the filters in between does no harm."""
    with warnings.catch_warnings():
        with quiet(UserWarning):
            warnings.resetwarnings()
        assert warnings.filters == []
