"""Every tap is what the network computed, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import fx, nn

from embedkit.errors import InputError, NetworkError
from embedkit.networks.load import load_network
from embedkit.networks.network import Network

calls: list[str] = []


def explode(x):
    """A step that must not run when nothing behind it is asked for."""
    calls.append("explode")
    return x * 2


fx.wrap("explode")


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


class WorksOnItsInput(nn.Module):
    """Overwrites what it is given."""

    def forward(self, x):
        return x.mul_(0).add_(1)


class StopsHalfway(nn.Module):
    """Has a step behind its first layer that can be counted."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return explode(self.conv(x))


class KeepsConstant(nn.Module):
    """Holds a constant in its code."""

    def forward(self, x):
        return x + torch.tensor([[[1.0]], [[2.0]], [[3.0]]])


class ManyRanks(nn.Module):
    """Gives values of one to five axes, and some that are no layers."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((2, 3), 0.5))

    def forward(self, x):
        count = x.shape[0]
        tokens = x.flatten(2)
        video = x.reshape(count, 3, 2, -1, x.shape[3])
        vector = tokens.sum((1, 2))
        whole = vector > 0
        first, second = tokens.chunk(2, dim=2)
        constant = self.scale * 2
        return (video, whole, first * constant.sum(), second)


def little(module: nn.Module) -> Network:
    """A network of a module for pictures of 8 × 8."""
    torch.manual_seed(0)
    return load_network(module, transform=lambda image: torch.zeros(3, 8, 8))


def sized(size):
    """A transform that gives square pictures of some size."""
    return lambda image: torch.zeros(3, size, size)


def test_nothing_behind_the_last_tap_runs(noise):
    """A step that no tap needs is not computed."""
    network = little(StopsHalfway())
    first, last = network.taps("conv"), network.taps("explode")
    calls.clear()
    first.forward(noise(2, 3, 8, 8))
    assert calls == []
    last.forward(noise(2, 3, 8, 8))
    assert calls == ["explode"]


def test_batch_is_left_alone(noise):
    """A network that overwrites its input overwrites a copy."""
    batch = noise(2, 3, 8, 8)
    before = batch.copy()
    batch.flags.writeable = False
    taps = little(WorksOnItsInput()).taps("all").forward(batch)
    np.testing.assert_array_equal(batch, before)
    np.testing.assert_array_equal(taps["add_"], np.ones((2, 3)))


@pytest.mark.parametrize("pool", ["avg", "max", "flatten", "none"])
def test_results_are_own_contiguous_float32(digits, noise, pool):
    """What comes out is plain memory of the promised shape that nothing else holds."""
    graph = digits.taps(["stage1", "avgpool", "flatten", "fc"], pool=pool)
    found = graph.forward(noise(3, 1, 16, 16))
    assert tuple(found) == graph.layers == ("stage1.relu_1", "avgpool", "flatten", "fc")
    for layer, array in found.items():
        assert array.shape == (3, *graph.shapes[layer])
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert array.flags.owndata
    assert not np.shares_memory(found["avgpool"], found["flatten"])


def test_rows_do_not_depend_on_what_is_tapped(digits, noise):
    """A layer is the same alone and among all others."""
    batch = noise(5, 1, 16, 16)
    together = digits.taps("all").forward(batch)
    for layer in ("relu", "stage2.add", "fc"):
        alone = digits.taps([layer]).forward(batch)
        np.testing.assert_array_equal(alone[layer], together[layer])


def test_ranks_and_what_is_no_layer(noise):
    """Values of any rank have a shape; shapes, masks and constants are no layers."""
    network = little(ManyRanks())
    batch = noise(3, 3, 8, 8)
    graph = network.taps("all")
    found = graph.forward(batch)
    shapes = network.layers["shape"].to_dict()
    assert shapes == {
        "flatten": (3, 64),
        "reshape": (3, 2, 4, 8),
        "sum": (),
        "getitem_2": (3, 32),
        "getitem_3": (3, 32),
        "mul_1": (3, 32),
    }
    assert {layer: array.shape[1:] for layer, array in found.items()} == graph.shapes
    expected = batch.sum((1, 2, 3), dtype=np.float64)
    np.testing.assert_allclose(found["sum"][:, 0], expected, rtol=1e-4, atol=1e-4)


class Stacks(nn.Module):
    """Puts copies of the batch in front of the batch."""

    def __init__(self, copies):
        super().__init__()
        self.copies = copies
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        x = self.conv(x)
        return torch.stack([x] * self.copies).sum(0)


@pytest.mark.parametrize("copies", [2, 3])
def test_stacks_are_no_layers(noise, copies):
    """Rows of a stack of keys and values are not images."""
    network = little(Stacks(copies))
    assert list(network.layers.index) == ["conv", "sum"]
    found = network.taps("all").forward(noise(2, 3, 8, 8))
    assert {layer: len(array) for layer, array in found.items()} == {
        "conv": 2,
        "sum": 2,
    }


def test_rows_that_are_no_images_are_refused(noise):
    """What passed for a batch when it was measured does not when it is run."""
    network = little(Stacks(5))
    assert "stack" in network.layers.index
    message = (
        r"layer 'stack' gave shape \(5, 3, 4, 8, 8\) where \(3, 5, 4, 8, 8\) was "
        "expected for 3 images: leave this layer out"
    )
    with pytest.raises(NetworkError, match=message) as caught:
        network.taps("all", pool="none").forward(noise(3, 3, 8, 8))
    assert "\n" not in str(caught.value)
    kept = network.taps(["conv", "sum"]).forward(noise(3, 3, 8, 8))
    assert list(kept) == ["conv", "sum"]


def test_pictures_of_another_size_are_refused(noise):
    """A value is promised a shape, and nothing else is handed out under its name."""
    taps = little(ShortcutSum()).taps("first", pool="flatten")
    message = r"'first' gave shape \(2, 48\) where \(2, 192\) was expected for 2 images"
    with pytest.raises(NetworkError, match=message):
        taps.forward(noise(2, 3, 4, 4))


def test_device_and_repr(digits):
    """A tap graph tells where it runs and what it gives."""
    graph = digits.taps(["fc"], pool="none")
    assert graph.device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert repr(graph) == f"<TapGraph: 1 layers, pool 'none', on {graph.device}>"
    assert graph.backend == digits.backend == "torch"


@pytest.mark.parametrize(
    "batch",
    [np.zeros((1, 16, 16), np.float32), np.zeros((1, 1, 16, 16), np.float64)],
    ids=["rank", "dtype"],
)
def test_unfit_batches_are_refused(digits, batch):
    """A batch of another rank or type is not converted silently."""
    with pytest.raises(
        InputError, match=r"a batch of shape .* was given: it has to be"
    ):
        digits.taps("fc").forward(batch)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # PyTorch's own switch warns
@pytest.mark.parametrize("name", ["squeezenet1_0", "resnet18"])
def test_other_kernels_stay_within_the_tolerance(name, noise):
    """Other numbers of threads and other kernels move rows far less than allowed."""
    network = load_network(name, weights=None, transform=sized(64))
    graph, batch = network.taps("all", pool="none"), noise(2, 3, 64, 64)
    expected, threads = graph.forward(batch), torch.get_num_threads()
    with torch.backends.mkldnn.flags(enabled=False):
        plain = graph.forward(batch)
    torch.set_num_threads(1 if threads > 1 else 2)
    try:
        other = graph.forward(batch)
    finally:
        torch.set_num_threads(threads)
    assert any(not np.array_equal(plain[one], expected[one]) for one in expected)
    for layer, values in expected.items():
        rows = values.reshape(2, -1)
        most = np.abs(rows).max(1, keepdims=True) * graph.tolerance / 8
        for found in (plain, other):
            assert (np.abs(found[layer].reshape(2, -1) - rows) <= most).all(), layer


def test_module_is_not_touched_by_tracing():
    """Tracing leaves no constants on the network, so its files stay the same."""
    network = little(KeepsConstant())
    assert not [name for name in vars(network.module) if "constant" in name]
    assert network.taps("add").forward(np.zeros((1, 3, 2, 2), np.float32))[
        "add"
    ].tolist() == [[1, 2, 3]]
