"""The bounds of scores, against exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.analysis.exact.score_bounds import (
    MOST_FEATURES,
    error_share,
    extended,
    left,
    lowered,
    margins,
    scale_exponent,
    sizes,
    slack,
)
from embedkit.analysis.exact.tile_hits import Bound
from embedkit.analysis.pair_distances import lift, pair_distances

METRICS = ("euclidean", "cosine", "inner_product")


def rational(rows):
    return [[Fraction(float(each)) for each in row] for row in rows]


def keys(rows, metric, exponent):
    """What pairs are ordered by, exactly: of lifted, scaled rows, (M, M)."""
    exact = rational(rows)
    scale = Fraction(2) ** (2 * exponent)

    def key(one, other):
        if metric == "inner_product":
            return -scale * sum(a * b for a, b in zip(one, other, strict=True))
        return scale * sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) / 2

    return [[key(one, other) for other in exact] for one in exact]


def measured(rows, metric, exponent):
    """The same from distances in float64, which decide."""
    far = pair_distances(rows[:, None], rows[None], metric)
    power = {"euclidean": 2, "cosine": 1, "inner_product": 1}[metric]
    half = Fraction(1, 2) if metric == "euclidean" else 1
    scale = half * Fraction(2) ** (2 * exponent)
    return [[scale * Fraction(float(one)) ** power for one in row] for row in far]


def check_pairs(raw, metric, kind, center):
    """Compare both bounds of every score with both keys of its pair."""
    if metric == "cosine":  # zero rows take no part in products
        raw = raw[raw.any(axis=1)]
    rows = lift(raw, metric)
    features = rows.shape[1]
    peak = float(np.abs(rows).max(initial=0))
    exponent = 0 if metric == "cosine" else scale_exponent(peak, features)
    shifted = np.ldexp(rows, exponent)
    if metric != "inner_product":
        shifted = shifted - np.ldexp(center * rows[:1], exponent)
    right = extended(shifted, metric, kind)
    upper = left(right) @ right.T
    lower = left(right) @ lowered(right, metric, kind).T
    size = sizes(shifted, metric)
    found = margins(size, metric, kind, features=features, exponent=exponent)
    bound = Bound(np.full(len(rows), -np.inf), found, 1, 1)
    at = np.arange(len(rows))[:, None]
    proved = bound.lower(at, upper, size) - found.base[:, None]
    lowest = lower.astype(np.float64) - found.base[:, None]
    loss = Fraction(slack(features, kind, exponent))
    for every in (keys(rows, metric, exponent), measured(rows, metric, exponent)):
        for i, j in np.ndindex(upper.shape):
            assert Fraction(float(upper[i, j])) >= -every[i][j] - loss
            assert Fraction(float(proved[i, j])) <= -every[i][j] - loss
            assert Fraction(float(lowest[i, j])) <= -every[i][j] - loss


magnitudes = st.sampled_from([0.0, 1e-300, 1e-160, 1e-30, 1e-20, 1e-3, 1.0, 1e4, 1e150])
entries = st.tuples(magnitudes, st.floats(-2, 2)).map(lambda pair: pair[0] * pair[1])
some_rows = st.integers(1, 6).flatmap(
    lambda features: st.lists(
        st.lists(entries, min_size=features, max_size=features), min_size=2, max_size=5
    )
)


@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("metric", METRICS)
@settings(deadline=None, max_examples=150)
@given(rows=some_rows, center=st.sampled_from([0.0, 0.5, 1.0]))
def test_no_score_is_further_off_than_its_bounds(rows, metric, kind, center) -> None:
    """From 1e-300 to 1e150 in one row, whatever underflows."""
    check_pairs(np.array(rows), metric, kind, center)


@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("features", [1, 40, 700])
def test_bounds_of_long_rows(metric, kind, features) -> None:
    """Near copies, parallel and opposite rows, and one that is much longer."""
    rng = np.random.default_rng(features)
    rows = rng.normal(size=(6, features))
    rows[1] = rows[0] * (1 + 2.0**-40)
    rows[2], rows[3] = -rows[0], rows[0] + 1e-9 * rows[3]
    rows[5] *= 1e6
    check_pairs(rows, metric, kind, 1.0)


def test_bounds_are_of_use() -> None:
    """A float32 score says five digits, and hardly less because of one long row."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 64)) / 8
    rows[7] *= 1e4
    size = sizes(rows, "euclidean")
    found = margins(size, "euclidean", "f4", features=64, exponent=0)
    doubt = found.base[:, None] + found.rate[:, None] * size
    ordinary = np.delete(np.delete(doubt, 7, axis=0), 7, axis=1)
    assert ordinary.max() < 1e-4
    assert doubt[0, 7] > 1e2


@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("features", [1, 2, 512, 4096, MOST_FEATURES])
def test_the_share_covers_every_error(kind, features) -> None:
    """The sum of the errors that the module lists, each times its part of the extent."""

    def gamma(terms, unit):
        return Fraction(terms) * unit / (1 - terms * unit)

    unit, wide = Fraction(1, 2 ** (24 if kind == "f4" else 53)), Fraction(1, 2**53)
    share = Fraction(error_share(features, kind))
    product = gamma(features + 2, unit) * (1 + share)
    rows = 2 * (unit + 2 * wide) * (1 + 2 * unit)
    column = 2 * unit * (Fraction(1, 2) + share) + gamma(features + 3, wide) / 2
    distance = gamma(features + 6, wide)
    from_sizes = 2 * share * gamma(features + 8, wide) + 4 * wide
    assert product + rows + column + distance + from_sizes < share
    assert share < Fraction(8, 100)
