"""What is computed from the middle of a network is what is computed from its input."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn

from embedkit.errors import InputError, NetworkError
from embedkit.networks.load import load_network

calls: list[str] = []


class Box:
    """Holds a tensor where nobody looks."""

    def __init__(self, value):
        self.value = value


def boxed(x):
    """Return a tensor in a box."""
    return Box(x)


def counted(x):
    """A step whose runs are counted."""
    calls.append("counted")
    return x * 2


def second_of(x, y):
    """Return a value as it is, in spite of another."""
    return y


fx.wrap("boxed")
fx.wrap("second_of")
fx.wrap("counted")


class Works(nn.Module):
    """Has a function for a forward pass, and parts that functions like."""

    def __init__(self, work):
        super().__init__()
        self.work = work
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.next = nn.Conv2d(6, 6, 1)
        self.relu = nn.ReLU(inplace=True)
        self.scratch = nn.Parameter(torch.ones(6, 8, 8))
        self.batch = nn.Parameter(torch.ones(5, 3, 8, 8))

    def forward(self, x):
        return self.work(self, x)


def network_of(work):
    """A network of a function for pictures of 8 × 8."""
    torch.manual_seed(0)
    return load_network(Works(work), transform=lambda image: torch.zeros(3, 8, 8))


def sized(size):
    """A transform that gives square pictures of some size."""
    return lambda image: torch.zeros(3, size, size)


def assert_starts_exact(network, batch, *, every=1, pool="none"):
    """Compare everything that can be computed from every n-th layer, to the bit.

    Returns the pairs of layers that were compared.
    """
    names = list(network.layers.index)
    raw = network.taps("all", pool="none").forward(batch)
    expected = network.taps("all", pool=pool).forward(batch)
    pairs = []
    for start in names[::every]:
        able = [layer for layer in names if network.can_start(start, [layer])]
        if able:
            graph = network.taps(able, pool=pool, start=start)
            found = graph.forward(raw[start])
            assert list(found) == able
            for layer, value in found.items():
                said = f"{layer} from {start}"
                np.testing.assert_array_equal(value, expected[layer], err_msg=said)
            pairs += [(start, layer) for layer in able]
    return pairs


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_0", "mobilenet_v2"])
def test_networks_start_anywhere(name, count, noise):
    """Shortcuts, branches and rectifiers in place are the same from any layer."""
    network = load_network(name, weights=None, transform=sized(64))
    pairs = assert_starts_exact(network, noise(count, 3, 64, 64), every=4)
    assert len(pairs) >= len(network.layers)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "every"),
    [
        ("vgg11_bn", 64, 3),
        ("densenet121", 64, 90),
        ("vit_b_16", 224, 23),
        ("swin_t", 224, 25),
        ("convnext_tiny", 64, 14),
        ("shufflenet_v2_x0_5", 64, 31),
    ],
)
def test_large_networks_start_anywhere(name, size, every, noise):
    """Flat, dense, token, window, channels-last and shuffled networks do, too."""
    network = load_network(name, weights=None, transform=sized(size))
    for pool in ("none", "avg"):
        assert assert_starts_exact(
            network, noise(2, 3, size, size), every=every, pool=pool
        )


def test_shortcuts_have_to_be_passed(resnet18):
    """A block's inside is not enough for what the shortcut around it reaches."""
    can = resnet18.can_start
    assert can("layer1.1.relu_1", "stages") is False  # some stages come before
    assert can("layer1.1.relu_1", ["layer2.0.bn2", "layer4.1.relu_1", "fc"])
    assert can("layer2.0.conv1", ["layer2.0.conv2"])
    assert not can("layer2.0.conv1", ["layer2.0.add"])
    assert not can("layer2.0.conv1", ["layer2.0.conv2", "layer2.0.add"])
    assert not can("layer2.0.bn2", ["layer2.0.add"])
    assert can("layer2.0.add", ["layer2.0.relu_1"])


def test_a_layer_gives_itself_and_nothing_before(resnet18):
    """Its own value is there, and what comes after it can be computed."""
    assert resnet18.can_start("fc", ["fc"])
    assert not resnet18.can_start("fc", ["conv1"])
    assert not resnet18.can_start("fc", ["conv1", "fc"])
    assert resnet18.can_start("conv1", ["conv1", "fc"])
    assert resnet18.can_start("conv1", "last")


