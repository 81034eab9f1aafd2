"""Every layer of every architecture, bit for bit, against values cloned at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from embedkit.networks.load import load_network


class SharedThreeTimes(nn.Module):
    """One rectifier for three values, always in place."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.relu(self.conv(x))
        x = self.relu(self.conv(x))
        return self.relu(self.conv(x) - 0.5)


class NestedShared(nn.Module):
    """Calls a block again that holds a part which is called again."""

    def __init__(self):
        super().__init__()
        self.block = SharedThreeTimes()
        self.again = nn.Sequential(self.block, self.block.relu)

    def forward(self, x):
        return self.again(self.block(x) - 0.25) + self.block.relu(x)


class InPlaceOnView(nn.Module):
    """Writes through views into the value they were cut from."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)

    def forward(self, x):
        whole = self.conv(x)
        half = whole[:, :3]
        half.mul_(0)
        whole[:, 2:].relu_()
        whole.view(whole.shape[0], -1).add_(1)
        return whole.flatten(1)


class ShortcutSum(nn.Module):
    """Adds to itself, by the operator and by the method."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1)
        self.second = nn.BatchNorm2d(3)

    def forward(self, x):
        out = self.second(self.first(x))
        out += x
        out.add_(x)
        return out


class FunctionalInPlace(nn.Module):
    """Rectifies by a function, in place, and then sums up."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        x = self.norm(x)
        x = functional.relu(x, inplace=True)
        x = x.sigmoid_()
        return functional.adaptive_avg_pool2d(x, 1).flatten(1)


class WorksOnItsInput(nn.Module):
    """Overwrites what it is given."""

    def forward(self, x):
        return x.mul_(0).add_(1)


class KeepsConstant(nn.Module):
    """Holds a constant in its code."""

    def forward(self, x):
        return x + torch.tensor([[[1.0]], [[2.0]], [[3.0]]])


class WritesOut(nn.Module):
    """Has functions write into values of before."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.same = nn.Identity()

    def forward(self, x):
        first = self.conv(x)
        second = self.same(first)
        torch.add(second, 1.0, out=first)
        third = torch.mul(first, 2.0, out=second)
        return third - 1


class Returns(nn.Module):
    """Returns a value inside a dict or a tuple."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        x = self.conv(x)
        return {"value": x, "pair": (x, x * 2)}


class ChangedByParent(nn.Module):
    """Overwrites what its child has returned."""

    def __init__(self):
        super().__init__()
        self.child = Returns()

    def forward(self, x):
        found = self.child(x)
        found["value"].zero_()
        found["pair"][1].neg_()
        return found["pair"][0] + 3, found


def sized(size):
    """A transform that gives square pictures of some size."""
    return lambda image: torch.zeros(3, size, size)


def assert_exact(network, batch, truth):
    """Compare every tap with the truth, unpooled and averaged."""
    expected = truth(network.module, batch)
    sizes = network.layers["shape"]
    axes = {layer.name: layer.axes for layer in network._measured.layers}
    raw = network.taps("all", pool="none").forward(batch)
    averaged = network.taps("all").forward(batch)
    assert list(raw) == list(sizes.index)
    for layer, found in raw.items():
        value = expected[layer]
        assert found.shape == tuple(value.shape)
        np.testing.assert_array_equal(found, value.numpy(), err_msg=layer)
        pooled = value.mean(axes[layer]) if axes[layer] else value.flatten(1)
        np.testing.assert_array_equal(averaged[layer], pooled.numpy(), err_msg=layer)


@pytest.mark.parametrize(
    "module",
    [
        SharedThreeTimes,
        NestedShared,
        InPlaceOnView,
        ShortcutSum,
        FunctionalInPlace,
        WorksOnItsInput,
        KeepsConstant,
        WritesOut,
        ChangedByParent,
    ],
)
def test_nasty_modules_are_exact(module, truth, noise):
    """Repeated modules, views, sums and functions in place change no tap."""
    torch.manual_seed(0)
    network = load_network(module(), transform=sized(8))
    assert network.traced
    assert_exact(network, noise(4, 3, 8, 8), truth)


def test_bundled_network_is_exact(digits, truth, noise):
    """All 31 taps of the bundled network are its true values."""
    assert_exact(digits, noise(8, 1, 16, 16), truth)
    assert len(digits.layers) == 31


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("squeezenet1_0", "squeezenet1_0_imagenet_deepcompression.pt"),
        ("mobilenet_v2", "mobilenet_v2_tf2ptq_torchvision.pt"),
    ],
)
def test_real_weights_are_exact(name, file, weights_folder, truth, noise):
    """Trained networks, whose values have other ranges, are exact too."""
    path = weights_folder / file
    network = load_network(name, weights=path, transform=sized(96))
    assert_exact(network, noise(2, 3, 96, 96), truth)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 64),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ("resnet50", 64),
                ("vgg16_bn", 64),
                ("densenet121", 64),
                ("mobilenet_v2", 64),
                ("googlenet", 64),
                ("squeezenet1_0", 64),
                ("alexnet", 64),
                ("efficientnet_b0", 64),
                ("convnext_tiny", 64),
                ("vit_b_16", 224),
                ("swin_t", 64),
            ]
        ),
    ],
)
def test_torchvision_is_exact(name, size, truth, noise):
    """Flat, residual, dense, branching and token networks give their true values."""
    network = load_network(name, weights=None, transform=sized(size))
    assert network.traced
    assert_exact(network, noise(2, 3, size, size), truth)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [("vit_tiny_patch16_224", 224), ("convnext_atto", 64), ("resnet10t", 64)],
)
def test_timm_is_exact(name, size, truth, called, noise):
    """Networks of another library are exact, traced or not."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    module = timm.create_model(name, pretrained=False)
    network = load_network(module, transform=sized(size))
    assert_exact(network, noise(2, 3, size, size), truth if network.traced else called)


