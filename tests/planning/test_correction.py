"""What finished runs say of the next plan."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.planning.correction import AGREEING, LAST, Ratio, correction_of

numbers = st.floats(0.01, 100)
runs = st.lists(st.builds(Ratio, numbers, numbers), max_size=20)


def _memory(*ratios):
    return correction_of([Ratio(each, 1.0) for each in ratios])[0]


def test_without_runs_nothing_is_corrected():
    """A first plan stands as it was projected."""
    assert correction_of([]) == (1.0, 1.0)


@given(runs)
def test_factors_stay_within_their_bounds(ratios):
    """Whatever was measured."""
    memory, time = correction_of(ratios)

    assert 0.8 <= memory <= 2.0
    assert 0.8 <= time <= 2.0


@given(runs)
def test_memory_is_never_below_what_one_of_the_last_runs_needed(ratios):
    """But for the upper bound: beyond it the measurement is wrong."""
    memory, _ = correction_of(ratios)

    assert all(memory >= min(each.memory, 2.0) for each in ratios[-LAST:])


@given(st.lists(st.floats(0.1, 0.999), max_size=AGREEING - 1))
def test_one_run_or_two_never_lower_the_memory(ratios):
    """They may have been lucky."""
    assert _memory(*ratios) == 1.0


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([0.85, 0.9, 0.86], 0.9),
        ([0.5, 0.52, 0.51], 0.8),
        ([0.85, 0.95, 0.86], 1.0),  # more than a tenth apart
        ([0.99, 0.85, 0.85, 0.85], 0.99),  # all that count have to fit
        ([0.8, 0.8, 1.2], 1.2),
        ([1.7], 1.7),
        ([5.0], 2.0),
        ([1.5, *[0.9] * LAST], 0.9),  # long ago
    ],
)
def test_memory_is_lowered_where_runs_agree_and_raised_by_any(ratios, expected):
    """The largest of the last runs counts."""
    assert _memory(*ratios) == pytest.approx(expected)


@given(st.lists(st.floats(0.8, 2.0), min_size=1, max_size=LAST))
def test_time_is_one_that_half_of_the_runs_stayed_below(ratios):
    """The median: a run beside others says little."""
    _, time = correction_of([Ratio(1.0, each) for each in ratios])

    assert sum(each <= time for each in ratios) >= len(ratios) / 2
    assert sum(each >= time for each in ratios) >= len(ratios) / 2


@pytest.mark.parametrize("odd", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_ratio_does_not_count(odd):
    """A clock that stood still, a size that was not known."""
    assert correction_of([Ratio(odd, 1.5), Ratio(1.2, odd)]) == (1.0, 1.0)
    assert correction_of([Ratio(odd, 1.5), Ratio(1.2, 1.4)]) == (1.2, 1.4)
