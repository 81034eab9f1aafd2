"""Which layers are meant, and how each is pooled, on real networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from embedkit.errors import InputError, NetworkError
from embedkit.networks.load import load_network


def test_blocks_of_a_residual_network(resnet18):
    """Eight residual blocks, each by its last tap."""
    expected = [f"layer{s}.{b}.relu_1" for s in (1, 2, 3, 4) for b in (0, 1)]
    assert list(resnet18.resolve("blocks")) == expected
    assert resnet18.taps("blocks").layers == tuple(expected)


@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("embedkit/digits", 3, "stage1.relu_1"),
        ("mobilenet_v2", 17, "features.1.conv.2"),
        ("squeezenet1_1", 8, "features.3.cat"),
        pytest.param("densenet121", 58, None, marks=pytest.mark.slow),
        pytest.param("convnext_tiny", 18, "features.1.0.add", marks=pytest.mark.slow),
        pytest.param("swin_t", 12, "features.1.0.add_1", marks=pytest.mark.slow),
        pytest.param("vit_b_32", 12, None, marks=pytest.mark.slow),
    ],
)
def test_blocks_of_networks(name, count, first):
    """As many as the papers have; stages and stems are none."""
    found = load_network(name, weights=None).resolve("blocks")
    assert len(found) == count
    assert first in (None, found[0])


def test_plain_networks_have_no_blocks():
    """A sequence of layers says so, and what to ask instead."""
    network = load_network(
        nn.Sequential(nn.Flatten(), nn.Linear(4, 2)),
        transform=lambda image: torch.zeros(1, 2, 2),
    )
    with pytest.raises(NetworkError, match="no repeated building blocks: ask for 'sta"):
        network.resolve("blocks")


def test_layers_by_predicate(resnet18):
    """A function is given rows with the layer's name, and chooses."""
    found = resnet18.resolve(lambda row: row["type"] == "add" and "layer4" in row.name)
    assert found == ("layer4.0.add", "layer4.1.add")
    small = resnet18.taps(lambda row: row.nbytes_full <= 4000).layers
    table = resnet18.layers
    assert small == tuple(table.index[table["nbytes_full"] <= 4000])
    with pytest.raises(NetworkError, match="chose none of the 69 layers of resnet18"):
        resnet18.resolve(lambda row: False)


def test_pools_per_layer(digits, noise):
    """The first key that fits counts, and every layer is pooled its own way."""
    batch = noise(3, 1, 16, 16)
    pools = {"stage3": "none", "stage*": "max2x2", "fc": "random_projection(4, 0)"}
    graph = digits.taps(["stage1", "stage3", "fc"], pool=pools)
    assert graph.pools == {
        "stage1.relu_1": "max2x2",
        "stage3.relu_1": "none",
        "fc": "random_projection(4)",
    }
    assert graph.pools == digits.resolve_pools(pools, ["stage1", "stage3", "fc"])
    assert graph.pools == digits.taps(graph.layers, pool=graph.pools).pools
    found = graph.forward(batch)
    assert {name: value.shape[1:] for name, value in found.items()} == graph.shapes
    raw = digits.taps("stages", pool="none").forward(batch)
    np.testing.assert_array_equal(found["stage3.relu_1"], raw["stage3.relu_1"])
    rows = [0, 0, 1, 1]
    maps = raw["stage1.relu_1"]
    half = maps.shape[2] // 2
    quarters = [
        maps[:, :, r * half :][:, :, :half, c * half :][..., :half].max((2, 3))
        for r, c in zip(rows, [0, 1, 0, 1], strict=True)
    ]
    expected = np.stack(quarters, 2).reshape(3, -1)
    np.testing.assert_array_equal(found["stage1.relu_1"], expected)
    assert "pool 'max2x2', 'none', 'random_projection(4)', on" in repr(graph)


def test_tails_pool_alike(digits, noise):
    """Starting from a stored map gives what starting from pictures gives, bit by bit."""
    batch = noise(3, 1, 16, 16)
    pools = {"stage3": "gem", "*": "random_projection(8)"}
    begin = digits.taps(["stage1"], pool="none").forward(batch)["stage1.relu_1"]
    whole = digits.taps(["stage2", "stage3"], pool=pools)
    tail = digits.taps(["stage2", "stage3"], pool=pools, start="stage1.relu_1")
    expected, found = whole.forward(batch), tail.forward(begin)
    for layer in expected:
        np.testing.assert_array_equal(found[layer], expected[layer])


@pytest.mark.parametrize(
    ("pool", "error", "message"),
    [
        (
            {"stage1": "avg"},
            InputError,
            "no pool was given for layer 'fc' of embedkit/d",
        ),
        ({}, InputError, r"no pool was given for layer .* \(found: none\)"),
        (
            {"stage9": "avg", "*": "avg"},
            NetworkError,
            "no layer 'stage9'. Did you mean",
        ),
        ({"*": "mean"}, InputError, "no pool 'mean'"),
        ("avg2x2", InputError, r"'avg2x2' was asked of layer 'fc' of shape \(10,\)"),
        ("cls", InputError, r"'cls' was asked of layer 'fc' of shape \(10,\)"),
    ],
)
def test_unfit_pools_are_refused(digits, pool, error, message):
    """What is missing, unknown or unfit is named."""
    with pytest.raises(error, match=message) as caught:
        digits.taps("fc", pool=pool)
    assert "\n" not in str(caught.value)
