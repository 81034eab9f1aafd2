"""Which way the layers of a network are computed, and why."""

import pytest
import torch
from torch import nn

from embedkit.errors import InputError
from embedkit.extraction.strategy.ways import obstacle, way_of
from embedkit.networks.load import load_network


class Untraceable(nn.Module):
    """Looks at its values."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.fixture(scope="module")
def odd():
    """A network without a graph, named like the traced one."""
    return load_network(
        Untraceable(), transform=lambda image: torch.zeros(3, 4, 4), name="Tiny"
    )


def test_what_is_not_measured_is_fused(network, odd):
    """With a reason, and nothing for the store to tell."""
    for each in (network, odd):
        way = way_of(each, "auto")

        assert (way.strategy, way.asked, way.about) == ("fused", False, {})
        assert "nothing was measured" in way.why


@pytest.mark.parametrize("strategy", ["fused", "staged", "lazy"])
def test_what_is_asked_for_is_taken(strategy, network):
    """The store tells of what is not fused."""
    way = way_of(network, strategy)

    assert (way.strategy, way.asked, way.why) == (strategy, True, "asked for")
    told = {"strategy": strategy, "strategy_why": "asked for"}
    assert way.about == ({} if strategy == "fused" else told)


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_what_stands_in_the_way_of_maps(network, odd, backend):
    """A network without a graph, or another backend; the reason is told."""
    assert "Tiny cannot be traced" in obstacle(odd, backend)
    assert obstacle(network, "torch") == ""
    assert "'openvino' does not give a stored map the bits" in obstacle(
        network, "openvino"
    )


def test_staged_is_refused_where_it_cannot_be(network, odd):
    """With the reason and the remedy."""
    with pytest.raises(
        InputError, match=r"asked for, and Tiny cannot be traced, so .*: use"
    ):
        way_of(odd, "staged")
    with pytest.raises(
        InputError, match=r"'cuda_amp' does not give .*: use strategy='fus"
    ):
        way_of(network, "staged", backend="cuda_amp")
    with pytest.raises(InputError, match=r"computed 'fussed'. Did you mean 'fused'"):
        way_of(network, "fussed")
