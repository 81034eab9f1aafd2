"""Tests of the memory that pooled values share."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import fx

from embedkit.networks.arena import SMALL, Arena, keep_outputs

WIDTHS = st.lists(st.integers(1, 50), min_size=1, max_size=8)


@given(widths=WIDTHS, count=st.integers(1, 4))
def test_values_are_kept_without_touching_each_other(widths, count):
    """Each is where it was put, whatever came after it, in one piece of memory."""
    arena = Arena({str(at): (width,) for at, width in enumerate(widths)})
    arena.reserve(count)
    values = [torch.rand(count, width) for width in widths]

    kept = [arena.keep(value) for value in values]

    for value, place in zip(values, kept, strict=True):
        assert torch.equal(place, value)
        assert place.data_ptr() != value.data_ptr()
    assert len({place.untyped_storage().data_ptr() for place in kept}) == 1


def test_a_new_batch_leaves_the_one_before_alone():
    """What was kept of an earlier batch does not change."""
    arena = Arena({"a": (3,)})
    arena.reserve(2)
    first = arena.keep(torch.ones(2, 3))

    arena.reserve(2)
    arena.keep(torch.zeros(2, 3))

    assert torch.equal(first, torch.ones(2, 3))


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(1, SMALL // 4 + 1),
        torch.zeros(1, 3, dtype=torch.float64),
        torch.zeros(1, 9),
    ],
    ids=["large", "of another type", "more than reserved"],
)
def test_what_does_not_belong_there_stays_where_it_is(value):
    """Maps, other types, and what no room was made for are returned themselves."""
    arena = Arena({"a": (3,), "map": (SMALL,)})
    arena.reserve(1)

    assert arena.keep(value) is value


def test_a_graph_keeps_what_it_returns():
    """Its results are the same, and in the arena."""
    graph = fx.Graph()
    given_ = graph.placeholder("x")
    graph.output({"double": graph.call_function(torch.mul, (given_, 2.0))})
    arena = Arena({"double": (3,)})
    module = keep_outputs(fx.GraphModule({}, graph), arena)
    arena.reserve(2)

    result = module(torch.ones(2, 3))["double"]

    np.testing.assert_array_equal(result, np.full((2, 3), 2.0))
    assert result.untyped_storage().nbytes() == 4 * 6


def test_pooling_is_timed_and_the_network_is_not(monkeypatch):
    """The clock runs from a layer's value to its place, whatever comes between layers."""
    now = iter([0.0, 2.0, 100.0, 103.0])
    monkeypatch.setattr("embedkit.networks.arena.time.perf_counter", lambda: next(now))
    graph = fx.Graph()
    given_ = graph.placeholder("x")
    first = graph.call_function(torch.mul, (given_, 2.0))
    second = graph.call_function(torch.add, (given_, 1.0))
    graph.output({"first": first, "second": second})
    arena = Arena({"first": (3,), "second": (3,)})
    module = keep_outputs(fx.GraphModule({}, graph), arena)
    arena.reserve(1)

    module(torch.ones(1, 3))

    assert arena.seconds == 2.0 + 3.0
