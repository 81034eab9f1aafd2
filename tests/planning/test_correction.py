"""What finished runs say of the next plan."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.planning.correction import (
    AGREEING,
    LAST,
    UNCORRECTED,
    Factors,
    Ratio,
    correction_of,
    factors_of,
)
from embedkit.planning.joined import corrected
from embedkit.planning.memory import TARGET, MemoryModel
from embedkit.planning.plan import make_plan

numbers = st.floats(0.01, 100)
runs = st.lists(st.builds(Ratio, numbers, numbers), max_size=20)


def _memory(*ratios):
    return correction_of([Ratio(each, 1.0) for each in ratios])[0]


def test_without_runs_nothing_is_corrected():
    """A first plan stands as it was projected."""
    assert correction_of([]) == (1.0, 1.0)


def test_a_pace_stands_for_runs_that_are_not_known():
    """Whole runs say more of time than rehearsed blocks; of memory those say nothing."""
    assert correction_of([], pace=1.3) == (1.0, 1.3)
    assert correction_of([Ratio(1.2, None)], pace=1.3) == (1.2, 1.3)
    assert correction_of([Ratio(1.2, 1.1)], pace=1.3) == (1.2, 1.1)
    assert factors_of([[], []], pace=1.3) == Factors(time=1.3)
    assert factors_of([], pace=9.0) == Factors(time=2.0)


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
    assert correction_of([Ratio(odd, odd)]) == (1.0, 1.0)
    assert correction_of([Ratio(odd, 1.5), Ratio(1.2, odd)]) == (1.2, 1.5)
    assert correction_of([Ratio(None, 1.5), Ratio(1.2)]) == (1.2, 1.5)


def test_of_several_measurements_the_largest_factors_count():
    """One without runs is as it was measured; a plan of none is not corrected."""
    several = [[Ratio(1.2, 0.9)], [Ratio(1.1, 1.3)] * 3, []]

    assert factors_of(several) == Factors(memory=1.2, time=1.3, runs=3)
    assert factors_of([]) == factors_of([[]]) == UNCORRECTED


@settings(deadline=None, max_examples=10)
@given(
    memory=st.floats(0.8, 2.0),
    time=st.floats(0.8, 2.0),
    noise=st.lists(st.floats(0.98, 1.02), min_size=9, max_size=9),
)
def test_plans_come_to_what_a_machine_takes(question, memory, time, noise):
    """Whatever it needs of what was measured; without going up and down on the way."""
    question = replace(question, n_workers=2, threads=1)
    known, factors = [], []
    for off in noise:
        factors.append(factors_of([known]))
        plan = _corrected_plan(question, factors[-1])
        peak, seconds = memory * off * _needs(question, plan), time * off * _takes(plan)
        ratios = peak / plan.projected_mem, seconds / sum(plan.stages.values())
        known.append(
            Ratio(ratios[0] * plan.factors.memory, ratios[1] * plan.factors.time)
        )

    low, high = 0.97, 1.03
    for each in factors[AGREEING:]:
        assert max(0.8, low * memory) <= each.memory <= high * memory
        assert max(0.8, low * time) <= each.time <= high * time
    assert all(each.memory >= min(1.0, low * memory) for each in factors)


def _corrected_plan(question, factors):
    return make_plan(replace(question, measured=corrected(question.measured, factors)))


def _needs(question, plan):
    """Return what the layout of a plan was measured to need."""
    return MemoryModel.of(question.measured).projected_mem(
        batch=plan.batch_size,
        block=plan.block,
        threads=plan.threads,
        decode_threads=plan.decode_threads,
    )


def _takes(plan):
    """Return the seconds that were measured for a plan."""
    return sum(plan.stages.values()) / plan.factors.time


@given(st.builds(Factors, memory=st.floats(0.8, 2.0), time=st.floats(0.8, 2.0)))
@settings(deadline=None, max_examples=25)
def test_the_solver_counts_with_corrected_memory_and_seconds(question, factors):
    """What is projected is what the layout was measured to need, times the factor."""
    plan = _corrected_plan(question, factors)

    assert plan.factors == factors
    needed = factors.memory * _needs(question, plan)
    assert needed <= plan.projected_mem <= needed + len(plan.parts)
    assert plan.projected_mem <= TARGET * plan.allowed_mem
    plain = make_plan(
        replace(
            question,
            n_workers=plan.n_workers,
            threads=plan.threads,
            batch_size=plan.batch_size,
            block=plan.block,
            memory=2**50,
        )
    )
    assert plan.seconds == pytest.approx(factors.time * plain.seconds)
    for name, seconds in plain.stages.items():
        assert plan.stages[name] == pytest.approx(factors.time * seconds)


def test_where_more_memory_is_needed_steps_are_smaller(question):
    """A batch that would not have fitted is not planned for again."""
    limited = replace(question, memory_limit=1200 * 2**20, n_workers=1, threads=1)
    before = _corrected_plan(limited, UNCORRECTED)
    after = _corrected_plan(limited, Factors(memory=1.5))

    assert _needs(question, before) > TARGET * before.allowed_mem / 1.5
    assert _needs(question, after) <= TARGET * after.allowed_mem / 1.5
