"""What nodes do to memory is seen, whoever does it."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import fx, nn

from embedkit.networks.effects import EffectMeter


class Box:
    """Holds a tensor where nobody looks."""

    def __init__(self, value):
        self.value = value


def boxed(x):
    """Return a tensor in a box."""
    return Box(x)


def put(x):
    """Write to an item, which a traced function cannot."""
    x[:, 0] = 3


fx.wrap("boxed")
fx.wrap("put")


class Works(nn.Module):
    """Has a function for a forward pass."""

    def __init__(self, work):
        super().__init__()
        self.work = work
        self.relu = nn.ReLU(inplace=True)
        self.register_buffer("scratch", torch.zeros(5, 2))

    def forward(self, x):
        return self.work(self, x)


def effects_of(work):
    """The effects of a function, by the names of nodes."""
    module = fx.symbolic_trace(Works(work))
    meter = EffectMeter(module)
    with torch.inference_mode():
        meter.run(torch.ones(5, 2))
    seen = meter.effects
    storages = {node.name: ids for node, ids in seen.storages.items()}
    writes = {node.name: ids for node, ids in seen.writes.items()}
    return storages, writes, seen


def in_method(self, x):
    return (x + 1).mul_(2)


def in_module(self, x):
    return self.relu(x + 1)


def in_view(self, x):
    whole = x + 1
    whole[:, :1].zero_()
    return whole


def in_item(self, x):
    whole = x + 1
    put(whole)
    return whole


def in_out(self, x):
    whole = x + 1
    return torch.mul(x, 2, out=whole)


def in_part(self, x):
    whole = x + 1
    whole.chunk(2, 1)[0].zero_()
    return whole


def in_data(self, x):
    whole = x + 1
    whole.data.zero_()
    return whole


@pytest.mark.parametrize(
    "work", [in_method, in_module, in_view, in_item, in_out, in_part, in_data]
)
def test_writes_are_seen(work):
    """Methods, modules, views, items, out= and parts of tuples write to the first sum."""
    storages, writes, _ = effects_of(work)
    assert len(writes) == 1
    assert set(writes.values()) == {storages["add"]}
    assert storages["add"] != storages["x"]


def test_fresh_memory_is_nobodys():
    """Memory that was freed and used again is not taken for the old value's."""

    def work(self, x):
        for _ in range(6):
            x = x * 2
        return x

    gc.collect()
    storages, writes, seen = effects_of(work)
    names = [ids for name, ids in storages.items() if name.startswith(("x", "mul"))]
    assert len(set().union(*names)) == 7
    assert writes == {}
    assert {node.name for node in seen.from_input} >= {"x", "mul", "mul_5", "output"}


def test_buffers_keep_their_number():
    """A buffer that is let go of and fetched again is the same memory."""

    def work(self, x):
        first = self.scratch.sum()
        y = x * first
        y = y * 2
        self.scratch.copy_(y)
        return self.scratch + 1

    storages, writes, seen = effects_of(work)
    buffers = [ids for name, ids in storages.items() if name.startswith("scratch")]
    assert len(set(buffers)) == 1
    assert set(writes.values()) == set(buffers)
    assert not [node for node in seen.from_input if node.op == "get_attr"]


def test_what_copies_for_some_strides_may_be_a_view():
    """Whether `reshape` copies can depend on the number of images."""

    def work(self, x):
        return (x + 1).t().reshape(-1) * 1

    storages, _, _ = effects_of(work)
    assert storages["add"] == storages["t"] < storages["reshape"]
    assert len(storages["reshape"]) == 2


def test_what_cannot_be_seen_is_noted():
    """Objects and sparse tensors are opaque; numbers, shapes and types are not."""

    def work(self, x):
        held = boxed(x)
        sparse = x.to_sparse()
        shape, dtype = x.shape, x.dtype
        return held.value.reshape(shape).to(dtype) + sparse.to_dense()

    _, _, seen = effects_of(work)
    assert {node.name for node in seen.opaque} == {"boxed", "to_sparse"}