@pytest.mark.slow
def test_common_extractor_is_wrong_where_taps_are_right(truth, noise):
    """Handing out tensors spoils a quarter of resnet50; none of ours is spoilt."""
    from torchvision.models.feature_extraction import create_feature_extractor

    network = load_network("resnet50", weights=None, transform=sized(64))
    batch = noise(2, 3, 64, 64)
    expected = truth(network.module, batch)
    common = create_feature_extractor(
        network.module,
        eval_return_nodes=list(expected),
        train_return_nodes=list(expected),
    ).eval()
    with torch.inference_mode():
        theirs = common(torch.tensor(batch))
    ours = network.taps("all", pool="none").forward(batch)

    wrong = [name for name in expected if not theirs[name].equal(expected[name])]

    assert len(expected) == 175
    assert len(wrong) >= 0.25 * len(expected)
    assert all(np.array_equal(ours[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet18", 69),
        ("mobilenet_v2", 83),
        pytest.param("resnet50", 175, marks=pytest.mark.slow),
        pytest.param("vgg11_bn", 38, marks=pytest.mark.slow),
        pytest.param("densenet121", 431, marks=pytest.mark.slow),
    ],
)
def test_names_are_torchvisions(name, count):
    """Layers are called what torchvision's extractors call them."""
    from torchvision.models.feature_extraction import get_graph_node_names

    network = load_network(name, weights=None)
    _, names = get_graph_node_names(network.module, suppress_diff_warning=True)

    assert list(network.layers.index) == names[1:]  # without the input
    assert len(network.layers) == count


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnext_tiny", "swin_t", "googlenet"])
def test_hooks_see_what_graphs_see(name, noise):
    """Run without its graph, a network has the same values, axes and operations."""
    from embedkit.networks.hooks import HookProgram

    network = load_network(name, weights=None, transform=sized(64))
    graph = {layer.name: layer for layer in network._measured.layers}
    program = HookProgram(module=network.module, reason="tested")
    picture = np.zeros((3, 64, 64), np.float32)
    hooked = program.measure(picture, name=name).layers
    both = [each for each in hooked if each.name.partition("#")[0] in graph]
    both = [each for each in both if each.name.endswith("#0")]
    leaves = [each for each in both if graph[each.name[:-2]].is_module]
    batch = noise(2, 3, 64, 64)

    pools = dict.fromkeys((each.name for each in leaves), "avg")
    taps = program.tapped(leaves, pools=pools, start=None)
    with torch.inference_mode():
        found = taps(torch.tensor(batch))
    expected = network.taps([each.name[:-2] for each in leaves]).forward(batch)

    assert len(leaves) > 40
    for each in leaves:
        known = graph[each.name[:-2]]
        assert replace(each, name=known.name) == known
        np.testing.assert_array_equal(found[each.name], expected[known.name])
