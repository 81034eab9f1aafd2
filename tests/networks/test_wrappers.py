"""Modules around a module: looked through, or refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from embedkit.errors import NetworkError
from embedkit.files.files import files_at
from embedkit.networks.load import load_network
from embedkit.networks.spool import load_spooled
from embedkit.networks.wrappers import unwrap_inside


class Small(nn.Module):
    """One convolution, one rectifier."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.conv(x))


def zeros(image):
    """A transform to pictures of 8 × 8."""
    return torch.zeros(3, 8, 8)


def compiled_in_place():
    """A module that `Module.compile` has marked."""
    module = Small()
    module.compile(backend="eager")
    return module


WRAPPED = {
    "compiled": lambda: torch.compile(Small(), backend="eager"),
    "compiled in place": compiled_in_place,
    "parallel": lambda: nn.DataParallel(Small()),
    "both": lambda: nn.DataParallel(torch.compile(Small(), backend="eager")),
}


@pytest.mark.parametrize("make", WRAPPED.values(), ids=WRAPPED)
def test_wrappers_are_left_off(make, noise, tmp_path):
    """Name, layers, identity and values are those of the module inside, in files too."""
    wrapped, batch = make(), noise(2, 3, 8, 8)
    expected = load_network(Small(), transform=zeros)

    network = load_network(wrapped, transform=zeros)

    again = load_spooled(network.spool(files_at(tmp_path)))
    for each in (network, again):
        assert each.name == "Small"
        assert each.traced
        assert list(each.layers.index) == ["conv", "relu"]
        assert each.identity == expected.identity
    truth = expected.taps("all").forward(batch)
    for layer, values in network.taps("all").forward(batch).items():
        np.testing.assert_array_equal(values, truth[layer])


def test_wrappers_inside_are_left_off(noise):
    """A compiled part of a network is looked into; the module given keeps its own."""
    given = nn.Sequential(torch.compile(Small(), backend="eager"), nn.Flatten())
    network = load_network(given, transform=zeros)
    assert list(network.layers.index) == ["0.conv", "0.relu", "1"]
    assert type(given[0]).__name__ == "OptimizedModule"


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("kind", ["script", "trace"])
@pytest.mark.parametrize("inside", [False, True])
def test_torchscript_is_refused(kind, inside):
    """One line says what it is, where, and what to pass instead."""
    make = {
        "script": torch.jit.script,
        "trace": lambda module: torch.jit.trace(module, torch.zeros(1, 3, 8, 8)),
    }[kind]
    module = make(Small())
    given = nn.Sequential(nn.Identity(), module) if inside else module
    where = "its module '1' is" if inside else "it is"
    message = (
        rf"^network \S+ cannot be looked into: {where} TorchScript .*Python module"
    )
    with pytest.raises(NetworkError, match=message) as caught:
        load_network(given, transform=zeros)
    assert "\n" not in str(caught.value)


def test_a_shared_part_is_unwrapped_under_both_names():
    """And stays one module."""
    module = nn.Module()
    module.a = module.b = nn.DataParallel(nn.Linear(2, 2))

    unwrap_inside(module)

    assert module.a is module.b
    assert isinstance(module.a, nn.Linear)
