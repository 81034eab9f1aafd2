"""Pooling against PyTorch's own layers and numpy in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from embedkit.networks.pooling import pool_tap, pooled_shape, position_axes

sizes = st.integers(1, 6)
pools = st.sampled_from(["avg", "max", "flatten", "none"])


def values(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def test_images_pool_like_adaptive_layers():
    """Averages and maxima over H and W are what global pooling layers give."""
    x = values(4, 5, 7, 6)
    average = functional.adaptive_avg_pool2d(x, 1).flatten(1)
    largest = functional.adaptive_max_pool2d(x, 1).flatten(1)
    torch.testing.assert_close(pool_tap(x, (2, 3), pool="avg"), average)
    assert pool_tap(x, (2, 3), pool="max").equal(largest)


def test_channels_last_pool_over_positions():
    """Values (B, H, W, C) give one number per channel, not per column."""
    x = values(4, 7, 6, 5)
    axes = position_axes(4, channels_last=True)
    expected = x.numpy().astype(np.float64).mean((1, 2))
    np.testing.assert_allclose(pool_tap(x, axes, pool="avg"), expected, atol=1e-6)


def test_tokens_pool_over_their_sequence():
    """Tokens (B, L, C) are averaged over L."""
    x = values(3, 9, 4)
    expected = x.numpy().astype(np.float64).mean(1)
    np.testing.assert_allclose(
        pool_tap(x, position_axes(3), pool="avg"), expected, atol=1e-6
    )
    assert pool_tap(x, position_axes(3), pool="max").equal(x.amax(1))


@pytest.mark.parametrize("pool", ["avg", "max", "flatten", "none"])
def test_vectors_are_copied(pool):
    """A vector has nothing to pool and is copied."""
    x = values(3, 4)
    found = pool_tap(x, (), pool=pool)
    assert found.equal(x)
    x.zero_()
    assert found.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype):
    """Sums run in single precision even where values are half."""
    x = torch.full((1, 1, 100, 100), 0.1, dtype=dtype)
    found = pool_tap(x, (2, 3), pool="avg")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[0, 0], x[0, 0, 0, 0].float())


def test_strided_views_become_contiguous():
    """Expanded and transposed values are laid out anew."""
    x = values(1, 4, 3).expand(2, 4, 3).transpose(1, 2)
    for pool in ("none", "flatten"):
        found = pool_tap(x, (1,), pool=pool)
        assert found.is_contiguous()
        np.testing.assert_array_equal(found.reshape(2, 3, 4), x)


@given(
    batch=st.integers(0, 3),
    shape=st.lists(sizes, max_size=4),
    pool=pools,
    last=st.booleans(),
)
def test_shape_is_foreseen(batch, shape, pool, last):
    """The shape is known before the value is, for every rank, batch and pool."""
    axes = position_axes(len(shape) + 1, channels_last=last)
    found = pool_tap(torch.zeros(batch, *shape), axes, pool=pool)
    assert found.shape == (batch, *pooled_shape(tuple(shape), axes=axes, pool=pool))
    assert found.dtype == torch.float32
    assert found.is_contiguous()
