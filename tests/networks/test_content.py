"""One digest for one content, wherever it lies and however it came about."""

from __future__ import annotations

import copy
import enum
import functools
import pickle
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from embedkit.errors import NetworkError
from embedkit.networks.content import content_digest, function_text

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner),
    max_leaves=8,
)


@given(value=plain)
def test_copies_have_one_digest(value):
    """What was pickled and read again is the same, though no part is the same object."""
    again = pickle.loads(pickle.dumps(value))
    assert content_digest(again) == content_digest(value)


@given(one=plain, other=plain)
def test_equal_digests_mean_equal_values(one, other):
    """Values have one digest exactly where they read the same."""
    assert (content_digest(one) == content_digest(other)) == (repr(one) == repr(other))


def test_equal_texts_need_not_be_one_object():
    """Whether two equal texts or tuples share memory is no content."""
    text = "some text"
    twin = "".join(["some", " text"])
    assert text is not twin
    assert content_digest([text, text]) == content_digest([text, twin])
    assert content_digest([(text, 1)] * 2) == content_digest([(text, 1), (twin, 1)])


@pytest.mark.parametrize("kind", [set, frozenset])
def test_order_of_sets_is_no_content(kind):
    """Insertion order shows in iteration and not in the digest."""
    one, other = kind([8, 0]), kind([0, 8])
    assert list(one) != list(other)
    assert content_digest(one) == content_digest(other)
    assert content_digest(one) != content_digest(kind([0, 9]))
    assert content_digest({1}) != content_digest(frozenset({1}))


def defined(source, name):
    """What a script that holds `source` defines under a name."""
    space = {
        "__name__": "__main__",
        "__file__": f"/{id(source)}.py",
        "nn": nn,
        "enum": enum,
    }
    exec(source, space)
    return space[name]


@pytest.mark.parametrize(
    ("source", "other"),
    [
        ("class A:\n    def f(self): return 1", "class A:\n    def f(self): return 2"),
        ("class A:\n    k = 1", "class A:\n    k = 2"),
        ("class A(nn.Flatten):\n    pass", "class A(nn.ReLU):\n    pass"),
        ("class A(enum.Enum):\n    one = 1", "class A(enum.Enum):\n    one = 2"),
        ("def A(x): return x + 1", "def A(x): return x + 2"),
    ],
    ids=["method", "attribute", "base", "enum", "function"],
)
def test_definitions_of_a_script_count_by_what_they_say(source, other):
    """Running a cell again defines the same; another cell defines something else."""
    first = content_digest(defined(source, "A"))
    assert first == content_digest(defined("\n\n" + source, "A"))
    assert first != content_digest(defined(other, "A"))


@pytest.mark.parametrize(
    "change",
    [
        lambda module: setattr(module, "note", 1),
        lambda module: module.eval(),
        lambda module: module.register_buffer("extra", torch.ones(1)),
        lambda module: module.weight.data.add_(1),
        lambda module: module.register_forward_hook(print),
        lambda module: module.add_module("part", nn.ReLU()),
    ],
    ids=["attribute", "mode", "buffer", "weight", "hook", "part"],
)
def test_modules_count_by_all_they_hold(change):
    """Whatever is set on a module shows."""
    module = nn.Linear(2, 2)
    before = content_digest(module)
    assert content_digest(copy.deepcopy(module)) == before
    change(module)
    assert content_digest(module) != before


class Recites(nn.Module):
    """Says itself what is to be kept of it."""

    def __init__(self, state):
        super().__init__()
        self.state = state

    def __getstate__(self):
        return self.state


class Named(nn.Module):
    """Is a global of its file."""

    def __reduce__(self):
        return "NAMED"


NAMED = Named()


def test_modules_may_say_what_counts():
    """What a module returns as its state, or as its name, is taken."""
    assert content_digest(Recites([1])) == content_digest(Recites([1]))
    assert content_digest(Recites([1])) != content_digest(Recites([2]))
    with pytest.raises(NetworkError, match="type Named cannot be told from others"):
        content_digest(Named())


def test_flags_of_a_pytorch_version_are_no_content(monkeypatch):
    """What every module gets from its base class may change with PyTorch."""
    before = content_digest(nn.ReLU())
    original = nn.Module.__init__

    def newer(self):
        original(self)
        self.__dict__["_flag_of_tomorrow"] = None

    monkeypatch.setattr(nn.Module, "__init__", newer)
    assert "_flag_of_tomorrow" in vars(nn.ReLU())
    assert content_digest(nn.ReLU()) == before


@pytest.mark.parametrize(
    "value",
    [torch.ones(3), nn.Parameter(torch.ones(3)), torch.eye(3).to_sparse(), np.ones(3)],
    ids=["tensor", "parameter", "sparse", "array"],
)
def test_arrays_count_by_value(value):
    """Memory is no content and numbers are."""
    assert content_digest(copy.deepcopy(value)) == content_digest(value)
    assert content_digest(value * 2) != content_digest(value)


def test_what_cannot_be_pickled_is_told():
    """A lock has no content."""
    message = (
        r"an object of type Lock cannot be told from others: it cannot be pickled "
        r"\(TypeError: cannot pickle '_thread\.lock' object\): keep open files"
    )
    lock = type("Lock", (), {})()
    lock.inner = threading.Lock()
    with pytest.raises(NetworkError, match=message) as caught:
        content_digest(lock)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("function", [torch.tanh, nn.functional.relu, len])
def test_known_functions_are_their_names(function):
    """PyTorch's and Python's functions change with their versions and mean the same."""
    assert function_text(function) == f"{function.__module__}.{function.__qualname__}"


class Bound:
    """Has a method to pass around."""

    def __init__(self, factor):
        self.factor = factor

    def times(self, x):
        return x * self.factor


def test_other_functions_are_names_and_code():
    """Methods count with what they are bound to, and anything callable has a text."""
    assert function_text(Bound(1).times) == function_text(Bound(1).times)
    assert function_text(Bound(1).times) != function_text(Bound(2).times)
    assert function_text(functools.partial(len)).startswith("functools.partial ")
    assert "0x" not in function_text(functools.partial(len))
