"""Shapes, positions and operations of layers, against hooks and published counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from embedkit.errors import NetworkError
from embedkit.networks.load import load_network


def hooked_shapes(network):
    """The shape that every leaf module's last call gives, by an ordinary forward."""
    shapes = {}

    def note(path):
        return lambda module, args, out: shapes.__setitem__(path, tuple(out.shape[1:]))

    leaves = [
        (path, part)
        for path, part in network.module.named_modules()
        if not list(part.children())
    ]
    handles = [part.register_forward_hook(note(path)) for path, part in leaves]
    with torch.inference_mode():
        network.module(torch.zeros(1, 3, 224, 224))
    for handle in handles:
        handle.remove()
    return shapes


@pytest.mark.parametrize("name", ["squeezenet1_0", "resnet18"])
def test_shapes_are_those_of_hooks(name):
    """Every leaf module has the shape that a hook sees."""
    network = load_network(name, weights=None)
    found = network.layers["shape"].to_dict()
    expected = hooked_shapes(network)
    assert expected.keys() <= found.keys()
    assert {path: found[path] for path in expected} == expected


def test_operations_of_resnet18(resnet18):
    """The total is the published count, and it never falls on the way."""
    flops = resnet18.layers["flops"]
    assert flops.iloc[-1] == pytest.approx(2 * 1.814e9, rel=0.01)
    assert flops.is_monotonic_increasing
    assert flops["conv1"] == 2 * 64 * 3 * 7 * 7 * 112 * 112
    assert flops["bn1"] == flops["conv1"]
    assert resnet18.layers.loc["layer1.0.add", "type"] == "add"


@pytest.mark.slow
def test_operations_of_attention():
    """Fused attention does not hide its operations; the setting is put back."""
    before = torch.backends.mha.get_fastpath_enabled()
    flops = load_network("vit_b_16", weights=None).layers["flops"]
    assert flops.iloc[-1] == pytest.approx(2 * 17.56e9, rel=0.01)
    assert torch.backends.mha.get_fastpath_enabled() == before


def network_of(module, size=8, channels=3):
    return load_network(
        module, transform=lambda image: torch.zeros(channels, size, size)
    )


class Permutes(nn.Module):
    """Moves channels to the end and back, in the three ways there are."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 1)
        self.norm = nn.LayerNorm(5)
        self.back = nn.Conv2d(5, 7, 1)

    def forward(self, x):
        x = self.conv(x).permute(0, 2, 3, 1)
        x = torch.relu(self.norm(x))
        x = torch.permute(x, (0, -1, 1, 2))
        x = self.back(x).permute(dims=(0, 2, 3, 1))
        return x.permute((0, 2, 1, 3))


def test_channels_are_followed_through_permutations(noise):
    """Features are channels wherever the network keeps them."""
    network = network_of(Permutes())
    batch = noise(2, 3, 8, 8)
    features = network.layers["features"].tolist()
    assert features == [5, 5, 5, 5, 5, 7, 7, 7]
    found = network.taps("all").forward(batch)
    raw = network.taps("all", pool="none").forward(batch)
    np.testing.assert_allclose(found["relu"], raw["relu"].mean((1, 2)), atol=1e-6)
    np.testing.assert_allclose(found["back"], raw["back"].mean((2, 3)), atol=1e-6)


@pytest.mark.slow
def test_channels_of_swin():
    """A network that works channels last has its channels as features everywhere."""
    table = load_network("swin_t", weights=None).layers
    assert set(table["features"]) <= {96, 192, 384, 768, 1536, 1000}
    assert table.loc["features.1.0.norm1", "shape"] == (56, 56, 96)


class NoLayer(nn.Module):
    """Gives whole numbers only."""

    def forward(self, x):
        return x > 0


def test_network_without_layers_is_refused():
    """A network that has nothing to tap says so."""
    with pytest.raises(NetworkError, match=r"NoLayer has no layer: no floating tensor"):
        _ = network_of(NoLayer()).layers


def test_unfit_transform_is_refused():
    """A picture with the wrong number of channels is told with its shape."""
    network = network_of(nn.Sequential(nn.Conv2d(3, 2, 1)), channels=1)
    with pytest.raises(
        NetworkError, match=r"Sequential does not take the \(1, 8, 8\) float32 picture"
    ) as caught:
        _ = network.layers
    assert "\n" not in str(caught.value)
