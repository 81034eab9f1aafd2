"""Spellings of pools, and pools against PyTorch's layers and NumPy in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from embedkit.errors import InputError
from embedkit.networks.pooling import pool_tap, pooled_shape, position_axes
from embedkit.networks.pools import POOLS, Projection, check_pool
from embedkit.networks.projection import matrix

CPU = torch.device("cpu")


def values(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("pool", POOLS)
def test_plain_names_are_canonical(pool):
    """A name is its own spelling."""
    assert check_pool(pool) == pool


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.sampled_from(["", " ", "  "]))
def test_projections_have_one_spelling(k, seed, gap):
    """Spaces and keywords do not matter, a seed of 0 is not written, others are."""
    expected = (
        f"random_projection({k}, seed={seed})" if seed else f"random_projection({k})"
    )
    for text in (f"({gap}{k},{gap}seed{gap}={seed})", f"(k={k}{gap},{gap}{seed}{gap})"):
        assert check_pool(f"{gap}random_projection{text}") == expected
    assert check_pool(expected) == expected


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        ("average", r"no pool 'average'\. Did you mean 'avg'"),
        (
            "random_projection",
            r"no pool 'random_projection'\. Did you mean 'random_proj",
        ),
        ("random_projection(-1)", r"no pool 'random_projection\(-1\)'"),
        ("random_projection(0)", r"'random_projection\(0\)' leaves nothing: give"),
        (3, r"no pool '3'"),
    ],
)
def test_unknown_pools_are_refused(pool, message):
    """What is no way of pooling is told with what is near."""
    with pytest.raises(InputError, match=message) as caught:
        check_pool(pool)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(2, 5, 7, 6), (0, 3, 4, 4), (2, 3, 1, 1)])
def test_grids_are_adaptive_pooling(shape):
    """Four numbers a channel, channel by channel, wherever the channels are."""
    x = values(*shape)
    last = x.permute(0, 2, 3, 1)
    for pool, oracle in (
        ("avg2x2", functional.adaptive_avg_pool2d),
        ("max2x2", functional.adaptive_max_pool2d),
    ):
        found = pool_tap(x, (2, 3), pool=pool)
        assert found.equal(oracle(x, (2, 2)).flatten(1))
        assert pool_tap(last, (1, 2), pool=pool).equal(found)
        assert found.is_contiguous()


def test_generalised_mean():
    """The cube root of the mean of cubes, values below 1e-6 raised to it."""
    x = values(3, 4, 5, 6)
    wide = np.maximum(x.numpy().astype(np.float64), 1e-6)
    expected = (wide**3).mean((2, 3)) ** (1 / 3)
    np.testing.assert_allclose(pool_tap(x, (2, 3), pool="gem"), expected, rtol=1e-5)
    last = pool_tap(x.permute(0, 2, 3, 1), (1, 2), pool="gem")
    np.testing.assert_allclose(last, expected, rtol=1e-5)


def test_class_token_and_the_others():
    """The first token is copied; the others are averaged without it."""
    x = values(3, 5, 4)
    assert pool_tap(x, (1,), pool="cls").equal(x[:, 0])
    expected = x.numpy().astype(np.float64)[:, 1:].mean(1)
    found = pool_tap(x, (1,), pool="tokens_avg")
    np.testing.assert_allclose(found, expected, atol=1e-6)
    first = pool_tap(x, (1,), pool="cls")
    before = first.clone()
    x.zero_()
    assert first.equal(before)


@pytest.mark.parametrize(
    ("pool", "shape", "message"),
    [
        (
            "avg2x2",
            (10,),
            r"'avg2x2' was asked of layer 'fc' of shape \(10,\), which is no",
        ),
        ("max2x2", (5, 4), r"shape \(5, 4\), which is no map with rows and columns"),
        (
            "cls",
            (3, 8, 8),
            r"'cls' was asked of layer 'fc' of shape \(3, 8, 8\), which",
        ),
        (
            "tokens_avg",
            (1, 8),
            r"\(1, 8\), which is no sequence of tokens with a class",
        ),
        (
            "random_projection(400)",
            (64, 112, 112),
            r"layer 'fc' of shape \(64, 112, 112\) needs a matrix of 1\.2 GiB .* k up to 334",
        ),
        ("random_projection(1)", (2**29,), "too large for any k"),
    ],
)
def test_unfit_values_are_refused(pool, shape, message):
    """What cannot be pooled so is named with its shape and the way out."""
    with pytest.raises(InputError, match=message) as caught:
        pooled_shape(shape, axes=position_axes(len(shape) + 1), pool=pool, layer="fc")
    assert "\n" not in str(caught.value)


@given(
    batch=st.integers(0, 3),
    shape=st.lists(st.integers(1, 6), max_size=4),
    pool=st.sampled_from([*POOLS, "random_projection(3)"]),
    last=st.booleans(),
)
def test_shape_is_foreseen(batch, shape, pool, last):
    """Every pool that fits gives contiguous float32 of the shape that was foreseen."""
    axes = position_axes(len(shape) + 1, channels_last=last)
    try:
        expected = pooled_shape(tuple(shape), axes=axes, pool=pool)
    except InputError:
        assert pool in ("avg2x2", "max2x2", "cls", "tokens_avg")
        return
    found = pool_tap(torch.ones(batch, *shape), axes, pool=pool)
    assert found.shape == (batch, *expected)
    assert found.dtype == torch.float32
    assert found.is_contiguous()


def test_projection_is_its_matrix():
    """The flattened value times a matrix of N(0, 1/k), in double precision."""
    x = values(4, 3, 5, 6)
    drawn = matrix(Projection(k=7, seed=2), 90, device=CPU).numpy().astype(np.float64)
    expected = x.numpy().reshape(4, 90).astype(np.float64) @ drawn
    found = pool_tap(x, (2, 3), pool="random_projection(7, seed=2)")
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_entries_are_the_same_everywhere():
    """Pinned entries of a seed; other seeds, sizes and k have others; right variance."""
    drawn = matrix(Projection(k=64, seed=0), 5000, device=CPU)
    again = np.random.Generator(
        np.random.Philox(np.random.SeedSequence([0, 5000, 64]))
    ).standard_normal((5000, 64), dtype=np.float32) / np.float32(8)
    np.testing.assert_array_equal(drawn.numpy(), again)
    wide = drawn.numpy().astype(np.float64)
    assert abs(wide.mean()) < 4 * 0.125 / np.sqrt(wide.size)
    assert wide.var() == pytest.approx(1 / 64, rel=0.02)
    other = matrix(Projection(k=64, seed=1), 5000, device=CPU)
    assert not drawn[:10].equal(other[:10])


def test_a_matrix_is_shared_while_it_is_held():
    """Nothing is drawn twice, and nothing is kept for good."""
    first = matrix(Projection(k=5, seed=9), 11, device=CPU)
    assert matrix(Projection(k=5, seed=9), 11, device=CPU) is first


def test_distances_survive():
    """Pairs of 30 points keep their distances as the lemma promises for ε = 0.5."""
    points = np.random.default_rng(0).standard_normal((30, 4000)).astype(np.float32)
    k = int(np.ceil(4 * np.log(30) / (0.5**2 / 2 - 0.5**3 / 3)))
    found = pool_tap(torch.from_numpy(points), (), pool=f"random_projection({k})")

    def squares(rows):
        gaps = rows[:, None].astype(np.float64) - rows[None].astype(np.float64)
        return (gaps**2).sum(-1)[np.triu_indices(30, 1)]

    ratios = squares(found.numpy()) / squares(points)
    assert ratios.min() > 0.5
    assert ratios.max() < 1.5
    assert ratios.mean() == pytest.approx(1, abs=0.05)
