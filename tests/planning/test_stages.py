"""Which stage of an extraction the others wait for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.planning.stages import AHEAD, IN_TURN, bottleneck


@pytest.mark.parametrize(
    ("seconds", "stage"),
    [
        ({"decode": 9, "transform": 1, "wait": 0.1, "forward": 4}, "forward"),
        ({"decode": 9, "transform": 1, "wait": 5, "forward": 4}, "decode"),
        ({"decode": 1, "transform": 9, "wait": 5, "forward": 4}, "transform"),
        ({"wait": 5, "forward": 4}, "wait"),
        ({"forward": 1, "write": 2, "total": 3}, "write"),
        ({"forward": 0.0, "total": 0.0}, ""),
        ({}, ""),
    ],
)
def test_the_stage_that_the_task_spent_its_time_in(seconds, stage):
    """Waiting is blamed on what the threads ahead were busy with."""
    assert bottleneck(seconds) == stage


@given(
    st.dictionaries(
        st.sampled_from([*AHEAD, *IN_TURN]), st.floats(0, 1e6, allow_subnormal=False)
    ),
    st.floats(0.001, 1000),
)
def test_only_proportions_count(seconds, times):
    """One block or a thousand like it have the same bottleneck."""
    scaled = {stage: value * times for stage, value in seconds.items()}
    if len({*seconds.values()}) == len(seconds):  # no ties
        assert bottleneck(scaled) == bottleneck(seconds)
