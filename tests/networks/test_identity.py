"""What changes a digest, and what does not."""

from __future__ import annotations

import functools
import re
import threading
import types

import pytest
import torch
from torch import fx, nn
from torchvision import transforms

from embedkit.errors import NetworkError
from embedkit.networks.bundled.digits import DigitsTransform
from embedkit.networks.identity import (
    architecture_digest,
    combine,
    describe_transform,
)
from embedkit.networks.tracing import Traced, trace


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


class Holds(nn.Module):
    """Multiplies by a tensor that it, or a part of it, holds as a plain attribute."""

    def __init__(self, value, *, deep=False):
        super().__init__()
        self.inner = nn.Flatten()
        self.deep = deep
        (self.inner if deep else self).k = torch.tensor([value])

    def forward(self, x):
        return x * (self.inner.k if self.deep else self.k)


class Trains(nn.Module):
    """Multiplies by a parameter."""

    def __init__(self, value):
        super().__init__()
        self.k = nn.Parameter(torch.tensor([value]))

    def forward(self, x):
        return x * self.k


class Attends(nn.Module):
    """Calls a module whose description does not tell its settings."""

    def __init__(self, heads):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, heads, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)[0]


def activates(function):
    layer = nn.TransformerEncoderLayer(4, 1, activation=function, batch_first=True)
    return nn.Sequential(layer)


def test_weights_are_no_part_of_architecture():
    """Two networks of one design have one digest."""
    assert digest(Trains(1.0)) == digest(Trains(2.0))
    assert digest(nn.Conv2d(3, 4, 3)) == digest(nn.Conv2d(3, 4, 3))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3, stride=2)),
        (nn.Sequential(nn.ReLU()), nn.Sequential(nn.GELU())),
        (Scaled(2.0), Scaled(3.0)),
        (Shifted([1.0]), Shifted([2.0])),
        (Holds(1.0), Holds(2.0)),
        (Holds(1.0, deep=True), Holds(2.0, deep=True)),
        (Attends(2), Attends(4)),
        (activates(torch.tanh), activates(torch.sigmoid)),
        (nn.Sequential(nn.ReLU()), nn.Sequential(nn.ReLU(), nn.ReLU())),
    ],
    ids=[
        "stride",
        "type",
        "number",
        "constant",
        "tensor",
        "dotted",
        "attribute",
        "function",
        "depth",
    ],
)
def test_designs_differ(one, other):
    """Whatever changes the result changes the digest."""
    assert digest(one) != digest(other)


def wrapped_digest(source, **space):
    """The digest of a network that calls a function which tracing does not enter."""
    module = types.ModuleType("own_functions")
    module.__dict__.update(space, fx=fx, nn=nn, functools=functools)
    source += (
        "\nfx.wrap('act')\n"
        "class Calls(nn.Module):\n    def forward(self, x): return act(x)\n"
    )
    exec(source, module.__dict__)
    return digest(module.Calls())


ACT = "def act(x): return x * 2"
DECORATED = "@functools.lru_cache\n" + ACT


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ACT, "def act(x): return x * 3"),
        (ACT, "def act(x): return x.mul(2)"),
        ("def act(x, k=2): return x * k", "def act(x, k=3): return x * k"),
        ("def act(x, *, k=2): return x * k", "def act(x, *, k=3): return x * k"),
        (
            "def act(x): return (lambda: x * 2)()",
            "def act(x): return (lambda: x * 3)()",
        ),
        (DECORATED, DECORATED.replace("2", "3")),
        (
            "def make(k):\n    def act(x): return x * k\n    return act\nact = make(2)",
            "def make(k):\n    def act(x): return x * k\n    return act\nact = make(3)",
        ),
    ],
    ids=["constant", "name", "default", "keyword", "nested", "decorated", "closure"],
)
def test_functions_that_are_not_traced_count_by_their_code(one, other):
    """What a function marked with torch.fx.wrap does is part of the architecture."""
    assert wrapped_digest(one) == wrapped_digest("\n\n" + one)
    assert wrapped_digest(one) != wrapped_digest(other)


