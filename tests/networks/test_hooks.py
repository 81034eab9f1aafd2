"""Networks that cannot be traced: their module calls are layers, exact all the same."""

from __future__ import annotations

import copy
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from embedkit.errors import InputError, NetworkError
from embedkit.files.files import files_at
from embedkit.networks.load import load_network
from embedkit.networks.spool import load_spooled

computed: list[str] = []


class Counted(nn.Module):
    """Tells when it runs."""

    def forward(self, x):
        computed.append("counted")
        return x * 2


class Wandering(nn.Module):
    """Goes one way or another, and overwrites what its modules gave."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU(inplace=True)
        self.rare = nn.Identity()
        self.counted = Counted()
        self.same = self.relu

    def forward(self, x):
        x = self.conv(x)
        if x.sum() > 1e6:
            return self.rare(x)
        x = self.relu(x)
        x[:, :2].add_(1)
        x.view(len(x), -1).mul_(-1)
        x = self.same(x)
        torch.add(x, 1, out=x)
        functional.relu(x, inplace=True)
        x = self.relu(x)
        x += 5
        return self.counted(x)


class Parts(nn.Module):
    """Returns tensors inside tuples and dicts, and takes a dict."""

    def forward(self, given, *more):
        x = given["x"]
        (mask,) = more
        return {
            "maps": [x, x + 1],
            "mask": mask,
            "count": len(x),
            "mean": x.mean((2, 3)),
        }


class Spreads(nn.Module):
    """Cannot be traced and has a module with several values."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.parts = Parts()

    def forward(self, x):
        if float(x.mean()) > 1e6:
            return x
        x = self.conv(x)
        found = self.parts({"x": x}, x > 0)
        x.zero_()
        return tuple(found["maps"]), found["mean"]


class ChangesShape(nn.Module):
    """Gives another shape, or no tensor, where pictures are bright."""

    def __init__(self, other):
        super().__init__()
        self.other = other
        self.part = nn.Identity()

    def forward(self, x):
        return self.part(self.other(x) if x.sum() > 0 else x)


def zeros(image):
    """A transform to pictures of 8 × 8."""
    return torch.zeros(3, 8, 8)


def little(module, **options):
    """A network of a module for pictures of 8 × 8."""
    torch.manual_seed(0)
    return load_network(module, transform=zeros, **options)


def test_every_call_is_a_layer_as_it_was(called, noise):
    """Nothing that is written later reaches a tap."""
    network, batch = little(Wandering()), noise(2, 3, 8, 8)
    expected = called(network.module, batch)

    found = network.taps("all", pool="none").forward(batch)
    averaged = network.taps("all").forward(batch)

    assert list(found) == [
        "conv#0",
        "relu#0",
        "relu#1",
        "relu#2",
        "counted#0",
        "forward#0",
    ]
    for layer, values in found.items():
        np.testing.assert_array_equal(values, expected[layer], err_msg=layer)
        mean = expected[layer].mean((2, 3))
        np.testing.assert_array_equal(averaged[layer], mean, err_msg=layer)


def test_values_in_dicts_and_tuples_are_layers(called, noise):
    """Every floating tensor with the batch in front has a name of its own."""
    network, batch = little(Spreads()), noise(2, 3, 8, 8)
    expected = called(network.module, batch)["parts#0"]
    found = network.taps("all", pool="none").forward(batch)
    assert list(found) == [
        "conv#0",
        "parts#0.maps.0",
        "parts#0.maps.1",
        "parts#0.mean",
        "forward#0.0.0",
        "forward#0.0.1",
        "forward#0.1",
    ]
    np.testing.assert_array_equal(found["parts#0.maps.0"], expected["maps"][0])
    np.testing.assert_array_equal(found["parts#0.mean"], expected["mean"])
    assert not found["forward#0.0.0"].any()
    assert network.resolve("parts") == ("parts#0.mean",)


def test_it_tells_that_it_is_not_traced(digits):
    """The repr says why, and what its layers are."""
    network = little(Wandering())
    assert not network.traced
    assert digits.traced
    assert repr(network).endswith(
        "input 3×8×8 · not traceable: TraceError: symbolically traced variables cannot be "
        "used as inputs to control flow; layers are module calls"
    )


