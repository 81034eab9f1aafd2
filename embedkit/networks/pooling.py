"""Reduce the value of a tap to what is stored of it.

`pool_tap` runs inside the network's graph, right where a value comes into being. It
always returns new memory, so nothing that the network does later can change the result.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, assert_never

import torch
from torch import Tensor

Pool: TypeAlias = Literal["avg", "max", "flatten", "none"]
"""``"avg"`` and ``"max"`` over positions, ``"flatten"`` to a vector, or as it is."""


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
    shape: tuple[int, ...], *, axes: tuple[int, ...], pool: Pool
) -> tuple[int, ...]:
    """Return the shape that pooling leaves of one image's value.

    Parameters
    ----------
    shape : tuple of int
        Of the value, without the batch.
    axes : tuple of int
        Its `position_axes`, which count the batch.
    pool : {"avg", "max", "flatten", "none"}
        How it is pooled.

    Examples
    --------
    >>> pooled_shape((64, 8, 8), axes=(2, 3), pool="avg")
    (64,)
    >>> pooled_shape((64, 8, 8), axes=(2, 3), pool="flatten")
    (4096,)
    """
    if pool == "none":
        return shape
    if pool == "flatten" or not axes:
        return (math.prod(shape),)
    return tuple(size for axis, size in enumerate(shape, 1) if axis not in axes)


def pool_tap(value: Tensor, axes: tuple[int, ...], *, pool: Pool) -> Tensor:
    """Return a new contiguous float32 tensor that holds the pooled `value`.

    Parameters
    ----------
    value : Tensor
        Floating, batch first.
    axes : tuple of int
        Its `position_axes`. Where there are none, averages and maxima have nothing to
        run over, and the value is flattened.
    pool : {"avg", "max", "flatten", "none"}
        ``"avg"`` is global average pooling over all positions.

    Returns
    -------
    Tensor
        Shape (B, *pooled_shape).

    References
    ----------
    M. Lin, Q. Chen and S. Yan, "Network in Network", ICLR 2014, section 3.2 (global
    average pooling).
    """
    wide = value.to(torch.float32)  # half precision would lose the sum's small terms
    match pool:
        case "avg" if axes:
            return wide.mean(axes)
        case "max" if axes:
            return wide.amax(axes)
        case "avg" | "max" | "flatten":
            return _copy(wide.reshape(len(wide), math.prod(wide.shape[1:])))
        case "none":
            return _copy(wide)
        case _:
            assert_never(pool)


def _copy(value: Tensor) -> Tensor:
    return value.clone(memory_format=torch.contiguous_format)
