"""Groups of near neighbors against a plain search for components."""

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.analysis.duplicate_groups import groups_within, keep_one, leaking


def _lists(places, k):
    """Neighbors of points on a line, as `neighbors` gives them."""
    gaps = np.abs(places[:, None] - places).astype(np.float64)
    gaps[np.isnan(gaps)] = np.inf
    np.fill_diagonal(gaps, np.inf)
    order = np.argsort(gaps, axis=1, kind="stable")[:, :k]
    near = np.take_along_axis(gaps, order, axis=1)
    there = np.isfinite(near)
    found = np.where(there, near, np.nan).astype(np.float32)
    return np.where(there, order, -1).astype(np.int64), found


@settings(deadline=None)
@given(
    places=st.lists(st.integers(0, 60), min_size=2, max_size=40),
    threshold=st.integers(0, 4),
    seed=st.integers(0, 9),
)
def test_groups_are_the_components_of_near_pairs(places, threshold, seed):
    """Chains of pairs within the threshold, and of equal numbers, are one group."""
    rng = np.random.default_rng(seed)
    points = np.array(places, float)
    points[rng.random(len(points)) < 0.1] = np.nan
    exact = rng.integers(0, 30, len(points)).astype(np.uint64)
    indices, distances = _lists(points, len(points) - 1)

    found = groups_within(indices, distances, threshold=threshold, exact=exact)

    graph = networkx.Graph()
    graph.add_nodes_from(range(len(points)))
    for a in range(len(points)):
        for b in range(a):
            near = abs(points[a] - points[b]) <= threshold
            if near or (exact[a] == exact[b] != 0):
                graph.add_edge(a, b)
    parts = [c for c in networkx.connected_components(graph) if len(c) > 1]
    parts.sort(key=lambda part: (-len(part), min(part)))
    wanted = np.full(len(points), -1)
    for number, part in enumerate(parts):
        wanted[list(part)] = number
    assert found.group.tolist() == wanted.tolist()


def test_short_lists_still_connect_a_chain():
    """One neighbor each is enough for a chain, and every such list is saturated."""
    indices, distances = _lists(np.array([0.0, 1, 2.1, 3.3, 50]), 1)

    found = groups_within(indices, distances, threshold=1.5)

    assert found.group.tolist() == [0, 0, 0, 0, -1]
    assert found.n_saturated == 4
    np.testing.assert_allclose(found.nearest, [1, 1, 1.1, 1.2, np.nan], rtol=1e-6)


def test_the_threshold_counts_in_float32():
    """A distance of 0.1 in float32 is within 0.1."""
    indices = np.array([[1], [0]])
    distances = np.array([[0.1], [0.1]], np.float32)

    assert groups_within(indices, distances, threshold=0.1).group.tolist() == [0, 0]
    assert groups_within(indices, distances, threshold=0.09).group.tolist() == [-1, -1]


def test_one_of_each_group_is_kept():
    """The first readable one, or the first with the largest value; NaN goes last."""
    group = np.array([0, 0, 0, -1, 1, 1])
    usable = np.array([False, True, True, False, True, True])

    first = keep_one(group, usable=usable)
    largest = keep_one(
        group, usable=usable, prefer=np.array([9, 1, 2, 0, np.nan, -np.inf])
    )

    assert first.tolist() == [False, True, False, True, True, False]
    assert largest.tolist() == [False, False, True, True, False, True]


def test_leaks_are_groups_in_several_splits():
    """Images without a split are in none; pairs count groups and their images."""
    group = np.array([0, 0, 0, 1, 1, 2, 2, -1])
    split = np.array(["train", "test", "test", "val", "train", "test", None, "test"])

    leak, pairs = leaking(group, split)

    assert leak.tolist() == [True] * 5 + [False] * 3
    assert pairs == [
        {"splits": ["test", "train"], "groups": 1, "images": 3},
        {"splits": ["train", "val"], "groups": 1, "images": 2},
    ]


@pytest.mark.parametrize("group", [np.full(4, -1), np.array([0, 0, -1, -1])])
def test_without_leaks_nothing_leaks(group):
    """No group, or all of them in one split."""
    leak, pairs = leaking(group, np.array(["a", "a", "b", ""]))

    assert not leak.any()
    assert pairs == []