@pytest.mark.parametrize("pool", ["avg", "max", "gem", "avg2x2", "max2x2", "flatten"])
@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_0", "mobilenet_v2"])
def test_a_stored_map_is_pooled_like_the_map_on_its_way(name, pool, noise):
    """Also one that the network overwrites right behind it: every map, to the bit."""
    network = load_network(name, weights=None, transform=sized(64))
    batch = noise(2, 3, 64, 64)
    maps = [each for each, shape in network.layers["shape"].items() if len(shape) == 3]
    raw = network.taps(maps, pool="none").forward(batch)
    expected = network.taps(maps, pool=pool).forward(batch)

    for layer in maps:
        found = network.taps([layer], pool=pool, start=layer).forward(raw[layer])

        np.testing.assert_array_equal(found[layer], expected[layer], err_msg=layer)


def write_to_view(self, x):
    whole = self.conv(x)
    half = whole[:, :3]
    half.mul_(0)
    return whole.flatten(1)


def read_old_alias(self, x):
    whole = self.conv(x)
    view = whole.flatten(2)
    whole.sigmoid_()
    return view * 2


def write_old_alias(self, x):
    whole = self.conv(x)
    half = whole[:, :3]
    out = whole.sigmoid_()
    half.mul_(0)
    return out * 2


def scratch_from_input(self, x):
    first = self.conv(x)
    self.scratch.copy_(first[0])
    second = self.next(first)
    return second * self.scratch


def scratch_from_start(self, x):
    scratch = self.scratch * 2
    scratch.add_(1)
    first = self.conv(x)
    scratch.mul_(first[0])
    second = self.next(first)
    return second * scratch


def scratch_is_start(self, x):
    scratch = self.batch * 2
    out = scratch.add_(x)
    return out.exp() + scratch.flatten(2).reshape(out.shape)


def constant_alias(self, x):
    scratch = self.batch * 2
    out = torch.add(x, 1, out=scratch)
    last = out * 2
    scratch.mul_(0)
    return last + out


def start_is_constant(self, x):
    scratch = self.batch * 2
    out = second_of(x, scratch)
    last = out * 2
    scratch.mul_(0)
    return last + out


def shape_of_input(self, x):
    first = self.conv(x)
    return first.flatten(2).reshape(x.shape[0], -1)


def shape_of_start(self, x):
    first = self.conv(x)
    return first.flatten(2).reshape(first.shape[0], -1)


def halves(self, x):
    half = self.conv(x).half()
    return (half * 3).relu_().float()


def doubles(self, x):
    double = self.conv(x).double()
    return (double * 3).float()


def in_a_box(self, x):
    held = boxed(self.conv(x))
    return held.value * 2


