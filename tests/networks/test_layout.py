"""A value is put back into memory as the network had it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.networks.layout import Layout, layout_of


@st.composite
def makers(draw):
    """Ways to make a value of a batch whose axes are in any order, cut or repeated."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    order = draw(st.permutations(range(len(sizes) + 1)))
    cut = draw(st.integers(0, len(sizes)))

    def make(count):
        shape = [count, *sizes]
        room = torch.arange(float(torch.tensor(shape).prod() * 3))
        stored = [shape[axis] for axis in order]
        stored[-1] *= 3
        wide = room.reshape(stored)[..., :: 3 if cut else 1][..., : shape[order[-1]]]
        return wide.permute(*[order.index(axis) for axis in range(len(shape))])

    return make


@given(make=makers(), count=st.integers(1, 7))
def test_any_order_of_axes_comes_back(make, count):
    """Strides learnt from five images are those of any number, and values stay."""
    value = make(count)
    layout = layout_of(make(5))
    found = layout.restore(value.contiguous())
    assert found.equal(value)
    for size, step, expected in zip(
        value.shape, found.stride(), value.stride(), strict=True
    ):
        assert size == 1 or step == expected


def test_channels_last_comes_back():
    """Kernels that look for channels at the end find them."""
    value = torch.randn(5, 4, 3, 2).to(memory_format=torch.channels_last)
    found = layout_of(value).restore(torch.randn(2, 4, 3, 2))
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_repeated_entries_are_stored_once():
    """An axis that repeats one entry does so again."""
    value = torch.randn(2, 3, 1).expand(2, 3, 4)
    found = layout_of(torch.randn(5, 3, 1).expand(5, 3, 4)).restore(value.contiguous())
    assert found.equal(value)
    assert found.stride() == (3, 1, 0)
    assert found.untyped_storage().nbytes() == 6 * 4


def test_nothing_is_copied_without_need():
    """A value that lies as it should is itself."""
    value = torch.randn(2, 3, 4)
    assert layout_of(torch.randn(5, 3, 4)).restore(value) is value


@pytest.mark.parametrize(
    ("dtype", "fits"),
    [
        (torch.float16, True),
        (torch.bfloat16, True),
        (torch.float32, True),
        (torch.float64, False),
    ],
)
def test_float32_holds_what_is_no_wider(dtype, fits):
    """Half precision survives the way through float32 and back, double does not."""
    layout = Layout(dtype=dtype, strides=(3, 1), count=5)
    value = torch.tensor([[1 / 3, -0.0, torch.inf]], dtype=dtype)
    found = layout.restore(value.float())
    assert layout.fits_float32 is fits
    assert found.dtype == dtype
    assert found.equal(value) is fits
