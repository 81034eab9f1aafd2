"""What users may call layers, and what the table says of them. No tensors needed."""

from __future__ import annotations

import pytest

from embedkit.errors import NetworkError
from embedkit.networks.choice import resolve_layers
from embedkit.networks.layers import (
    Layer,
    layer_table,
    module_aliases,
    stages,
)


def layer(name, shape, *, is_module=True, flops=0):
    axes = {3: (2, 3), 2: (1,)}.get(len(shape), ())
    return Layer(
        name=name, type="X", is_module=is_module, shape=shape, axes=axes, flops=flops
    )


RESIDUAL = [
    layer("conv1", (8, 16, 16)),
    layer("relu", (8, 16, 16)),
    layer("maxpool", (8, 8, 8)),
    layer("layer1.0.conv", (8, 8, 8)),
    layer("layer1.0.relu", (8, 8, 8)),
    layer("layer1.0.add", (8, 8, 8), is_module=False),
    layer("layer1.0.relu_1", (8, 8, 8)),
    layer("layer2.0.conv1", (16, 8, 8)),
    layer("layer2.0.conv2", (16, 4, 4)),
    layer("layer2.0.relu", (16, 4, 4)),
    layer("avgpool", (16, 1, 1)),
    layer("flatten", (16,), is_module=False),
    layer("fc", (10,)),
]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("all", [each.name for each in RESIDUAL]),
        ("last", ["fc"]),
        ("stages", ["relu", "layer1.0.relu_1", "layer2.0.relu", "fc"]),
        ("layer1", ["layer1.0.relu_1"]),
        ("layer1.0", ["layer1.0.relu_1"]),
        ("layer1.0.relu", ["layer1.0.relu"]),  # a tap comes before the module
        ("*.relu*", ["layer1.0.relu", "layer1.0.relu_1", "layer2.0.relu"]),
        ("layer[12].0.conv?", ["layer2.0.conv1", "layer2.0.conv2"]),
        (["fc", "conv1"], ["conv1", "fc"]),
        (["fc", "last", "f*", "fc"], ["flatten", "fc"]),
        (("layer2", "stages"), ["relu", "layer1.0.relu_1", "layer2.0.relu", "fc"]),
    ],
)
def test_resolve(asked, expected):
    """Presets, taps, modules, patterns and mixtures give taps in execution order."""
    assert list(resolve_layers(asked, RESIDUAL, network="toy")) == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("layer3", r"network toy has no layer 'layer3'\. Did you mean 'layer"),
        ("stage", r"no layer 'stage'\. Did you mean 'stages'"),
        ("block*", r"no layer 'block\*'\. "),
        (["fc", "zzz"], r"no layer 'zzz'\. There is 'conv1'"),
        ([], r"no layer was asked of toy: give a name"),
    ],
)
def test_unknown_layers_are_named(asked, message):
    """What is not there is refused with what is near."""
    with pytest.raises(NetworkError, match=message):
        resolve_layers(asked, RESIDUAL, network="toy")


def test_aliases_are_the_last_inside():
    """Every module path stands for its last tap, and every tap for itself."""
    aliases = module_aliases([each.name for each in RESIDUAL])
    assert aliases["layer1"] == aliases["layer1.0"] == "layer1.0.relu_1"
    assert aliases["layer2"] == "layer2.0.relu"
    assert aliases["layer1.0.relu"] == "layer1.0.relu"
    assert "" not in aliases


def test_stages_of_branches_and_detours():
    """A branch that runs ahead or lags behind does not add a stage."""
    found = stages(
        [
            layer("a.cat", (4, 8, 8)),
            layer("b.left", (4, 4, 4)),
            layer("b.right", (4, 8, 8)),
            layer("b.cat", (4, 4, 4), is_module=False),
            layer("fc", (3,)),
        ]
    )
    assert found == ["a.cat", "b.cat", "fc"]


def test_stages_pass_over_reshaped_intermediates():
    """A resolution that only a function gives is no stage."""
    found = stages(
        [
            layer("patches", (4, 7, 7)),
            layer("reshape", (4, 49), is_module=False),
            layer("encoder.ln", (50, 4)),
            layer("getitem", (4,), is_module=False),
        ]
    )
    assert found == ["patches", "encoder.ln", "getitem"]


def test_stages_of_functions_alone():
    """Where no module ends, each resolution gives its last tap."""
    found = stages(
        [
            layer("conv2d", (4, 8, 8), is_module=False),
            layer("relu", (4, 8, 8), is_module=False),
            layer("max_pool2d", (4, 4, 4), is_module=False),
        ]
    )
    assert found == ["relu", "max_pool2d"]


def test_table():
    """Columns, order, types and numbers are as documented."""
    table = layer_table(
        [layer("conv", (8, 4, 4), flops=10), layer("tokens", (5, 6)), layer("fc", (3,))]
    )
    assert list(table.columns) == [
        "type",
        "shape",
        "format",
        "features",
        "nbytes",
        "nbytes_full",
        "flops",
    ]
    assert table.index.name == "layer"
    assert list(table.index) == ["conv", "tokens", "fc"]
    assert table["features"].tolist() == [8, 6, 3]
    assert table["nbytes"].tolist() == [32, 24, 12]
    assert table["nbytes_full"].tolist() == [8 * 4 * 4 * 4, 5 * 6 * 4, 12]
    assert table["format"].tolist() == ["NCHW", "NLC", "NC"]
    assert table.loc["conv", "shape"] == (8, 4, 4)
    assert table["features"].dtype == table["flops"].dtype == "int64"


def test_features_of_odd_ranks():
    """What has no positions counts all its entries."""
    video = Layer(
        name="v", type="X", is_module=True, shape=(2, 3, 4, 5), axes=(), flops=0
    )
    assert video.features == 120
    assert video.format == ""
    assert video.resolution == ()
    assert layer("avgpool", (16, 1, 1)).resolution == ()
    assert layer("conv", (16, 1, 2)).resolution == (1, 2)