@pytest.mark.parametrize(
    ("work", "start", "layer", "can"),
    [
        (write_to_view, "conv", "flatten", True),
        (write_to_view, "getitem", "flatten", False),
        (write_to_view, "mul_", "flatten", False),
        (write_to_view, "getitem", "mul_", True),
        (read_old_alias, "conv", "mul", True),
        (read_old_alias, "sigmoid_", "mul", False),
        (read_old_alias, "flatten", "mul", False),
        (write_old_alias, "conv", "mul", True),
        (write_old_alias, "sigmoid_", "mul", False),
        (scratch_from_input, "conv", "mul", True),
        (scratch_from_input, "next", "mul", False),
        (scratch_from_start, "conv", "mul_1", True),
        (scratch_from_start, "next", "mul_1", False),
        (scratch_is_start, "add_", "exp", True),
        (scratch_is_start, "add_", "add", False),
        (constant_alias, "add", "mul_1", True),
        (constant_alias, "add", "add_1", False),
        (start_is_constant, "second_of", "mul_1", True),
        (start_is_constant, "second_of", "add", False),
        (shape_of_input, "conv", "flatten", True),
        (shape_of_input, "conv", "reshape", False),
        (shape_of_start, "conv", "reshape", True),
        (halves, "conv", "float", True),
        (halves, "half", "float", True),
        (halves, "half", "relu_", True),
        (doubles, "conv", "float", True),
        (doubles, "double", "float", False),
        (in_a_box, "conv", "mul", False),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_memory_is_minded(work, start, layer, can, noise):
    """Aliases, writes, buffers, shapes and types decide what a value is enough for."""
    network = network_of(work)
    assert network.can_start(start, [layer]) is can
    pairs = assert_starts_exact(network, noise(5, 3, 8, 8))
    assert ((start, layer) in pairs) is can


def test_nothing_else_runs(noise):
    """Steps before the start, beside the way and behind the last tap are left out."""

    def work(self, x):
        first = self.conv(counted(x))
        counted(first)
        last = self.next(first)
        return counted(last)

    network = network_of(work)
    value = network.taps(["conv"], pool="none").forward(noise(2, 3, 8, 8))["conv"]
    calls.clear()
    network.taps(["next"], start="conv").forward(value)
    assert calls == []
    network.taps("counted_2", start="conv").forward(value)
    assert calls == ["counted"]


def test_values_given_are_left_alone(noise):
    """What is written in place is written to a copy."""
    network = network_of(lambda self, x: self.relu(self.conv(x)))
    value = network.taps(["conv"], pool="none").forward(noise(2, 3, 8, 8))["conv"]
    before = value.copy()
    value.flags.writeable = False
    found = network.taps(["relu"], pool="none", start="conv").forward(value)
    np.testing.assert_array_equal(value, before)
    np.testing.assert_array_equal(found["relu"], np.maximum(before, 0))


def test_unknown_starts_are_told_with_the_nearest(resnet18):
    """A start is a canonical name."""
    message = r"network resnet18 has no layer 'layer1.1.relu_2'\. Did you mean 'layer1"
    for ask in (resnet18.can_start, lambda *a: resnet18.taps(a[1], start=a[0])):
        with pytest.raises(NetworkError, match=message):
            ask("layer1.1.relu_2", ["fc"])


def test_impossible_starts_are_refused(resnet18):
    """The first layer that needs more is named."""
    message = (
        "layer 'layer2.0.add' of resnet18 cannot be computed from the float32 value of "
        "layer 'layer2.0.conv1' alone: start from a layer that everything before "
        "'layer2.0.add' passes through, or leave start out"
    )
    layers = ["layer2.0.conv2", "layer2.0.add", "fc"]
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        resnet18.taps(layers, start="layer2.0.conv1")


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2, 64, 16, 15), "float32"),
        ((64, 16, 16), "float32"),
        ((), "float32"),
        ((2, 64, 16, 16), "float16"),
    ],
)
def test_unfit_values_are_refused(shape, dtype):
    """What is not the layer's value is told from it by shape and type."""
    network = load_network("resnet18", weights=None, transform=sized(64))
    graph = network.taps(["fc"], start="layer1.1.relu_1")
    message = (
        f"a batch of shape {shape} and type {dtype} was given: to start from layer "
        "'layer1.1.relu_1' it has to be float32 of shape (images, 64, 16, 16), as "
        "taps(['layer1.1.relu_1'], pool='none') gives it"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        graph.forward(np.zeros(shape, dtype))


def test_start_is_told(resnet18):
    """A graph knows where it starts, and says so."""
    graph = resnet18.taps(["fc"], start="avgpool")
    assert graph.start == "avgpool"
    assert repr(graph) == (
        f"<TapGraph: from 'avgpool', 1 layers, pool 'avg', on {graph.device}>"
    )
    assert resnet18.taps(["fc"]).start is None


OPERATIONS = ["add", "double", "transpose", "relu_", "add_", "part_", "scratch"]


class Program(nn.Module):
    """Works through a list of operations on all values so far."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps
        self.ones = nn.Parameter(torch.ones(5, 4, 4))

    def forward(self, x):
        values = [x[:, 0] * 1, self.ones * 1]
        for operation, first, second in self.steps:
            a, b = values[first % len(values)], values[second % len(values)]
            match operation:
                case "add":
                    values.append(a + b)
                case "double":
                    values.append(a * 2)
                case "transpose":
                    values.append(a.transpose(1, 2))
                case "relu_":
                    values.append(a.relu_())
                case "add_":
                    values.append(a.add_(b + 0))
                case "part_":
                    a[:, :2].mul_(3)
                case "scratch":
                    values.append(self.ones * 5)
        return values


def steps(operations):
    """Lists of operations and the values they work on, recent ones more often."""
    number = st.integers(0, 11)
    return st.lists(
        st.tuples(st.sampled_from(operations), number, number), min_size=2, max_size=9
    )


def program_of(made):
    return load_network(Program(made), transform=lambda image: torch.zeros(1, 4, 4))


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(made=steps(OPERATIONS))
def test_any_program_starts_right(made):
    """Whatever writes wherever: what can be computed from a value is computed right."""
    batch = np.random.default_rng(0).standard_normal((5, 1, 4, 4), dtype=np.float32)
    assert_starts_exact(program_of(made), batch)


def reaches_input_around(tap, start):
    """Whether there is a way back from a tap to the input that avoids a node."""
    if tap is start:
        return False
    ways = [reaches_input_around(each, start) for each in tap.all_input_nodes]
    return tap.op == "placeholder" or any(ways)


@settings(max_examples=25, deadline=None)
@given(made=steps(["add", "double", "scratch"]))
def test_pure_programs_start_wherever_they_can(made):
    """Where nothing is written, a value is enough if every way leads through it."""
    network = program_of(made)
    nodes = network._measured.nodes
    for start in nodes:
        for layer in nodes:
            enough = not reaches_input_around(nodes[layer], nodes[start])
            assert network.can_start(start, [layer]) is enough