def test_names_and_aliases():
    """A path stands for its last call; unknown names are answered."""
    network = little(Wandering())
    assert network.aliases["relu"] == "relu#2"
    assert network.resolve(["relu", "conv#0"]) == ("conv#0", "relu#2")
    assert network.resolve("relu*") == ("relu#0", "relu#1", "relu#2")
    assert network.resolve("last") == network.resolve("forward") == ("forward#0",)
    assert list(network.layers["type"])[:2] == ["Conv2d", "ReLU"]
    assert network.layers["flops"].is_monotonic_increasing
    assert network.layers.loc["conv#0", "flops"] == 2 * 4 * 27 * 36
    with pytest.raises(NetworkError, match=r"no layer 'relu#3'"):
        network.taps("relu#3")


def test_nothing_behind_the_last_tap_runs(noise):
    """The forward pass is cut off, and is not where all is asked."""
    network = little(Wandering())
    first, every = network.taps("relu"), network.taps("all")
    computed.clear()
    first.forward(noise(2, 3, 8, 8))
    assert computed == []
    every.forward(noise(2, 3, 8, 8))
    assert computed == ["counted"]


def test_no_start():
    """Nothing is computed from a stored layer."""
    network = little(Wandering())
    assert not network.can_start("conv#0", "relu#0")
    with pytest.raises(InputError, match=r"'relu#0' of Wandering cannot be computed"):
        network.taps("relu#0", start="conv#0")
    with pytest.raises(NetworkError, match="no layer 'conf'"):
        network.can_start("conf", "relu#0")


def test_another_way_is_refused(noise):
    """A layer that a batch does not reach is named."""
    graph = little(Wandering()).taps(["conv#0", "relu#2"])
    sign = np.sign(float(little(Wandering()).module.conv.weight.sum()))
    bright = np.full((2, 3, 8, 8), 1e7 * sign, np.float32)
    message = r"layer 'relu#2' was not computed: this network .* leave this layer out"
    with pytest.raises(NetworkError, match=message):
        graph.forward(bright)
    assert list(graph.forward(noise(2, 3, 8, 8))) == ["conv#0", "relu#2"]


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (lambda x: x[:, :, :4], r"gave shape \(2, 3, 4, 8\) where \(2, 3, 8, 8\)"),
        (lambda x: x[:1], r"gave shape \(1, 3, 8, 8\) where \(2, 3, 8, 8\)"),
        (lambda x: x > 0, "gave a Tensor, no floating tensor"),
        (lambda x: "text", "gave a str, no floating tensor"),
    ],
)
def test_another_value_is_refused(other, found):
    """What a layer gives has to be what it gave when it was measured."""
    network = little(ChangesShape(other))
    graph = network.taps("part#0")
    with pytest.raises(NetworkError, match=f"layer 'part#0' {found}"):
        graph.forward(np.ones((2, 3, 8, 8), np.float32))
    assert graph.forward(np.zeros((2, 3, 8, 8), np.float32))["part#0"].shape == (2, 3)


def test_hooks_are_put_back(noise):
    """After runs, cut off runs and failed runs the module is as it was."""
    network = little(Wandering())
    network.taps("relu#0").forward(noise(2, 3, 8, 8))
    with pytest.raises(NetworkError):
        network.taps("conv#0").forward(noise(2, 4, 9, 9)[:, :3])
    assert not any(part._forward_hooks for part in network.module.modules())


