"""Candidates of many tiles: never too many at once, and none lost without a word."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.analysis.exact.score_bounds import Margins
from embedkit.analysis.exact.tile_candidates import HIT, LOST, Held, Sizes, records
from embedkit.analysis.exact.tile_hits import Bound

ROWS, PLACES = 4, 300


def bound_of(*, need=3, most=20, base=0.0, rate=0.0, kind="f4"):
    margins = Margins(np.full(ROWS, base), np.full(ROWS, rate))
    return Bound(np.full(ROWS, -np.inf, kind), margins, need, most)


def hits(row, place, score, kind="f4"):
    none = np.empty(0, np.intp)
    return records(np.array(row), np.array(place), np.array(score, kind), none)


def every_pair(scores, kind="f4"):
    row, place = np.indices(scores.shape).reshape(2, -1)
    return hits(row, place, scores.ravel(), kind)


@pytest.mark.parametrize("kind", ["f4", "f8"])
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), rate=st.sampled_from([0.0, 0.01, 0.3]))
def test_the_nearest_are_kept_whatever_comes_when(kind, seed, rate) -> None:
    """Pairs whose key is among the `need` best, for any true keys within the margins."""
    rng = np.random.default_rng(seed)
    sizes = rng.random(PLACES) ** 4 * 5
    keys = rng.normal(size=(ROWS, PLACES))
    scores = keys + rate * sizes * rng.random((ROWS, PLACES))
    held = Held(bound_of(rate=rate, base=0.01, kind=kind), Sizes(sizes), kind)

    for part in np.array_split(rng.permutation(every_pair(scores, kind)), 40):
        held.add(part)
        assert held._count <= 1.5 * ROWS * 20
    candidates, lost = held.thinned()

    for row in np.flatnonzero(~lost):
        kept = candidates["place"][candidates["row"] == row]
        assert set(np.argsort(-keys[row])[:3]) <= set(kept.tolist())
        assert len(kept) <= 20
    assert not lost.any() or rate
    assert (np.diff(candidates["row"].astype(int)) >= 0).all()


def test_rows_that_cannot_be_thinned_out_are_lost_and_stay_so() -> None:
    """Equal scores beyond number: a record says so, and no more are taken."""
    bound = bound_of()
    held = Held(bound, Sizes(np.ones(PLACES)))
    held.add(hits(np.zeros(70, int), np.arange(70), np.ones(70)))
    held.add(hits(np.ones(100, int), np.arange(100), np.arange(100)))

    packed = held.packed()

    assert packed["row"][packed["place"] == LOST].tolist() == [0]
    assert np.isinf(bound.cut[0])
    assert {97, 98, 99} <= set(packed["place"][packed["row"] == 1].tolist())
    assert len(packed) <= 80
    held.add(packed)
    held.add(hits([0, 2], [5, 6], [9.0, 9.0]))
    candidates, lost = held.thinned()
    assert lost.tolist() == [True, False, False, False]
    assert set(candidates["row"].tolist()) == {1, 2}


def test_few_are_handed_over_as_they_came() -> None:
    """Thinning out is for many."""
    held = Held(bound_of(), Sizes(np.ones(PLACES)))
    some = hits([0, 0, 1], [3, 4, 5], [1.0, -9.0, 2.0])
    held.add(some)

    np.testing.assert_array_equal(held.packed(), some)
    assert held.packed().dtype == HIT["f4"]
    assert len(held.packed()) == 0


def test_one_long_place_takes_no_row_its_others() -> None:
    """A score that proves nothing is not among those that set the cut."""
    sizes = np.ones(PLACES)
    sizes[7] = 1e9
    bound = bound_of(rate=0.01, most=PLACES)
    held = Held(bound, Sizes(sizes))
    scores = np.tile(np.linspace(-1, 0, PLACES), (ROWS, 1))
    scores[:, 7] = 5e6
    held.add(every_pair(scores))

    candidates, lost = held.thinned()

    assert not lost.any()
    assert (
        np.bincount(candidates["row"]).tolist() == [6] * ROWS
    )  # five and the long one


def test_sizes_are_of_places() -> None:
    """Of some of all, from the first one on."""
    some = Sizes(np.arange(10.0), 100)
    assert some.part(102, 104).tolist() == [2, 3]
    assert some.of(np.array([109, 100])).tolist() == [9, 0]