def test_functions_that_hold_what_cannot_be_pickled_are_refused():
    """There is no identity without knowing what a function holds."""
    source = "def act(x, lock=LOCK): return x"
    message = (
        r"type list cannot be told from others: .*cannot pickle '_thread.lock'.*keep"
    )
    with pytest.raises(NetworkError, match=message) as caught:
        wrapped_digest(source, LOCK=threading.Lock())
    assert "\n" not in str(caught.value)


def test_functions_as_arguments_are_no_addresses():
    """A function that a node is given counts by name and code, and known ones by name."""

    def applied(function):
        graph = fx.Graph()
        x = graph.placeholder("x")
        called = graph.call_function(map, (function, [x]), {})
        graph.output(called)
        module = types.SimpleNamespace(graph=graph)
        return architecture_digest(Traced(module=module, names={}))

    assert applied(eval("lambda x: x * 2")) == applied(eval("lambda x: x * 2"))
    assert applied(eval("lambda x: x * 2")) != applied(eval("lambda x: x * 3"))
    assert applied(torch.relu) != applied(torch.tanh)


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


def test_descriptions_are_for_people_and_in_one_line():
    """A repr without an address stands before the digest, without its line breaks."""
    text = describe_transform(nn.Sequential(nn.ReLU(), nn.Flatten()))
    assert re.fullmatch(r"Sequential\( \(0\): ReLU.*\) sha256:[0-9a-f]{64}", text)


class Times(nn.Module):
    """A transform whose repr does not tell its factor."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


@pytest.mark.parametrize(
    "make",
    [
        lambda factor: transforms.Lambda(make_scaler(factor)),
        lambda factor: transforms.Compose([transforms.Lambda(make_scaler(factor))]),
        Times,
        lambda factor: nn.Sequential(Times(factor), nn.Flatten()),
        lambda factor: Times(torch.tensor(float(factor))),
        lambda factor: DigitsTransform(size=factor),
    ],
    ids=["lambda", "compose", "module", "sequential", "tensor", "dataclass"],
)
def test_transforms_are_told_apart_by_what_they_hold(make):
    """What a repr leaves out counts all the same."""
    assert describe_transform(make(2)) == describe_transform(make(2))
    assert describe_transform(make(2)) != describe_transform(make(3))


TRANSFORMS = """
import dataclasses, torch
from torch import nn
from torchvision import models, transforms as T
from torchvision.transforms import v2
from embedkit.networks.bundled.digits import DigitsTransform
from embedkit.networks.identity import describe_transform

class Own:
    kinds = {"one", "two", "three", "four"}
    def __init__(self): self.names = frozenset({"five", "six", "seven"})
    def __call__(self, image): return image if "one" in self.kinds else None

class Scale(nn.Module):
    def forward(self, x): return super().extra_repr() or x

@dataclasses.dataclass
class Data:
    factor: int = 2
    def __call__(self, image): return image in {"a", "b", "c", "d"}

prepare = lambda image: image in {"a", "b", "c", "d"} or torch.nn.functional.relu(image)
for each in (
    models.ResNet50_Weights.IMAGENET1K_V1.transforms(),
    models.ViT_B_16_Weights.DEFAULT.transforms(),
    DigitsTransform(),
    T.Compose([T.Resize(8), T.ToTensor(), T.Normalize([0.5], [0.5]), T.Lambda(prepare)]),
    v2.Compose([v2.Resize(8), v2.ToDtype(torch.float32, scale=True)]),
    prepare, Own(), Scale(), Data(),
):
    print(describe_transform(each).rpartition(":")[2])
"""


@pytest.mark.slow
def test_descriptions_are_the_same_in_every_process(run_python, monkeypatch, tmp_path):
    """Neither the seed of hashing nor a class of a script makes another digest."""
    runs = []
    for seed in ("1", "2"):
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        runs.append(run_python(TRANSFORMS).split())
    assert runs[0] == runs[1]
    assert runs[0][0] == runs[0][1]  # both crop 224 of 256
    assert len(set(runs[0])) == 8


def test_combined_parts_depend_on_names_and_values():
    """Order does not count, names and values do."""
    assert combine({"a": "1", "b": "2"}) == combine({"b": "2", "a": "1"})
    assert combine({"a": "1", "b": "2"}) != combine({"a": "2", "b": "1"})