def test_threads_take_turns(noise):
    """Two threads with other layers do not meet in each other's hooks."""
    network, batch = little(Wandering()), noise(2, 3, 8, 8)
    graphs = [network.taps("relu#1"), network.taps(["conv#0", "relu#2"])]
    expected = [graph.forward(batch) for graph in graphs]
    failed = []

    def work(graph, truth):
        for _ in range(20):
            found = graph.forward(batch)
            if any(not np.array_equal(found[one], truth[one]) for one in truth):
                failed.append(graph)

    threads = [
        threading.Thread(target=work, args=pair)
        for pair in zip(graphs, expected, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_identity(noise):
    """Classes, settings and weights count, running does not."""
    network = little(Wandering())
    before = network.identity
    again = little(copy.deepcopy(network.module))
    again.taps("relu#0").forward(noise(1, 3, 8, 8))
    assert again.identity == before

    other = copy.deepcopy(network.module)
    other.conv.weight.data[0, 0, 0, 0] += 1
    changed = little(other).identity_parts
    assert changed["weights"] != network.identity_parts["weights"]
    assert changed["architecture"] == network.identity_parts["architecture"]

    other = copy.deepcopy(network.module)
    other.conv.stride = (2, 2)
    other_parts = little(other).identity_parts
    assert other_parts["architecture"] != network.identity_parts["architecture"]


def test_spooled_network_is_the_same(tmp_path, noise):
    """Another process gets the same layers, values and identity."""
    network, batch = little(Wandering()), noise(2, 3, 8, 8)
    again = load_spooled(network.spool(files_at(tmp_path)))
    assert again.identity == network.identity
    assert not again.traced
    expected = network.taps("all").forward(batch)
    found = again.taps("all").forward(batch)
    assert list(found) == list(expected)
    assert all(np.array_equal(found[one], expected[one]) for one in expected)


class Fails(nn.Module):
    """Works with no picture."""

    def forward(self, x):
        if x.sum() < 1e6:
            raise ValueError("too small")
        return x


class GivesText(nn.Module):
    """Returns no tensor."""

    def forward(self, x):
        return "even" if x.sum() > 0 else "odd"


def test_networks_that_fail_are_named():
    """Before any block starts it is clear which network fails, and how."""
    with pytest.raises(NetworkError, match=r"network Fails does not .*: too small"):
        little(Fails()).resolve("all")
    with pytest.raises(NetworkError, match="network GivesText has no layer"):
        little(GivesText()).resolve("all")


def test_transforms_that_fail_are_named():
    """The probe picture shows it before any block starts."""

    def crop(image):
        raise ValueError("crop is larger than the image")

    network = load_network(nn.Conv2d(3, 4, 1), transform=crop, name="mine")
    message = (
        r"the transform crop of network mine fails on a 512×384 image of mode RGB "
        r"\(ValueError: crop is larger than the image\): pass transform="
    )
    with pytest.raises(NetworkError, match=message):
        network.resolve("all")
    refused = load_network(
        nn.Conv2d(3, 4, 1), transform=lambda image: network.prepare(image), name="outer"
    )
    with pytest.raises(NetworkError, match="of network mine fails"):
        refused.prepare(Image.new("RGB", (4, 4)))


class ChannelsLast(nn.Module):
    """Works with its channels at the end for a while, and cannot be traced."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.linear = nn.Linear(4, 5)
        self.act = nn.GELU()
        self.last = nn.Dropout()
        self.norm = nn.BatchNorm2d(5)

    def forward(self, x):
        if x.sum() > 1e9:
            return x
        x = self.first(x).permute(0, 2, 3, 1)
        x = self.act(self.linear(x) * 2)
        return self.norm(self.last(x.permute(0, 3, 1, -2)))


def test_averages_run_over_positions(called, noise):
    """Channels are kept where they are, at the end or behind the batch."""
    network, batch = little(ChannelsLast()), noise(2, 3, 8, 8)
    expected = called(network.module, batch)
    found = network.taps("all").forward(batch)
    for name in ("linear#0", "act#0"):
        np.testing.assert_array_equal(found[name], expected[name].mean((1, 2)))
    for name in ("first#0", "last#0", "norm#0", "forward#0"):
        np.testing.assert_array_equal(found[name], expected[name].mean((2, 3)))


class Swallows(nn.Module):
    """Lets no exception through."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        if x.sum() > 1e9:
            return x
        try:
            return self.conv(x)
        except BaseException:
            return x


def test_swallowed_cuts_do_no_harm(noise):
    """A network that catches everything runs on, and the tap is right."""
    network, batch = little(Swallows()), noise(2, 3, 8, 8)
    alone = network.taps("conv#0").forward(batch)["conv#0"]
    np.testing.assert_array_equal(alone, network.taps("all").forward(batch)["conv#0"])


class Plain(nn.Module):
    """Returns a constant and what does not come from its input, too."""

    def __init__(self):
        super().__init__()
        self.constant = nn.Embedding(5, 3)

    def forward(self, x):
        other = self.constant(torch.arange(5))
        return x if x.sum() < 1e9 else other


def test_constants_are_no_layers():
    """What has as many rows as the probe but does not come from it is left out."""
    assert list(little(Plain()).layers.index) == ["forward#0"]
