"""Which way the layers of a network are computed, and why."""

import pytest
import torch
from torch import nn

from embedkit.errors import InputError, PlanError
from embedkit.extraction.ways import way_of
from embedkit.networks.load import load_network
from embedkit.planning.measurement import (
    Forward,
    LayerSize,
    Measurement,
    NetworkMeasurement,
)


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


@pytest.fixture(scope="module")
def measured():
    """Two layers that are maps of 40 kB each, of a network called Tiny."""
    layers = tuple(
        LayerSize(
            name=name,
            shape=(10_000,),
            itemsize=4,
            flops=flops,
            raw_entries=10_000,
            channels=8,
        )
        for name, flops in (("relu", 10**9), ("fc", 2 * 10**9))
    )
    network = NetworkMeasurement(
        name="Tiny",
        loaded=1,
        load_seconds=0.0,
        input_bytes=1,
        transform_seconds=0.001,
        forward=(Forward(batch=1, peak=1, seconds=0.1),),
        flops=2 * 10**9,
        layers=layers,
    )
    return Measurement(
        reserved=1,
        decode_seconds=0.001,
        decoding=1,
        write_rate=1e8,
        read_rate=1e8,
        networks=(network,),
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


def test_a_measurement_explains_the_choice(network, measured):
    """A line for each way; all of them in the reason."""
    way = way_of(network, "auto", measured=measured, n_images=100)

    assert (way.strategy, way.asked) == ("fused", False)
    assert [line.partition(":")[0] for line in way.costs] == ["fused", "staged", "lazy"]
    assert way.costs[0].endswith("chosen")
    assert way.why == "; ".join(way.costs)
    assert way_of(network, "lazy", measured=measured).costs[2].endswith("chosen")


def test_where_rows_do_not_fit_together_the_maps_do(network, odd, measured):
    """A network without a graph, or another backend, has its layers computed one by one."""
    how = {"measured": measured, "n_images": 100, "buffer_limit": 50_000}

    staged = way_of(network, "auto", **how)
    untraced = way_of(odd, "auto", **how)
    other = way_of(network, "auto", backend="openvino", **how)

    assert staged.strategy == "staged"
    assert staged.about["strategy_why"].startswith("fused: ")
    assert untraced.strategy == other.strategy == "lazy"
    assert "Tiny cannot be traced" in untraced.costs[1]
    assert "'openvino' does not give a stored map the bits" in other.costs[1]
    with pytest.raises(PlanError, match="no way to compute these layers fits: fused "):
        way_of(network, "fused", **how)


def test_another_networks_measurement_says_nothing(measured):
    """It counts as not measured."""
    other = load_network(
        nn.Conv2d(3, 4, 3), transform=lambda image: torch.zeros(3, 4, 4), name="other"
    )

    assert way_of(other, "auto", measured=measured).costs == ()


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
