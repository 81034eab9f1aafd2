"""A graph stands for its network only where it does what the network does."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch import fx, nn
from torch.nn import functional

from embedkit.errors import NetworkError
from embedkit.networks.load import load_network
from embedkit.networks.trust import disagreement


def pixels(image):
    """A transform that keeps what tells pictures apart: their first 8 × 8 pixels."""
    levels = np.asarray(image.crop((0, 0, 8, 8)), np.float32) / 255 - 0.5
    return torch.tensor(levels.transpose(2, 0, 1).copy())


def little(module):
    """A network of a module for pictures of 8 × 8."""
    torch.manual_seed(0)
    return load_network(module, transform=pixels)


class Base(nn.Module):
    """Two ways to go."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3)
        self.other = nn.Conv2d(3, 4, 1)


class SwallowsTheTracer(Base):
    """Takes another way where its input cannot be looked at; both give the same here."""

    def forward(self, x):
        try:
            bright = bool(x.sum() > 1e9)
        except Exception:
            bright = False
        return self.one(x) if bright else self.other(x)


class SwallowsIteration(Base):
    """Takes another way where it cannot go through its input."""

    def forward(self, x):
        try:
            return self.one(torch.stack([each * 1 for each in x]))
        except fx.proxy.TraceError:
            return self.other(x)


class SwallowsItsLength(Base):
    """Takes another way where its input has no length: no tracer is asked."""

    def forward(self, x):
        try:
            return self.one(x) * len(x)
        except RuntimeError:
            return self.other(x)


class KnowsStandIns(Base):
    """Does something else for anything but a tensor."""

    def forward(self, x):
        return self.one(x) if isinstance(x, torch.Tensor) else self.other(x)


class GraphFails(Base):
    """Sends stand-ins where tensors do not fit."""

    def forward(self, x):
        if not isinstance(x, torch.Tensor):
            return self.one(self.other(x))
        return self.other(x)


class Returns(Base):
    """Returns more for a tensor than for a stand-in."""

    def forward(self, x):
        x = self.one(x)
        return (x, x) if isinstance(x, torch.Tensor) else x


class Noisy(Base):
    """Draws random numbers, also in evaluation mode."""

    def forward(self, x):
        return self.one(functional.dropout(x))


class Oddity(Exception):
    """An error of nobody's kind."""


class RaisesItsOwn(Base):
    """Refuses stand-ins with an error of its own."""

    def forward(self, x):
        if not isinstance(x, torch.Tensor):
            raise Oddity("no tensor")
        return self.one(x)


OTHER = "its traced graph gives other values than it gives itself"


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (SwallowsTheTracer, "TraceError: symbolically traced"),
        (SwallowsIteration, "TraceError: Proxy object cannot be iterated"),
        (SwallowsItsLength, OTHER),
        (KnowsStandIns, OTHER),
        (GraphFails, "its traced graph fails where it does not .RuntimeError: "),
        (Returns, OTHER),
        (Noisy, "it gives other values each time it runs"),
        (RaisesItsOwn, "Oddity: no tensor"),
    ],
)
def test_a_misled_tracer_is_not_trusted(module, reason, called):
    """Layers are then those of the network itself, exact, and `traced` and the repr say so."""
    network = little(module())
    assert not network.traced
    with pytest.raises(AssertionError, match=f"not traceable: .*({reason})"):
        raise AssertionError(repr(network))
    if module is Noisy:
        return
    batch = np.random.default_rng(1).standard_normal((2, 3, 8, 8), np.float32)
    expected = called(network.module, batch)
    names = [name for name in network.layers.index if not name.startswith("forward#")]
    assert names
    assert {name.split("#")[0] for name in names} <= {"one", "other"}
    found = network.taps(names, pool="none").forward(batch)
    for name in names:
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize(
    "name",
    [
        "squeezenet1_0",
        "mobilenet_v3_small",
        pytest.param("vit_b_16", marks=pytest.mark.slow),
        pytest.param("swin_t", marks=pytest.mark.slow),
        pytest.param("googlenet", marks=pytest.mark.slow),
    ],
)
def test_sound_graphs_are_trusted(name, noise):
    """Work in place, attention, permutations and branches are no reason to doubt."""
    network = load_network(name, weights=None)
    graph = network._given.traced.module
    assert disagreement(graph, network.module, noise(3, 224, 224)) is None


def test_loading_does_not_run_the_network():
    """The comparison waits until layers are asked for, and leaves random numbers alone."""

    class Slow(Base):
        def forward(self, x):
            if isinstance(x, torch.Tensor):
                runs.append(time.perf_counter())
            return self.one(x)

    runs: list[float] = []
    network = little(Slow())
    assert runs == []
    state = torch.get_rng_state()
    assert network.traced
    assert len(runs) == 1
    assert torch.equal(torch.get_rng_state(), state)


def test_a_spooled_network_is_doubted_again(tmp_path):
    """A worker comes to the same layers as whoever sent the network."""
    from embedkit.files.files import files_at
    from embedkit.networks.spool import load_spooled

    network = little(KnowsStandIns())
    again = load_spooled(network.spool(files_at(tmp_path)))
    assert not again.traced
    assert again.identity == network.identity
    assert again.layers.equals(network.layers)


def test_equal_means_the_same_bits():
    """NaN is NaN; shapes, types and one last bit are differences; a failing network none."""
    image = np.ones((1, 2, 2), np.float32)

    def fails(x):
        raise Oddity

    assert disagreement(lambda x: x / 0 * 0, lambda x: x * np.nan, image) is None
    assert disagreement(lambda x: {"a": [x]}, lambda x: (x,), image) is None
    assert disagreement(lambda x: x.double(), lambda x: x, image) == OTHER
    assert disagreement(lambda x: x[:, :, :1], lambda x: x, image) == OTHER
    assert disagreement(lambda x: x + 1.2e-7, lambda x: x, image) == OTHER
    assert disagreement(fails, fails, image) is None
    assert "fails where it does not (Oddity" in disagreement(fails, lambda x: x, image)


def test_what_gives_no_layer_is_told():
    """A name that is there but gives no floating rows is not called unknown."""

    class Splits(Base):
        def forward(self, x):
            one, _ = self.one(x).chunk(2, 1)
            return one * (one > 0)

    network = little(Splits())
    assert network.traced
    for name, what in (
        ("chunk", "type tuple"),
        ("gt", r"tensor \(5, 2, 6, 6\) of torch.bool"),
    ):
        message = rf"'{name}' of network Splits is no layer: it gives a .*{what}, and a"
        with pytest.raises(NetworkError, match=message):
            network.resolve(name)
        with pytest.raises(NetworkError, match=message):
            network.taps("one", pool={name: "max", "*": "avg"})
