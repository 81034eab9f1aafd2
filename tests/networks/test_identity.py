"""What changes a digest, and what does not."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from embedkit.networks.identity import (
    architecture_digest,
    combine,
    describe_transform,
)
from embedkit.networks.taps import trace


def digest(module):
    return architecture_digest(trace(module.eval(), name="toy"))


class Scaled(nn.Module):
    """Multiplies by a number in its code."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


class Shifted(nn.Module):
    """Adds a tensor that is neither parameter nor buffer."""

    def __init__(self, shift):
        super().__init__()
        self.shift = shift

    def forward(self, x):
        return x + torch.tensor(self.shift)


class Attends(nn.Module):
    """Calls a module whose description does not tell its settings."""

    def __init__(self, heads):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, heads, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)[0]


def test_weights_are_no_part_of_architecture():
    """Two networks of one design have one digest."""
    assert digest(nn.Conv2d(3, 4, 3)) == digest(nn.Conv2d(3, 4, 3))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3, stride=2)),
        (nn.Sequential(nn.ReLU()), nn.Sequential(nn.GELU())),
        (Scaled(2.0), Scaled(3.0)),
        (Shifted([1.0]), Shifted([2.0])),
        (Attends(2), Attends(4)),
        (nn.Sequential(nn.ReLU()), nn.Sequential(nn.ReLU(), nn.ReLU())),
    ],
    ids=["stride", "type", "number", "constant", "attribute", "depth"],
)
def test_designs_differ(one, other):
    """Whatever changes the result changes the digest."""
    assert digest(one) != digest(other)


def make_scaler(factor, *, filename="<cell 1>", lines=0):
    """A function written somewhere, as a notebook would make it."""
    source = "\n" * lines + "def scale(image):\n    return image * factor\n"
    space = {"factor": factor, "__name__": "__main__"}
    exec(compile(source, filename, "exec"), space)
    return space["scale"]


def test_functions_are_described_by_code_and_data():
    """Moving a function's cell changes nothing; changing what it reads does."""
    first = describe_transform(make_scaler(2))
    assert first.startswith("sha256:")
    assert first == describe_transform(make_scaler(2, filename="<cell 9>", lines=7))
    assert first != describe_transform(make_scaler(3))
    assert "0x" not in first


def test_partials_of_functions_are_described():
    """A repr that holds an address is not used."""
    one = functools.partial(make_scaler(2), size=1)
    same = functools.partial(make_scaler(2), size=1)
    other = functools.partial(make_scaler(2), size=2)
    assert "0x" in repr(one)
    assert describe_transform(one) == describe_transform(same)
    assert describe_transform(one) != describe_transform(other)


def test_objects_describe_themselves():
    """A repr without an address is the description."""
    assert describe_transform(slice(1, 2)) == "slice(1, 2, None)"


def test_combined_parts_depend_on_names_and_values():
    """Order does not count, names and values do."""
    assert combine({"a": "1", "b": "2"}) == combine({"b": "2", "a": "1"})
    assert combine({"a": "1", "b": "2"}) != combine({"a": "2", "b": "1"})
