"""The plan of a search for nearly all neighbors."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.errors import PlanError
from embedkit.planning.near import (
    EXACT_SECONDS,
    graph_bytes,
    graph_widths,
    lists_seconds,
    plan_near,
)
from embedkit.planning.neighbors import Machine

MACHINE = Machine(memory_limit=2**34, slots=2, on_machine=2, workers=2, threads=1)
LARGE = {"n_images": 10**6, "features": 512, "n_neighbors": 15, "itemsize": 4}


def _plan(**changes):
    return plan_near(**{**LARGE, "recall": 0.95, "machine": MACHINE, **changes})


def _tiles(plan, seconds):
    """Return tiles that take about so long."""
    rows = seconds / plan.lists_seconds([(1000, 1)])
    return [(1000, int(rows))]


def test_a_small_search_is_exact():
    """There is nothing to plan where the exact search takes seconds."""
    assert _plan(n_images=25_000) is None
    assert _plan(n_images=200_000).exact_seconds > EXACT_SECONDS


def test_the_cheapest_way_is_taken():
    """Lists that read little, a graph, or everything where lists read half of it."""
    plan = _plan()

    assert plan.graph_seconds < plan.exact_seconds
    assert plan.cheapest(_tiles(plan, plan.graph_seconds / 2)) == "lists"
    assert plan.cheapest(_tiles(plan, plan.graph_seconds * 2)) == "graph"
    lists_only = replace(plan, graph=False)
    assert lists_only.cheapest(_tiles(plan, plan.exact_seconds * 2)) == "exact"


def test_lists_are_tried_unless_they_are_hopeless():
    """Coarse lists of few rows read more than the real ones would."""
    plan = _plan()

    assert plan.ahead(_tiles(plan, plan.graph_seconds)) == "lists"
    assert plan.ahead(_tiles(plan, plan.graph_seconds * 3)) == "graph"
    slow = replace(plan, exact_seconds=plan.graph_seconds / 2)
    assert slow.ahead(_tiles(plan, plan.graph_seconds * 3)) == "lists"
    lists_only = replace(plan, graph=False)
    assert lists_only.ahead(_tiles(plan, plan.graph_seconds * 3)) == "lists"


@pytest.mark.parametrize(
    "change",
    [
        {"n_queries": 10**6},
        {"symmetric": False},
        {"machine": replace(MACHINE, memory_limit=3 * 10**9)},
    ],
)
def test_no_graph_where_none_can_be_grown(change):
    """For other queries, for products, and where the rows do not fit into memory."""
    plan = _plan(**change)

    assert not plan.graph
    assert plan.graph_seconds == float("inf")
    assert plan.projected_mem <= 3 * 10**9


def test_what_does_not_fit_is_refused():
    """With what it takes, and what to do."""
    small = replace(MACHINE, memory_limit=10**9)

    with pytest.raises(PlanError, match=r"2\.2 GiB.*take 953\.7 MiB.*recall=1\.0"):
        _plan(machine=small)


def test_a_plan_says_what_it_takes():
    """In a sentence, for people."""
    told = _plan().describe()

    assert told.startswith("0.95 of the 15 neighbors of 1,000,000 images of 512")
    assert "a neighbor graph or inverted lists" in told
    assert "an exact search would take 1.2 h" in told


@given(
    st.integers(1000, 10**8),
    st.integers(1, 4096),
    st.integers(1, 100),
    st.integers(1, 64),
)
def test_more_never_takes_less(n_images, features, n_neighbors, workers):
    """Rows cost memory and time, cores save time."""
    assert graph_bytes(n_images + 1, features, n_neighbors) > graph_bytes(
        n_images, features, n_neighbors
    )
    tiles = [(1000, n_images)]
    more = lists_seconds([(1000, n_images + 1)], features=features, cores=workers)
    less = lists_seconds(tiles, features=features, cores=workers + 1)
    assert less < lists_seconds(tiles, features=features, cores=workers) <= more
    widths = graph_widths(n_neighbors)
    assert n_neighbors < widths[0] < widths[1] < widths[2]
