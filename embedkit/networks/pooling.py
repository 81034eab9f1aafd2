"""Reduce the value of a tap to what is stored of it.

`pool_tap` runs inside the network's graph, right where a value comes into being. It
always returns new memory, so nothing that the network does later can change the result.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from embedkit.errors import InputError
from embedkit.networks.pools import (
    GRIDS,
    TOKENS,
    Pool,
    check_pool,
    projection_of,
)
from embedkit.networks.projection import check_size, project

__all__ = ["Pool", "check_pool", "pool_tap", "pooled_shape", "position_axes"]

_GRID = (2, 2)
_POWER = 3.0
_SMALLEST = 1e-6


def position_axes(ndim: int, *, channels_last: bool = False) -> tuple[int, ...]:
    """Return the axes of a batched value that are positions rather than features.

    Parameters
    ----------
    ndim : int
        Number of axes, the batch included.
    channels_last : bool, default False
        Whether a value of four axes is (B, H, W, C) instead of (B, C, H, W).

    Returns
    -------
    tuple of int
        H and W of an image, L of tokens (B, L, C), and none of anything else.

    Examples
    --------
    >>> position_axes(4), position_axes(3), position_axes(2)
    ((2, 3), (1,), ())
    """
    if ndim == 4:
        return (1, 2) if channels_last else (2, 3)
    return (1,) if ndim == 3 else ()


def pooled_shape(
    shape: tuple[int, ...], *, axes: tuple[int, ...], pool: Pool, layer: str = ""
) -> tuple[int, ...]:
    """Return the shape that pooling leaves of one image's value.

    Parameters
    ----------
    shape : tuple of int
        Of the value, without the batch.
    axes : tuple of int
        Its `position_axes`, which count the batch.
    pool : str
        How it is pooled, as `check_pool` spells it.
    layer : str, optional
        Whose value it is, for messages.

    Raises
    ------
    InputError
        When the value has no grid or no tokens and `pool` is of these, or when a
        projection would need a matrix that is too large.

    Examples
    --------
    >>> pooled_shape((64, 8, 8), axes=(2, 3), pool="avg")
    (64,)
    >>> pooled_shape((64, 8, 8), axes=(2, 3), pool="avg2x2")
    (256,)
    """
    whose = (
        f"layer {layer!r} of shape {shape}" if layer else f"a value of shape {shape}"
    )
    _check_fits(shape, axes, pool=pool, whose=whose)
    projection = projection_of(pool)
    if projection is not None:
        check_size(math.prod(shape), projection, pool=pool, layer=whose)
        return (projection.k,)
    if pool == "none":
        return shape
    if pool == "flatten" or not axes:
        return (math.prod(shape),)
    kept = tuple(size for axis, size in enumerate(shape, 1) if axis not in axes)
    return (math.prod(kept) * math.prod(_GRID),) if pool in GRIDS else kept


def _check_fits(
    shape: tuple[int, ...], axes: tuple[int, ...], *, pool: Pool, whose: str
) -> None:
    """Refuse grids of what is no map, and tokens of what has none."""
    if pool in GRIDS and len(axes) != 2:
        message = (
            f"pool {pool!r} was asked of {whose}, which is no map with rows and columns: "
            "choose 'avg', 'flatten' or 'none' for it"
        )
        raise InputError(message)
    least = 2 if pool == "tokens_avg" else 1
    if pool in TOKENS and (axes != (1,) or shape[0] < least):
        message = (
            f"pool {pool!r} was asked of {whose}, which is no sequence of tokens with a "
            "class token in front: choose 'avg', 'flatten' or 'none' for it"
        )
        raise InputError(message)


def pool_tap(value: Tensor, axes: tuple[int, ...], *, pool: Pool) -> Tensor:
    """Return a new contiguous float32 tensor that holds the pooled `value`.

    Parameters
    ----------
    value : Tensor
        Floating, batch first, of a shape that `pooled_shape` accepts.
    axes : tuple of int
        Its `position_axes`. Where there are none, means and maxima have nothing to
        run over, and the value is flattened.
    pool : str
        As `check_pool` spells it. ``"avg"`` is global average pooling over all
        positions; ``"gem"`` the mean of third powers, of which it takes the cube root
        (values below 1e-6 count as that); ``"avg2x2"`` and ``"max2x2"`` give four
        numbers per channel (top left, top right, bottom left, bottom right), one
        channel after the other.

    Returns
    -------
    Tensor
        Shape (B, *pooled_shape).

    References
    ----------
    M. Lin, Q. Chen and S. Yan, "Network in Network", ICLR 2014, section 3.2 (global
    average pooling).
    F. Radenović, G. Tolias and O. Chum, "Fine-tuning CNN Image Retrieval with No Human
    Annotation", IEEE TPAMI 41(7), 2019, equation 3 (generalised mean).
    A. Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, section 3.1
    (class token).
    """
    wide = value.to(torch.float32)  # half precision would lose the sum's small terms
    projection = projection_of(pool)
    if projection is not None:
        return project(_flat(wide), projection)
    if pool == "none":
        return _copy(wide)
    if pool == "flatten" or not axes:
        return _copy(_flat(wide))
    if pool in GRIDS:
        return _grid(wide, axes, pool=pool)
    return _over_positions(wide, axes, pool=pool)


def _over_positions(wide: Tensor, axes: tuple[int, ...], *, pool: Pool) -> Tensor:
    match pool:
        case "avg":
            return wide.mean(axes)
        case "max":
            return wide.amax(axes)
        case "gem":
            powers = wide.clamp(min=_SMALLEST).pow(_POWER)
            return powers.mean(axes).pow(1 / _POWER)
        case "cls":
            return _copy(wide[:, 0])  # B C
        case "tokens_avg":
            return wide[:, 1:].mean(1)  # B C
        case _:
            raise InputError(f"there is no pool {pool!r}: spell it as check_pool does")


def _grid(wide: Tensor, axes: tuple[int, ...], *, pool: Pool) -> Tensor:
    # Contiguous: kernels for other strides add up in another order.
    maps = wide.movedim(axes, (2, 3)).contiguous()  # B C H W
    if pool == "avg2x2":
        pooled = functional.adaptive_avg_pool2d(maps, _GRID)
    else:
        pooled = functional.adaptive_max_pool2d(maps, _GRID)
    return _copy(pooled.flatten(1))  # B C·4


def _flat(value: Tensor) -> Tensor:
    return value.reshape(len(value), math.prod(value.shape[1:]))


def _copy(value: Tensor) -> Tensor:
    return value.clone(memory_format=torch.contiguous_format)
