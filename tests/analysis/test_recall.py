"""Measured recall and its interval."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from embedkit.analysis.recall import (
    EXACT,
    estimate,
    found_shares,
    near_shares,
    provable,
    spread_sample,
)


def test_independent_rows_give_the_exact_interval():
    """At its ends the observed number of whole misses is as rare as the level says."""
    shares = np.repeat([1.0, 0.0], [90, 10])  # the prudence costs no trial below 100

    found = estimate(shares, population=10**12)

    assert found.value == 0.9
    assert binom.sf(89, 100, found.low) == pytest.approx(0.025, abs=1e-6)
    assert binom.cdf(90, 100, found.high) == pytest.approx(0.025, abs=1e-6)


def test_no_miss_is_no_proof():
    """A sample without a miss has an interval that depends on its size."""
    few = estimate(np.ones(100), population=10**9)
    many = estimate(np.ones(1000), population=10**9)

    assert few.value == few.high == 1
    assert few.low == pytest.approx(0.025 ** (1 / 100), abs=1e-6)
    assert few.low < many.low < 1


def test_what_a_check_can_show():
    """Of many rows not all; of as few as the check itself, anything."""
    assert provable(0.9992, population=10**9)
    assert not provable(0.9993, population=10**9)
    assert not provable(0.99999, population=6000)
    assert provable(0.99999, population=5000)


def test_a_whole_population_is_known():
    """Where every row was sampled the interval is empty."""
    found = estimate([1.0, 0.5], population=2)

    assert (found.low, found.value, found.high) == (0.75, 0.75, 0.75)
    assert str(found) == "0.7500 [0.7500, 0.7500]"
    assert found.attrs()["n_truth"] == 2
    assert EXACT.low == 1


@pytest.mark.parametrize("rate", [0.5, 0.1, 0.01, 0.003])
@pytest.mark.parametrize("clump", [1, 10])
def test_intervals_cover_the_true_recall(rate, clump):
    """Over many samples the truth is inside of the interval 93 % of the time or more."""
    rng = np.random.default_rng(0)
    hit = 0
    for _ in range(400):
        misses = (rng.random((500, 10 // clump)) < rate).repeat(clump, axis=1)
        found = estimate(1 - misses.mean(axis=1), population=10**9)
        hit += found.low <= 1 - rate <= found.high

    assert hit >= 0.93 * 400


def test_shares_count_true_neighbors():
    """Order does not matter, nor do places without a neighbor."""
    truth = np.array([[1, 2, 3], [4, 5, -1], [-1, -1, -1]])
    ids = np.array([[3, 9, 1], [5, -1, -1], [-1, -1, -1]])

    np.testing.assert_allclose(found_shares(ids, truth), [2 / 3, 1 / 2, 1])


def test_equal_distances_are_equally_good():
    """What is as near as the last true neighbor counts, what is missing does not."""
    truth = np.array([[1.0, 2.0, 2.0], [1.0, np.nan, np.nan], [np.nan] * 3])
    near = np.array([[2.0, 2.0, 2.1], [1.0, 1.5, np.nan], [np.nan] * 3])

    np.testing.assert_allclose(near_shares(near, truth, slack=1e-6), [2 / 3, 1, 1])


def test_negative_distances_have_their_slack_outwards():
    """Minus an inner product is as good if it is a little greater."""
    truth, near = np.array([[-2.0, -1.0]]), np.array([[-2.0, -1.0 + 1e-9]])

    assert near_shares(near, truth, slack=1e-6) == 1


@given(st.integers(0, 60), st.integers(1, 70), st.integers(0, 5))
def test_samples_are_distinct_and_from_everywhere(n, count, seed):
    """One row comes from every stretch, each at most once."""
    rows = np.arange(n) * 3

    found = spread_sample(rows, count, rng=np.random.default_rng(seed))

    assert len(found) == min(n, count)
    assert set(found) <= set(rows)
    assert (np.diff(found) > 0).all()
    if 0 < count <= n:
        assert found[0] < 3 * -(-n // count)
        assert found[-1] >= 3 * (n - -(-n // count))
