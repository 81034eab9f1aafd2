"""How a value lies in memory, and how to make it lie so again.

Equal numbers in another order of axes are the same value, but not to a computer: kernels
walk along memory, so their sums come out in another order, with other last bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_EXACT_BITS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The type and the strides of a batched value.

    Attributes
    ----------
    dtype : torch.dtype
        Its type.
    strides : tuple of int
        Steps in memory, in entries, between neighbours along each axis.
    count : int
        The images in the batch that this was seen on.
    """

    dtype: torch.dtype
    strides: tuple[int, ...]
    count: int

    @property
    def fits_float32(self) -> bool:
        """Whether float32 holds every number of this type."""
        return torch.finfo(self.dtype).bits <= _EXACT_BITS

    def strides_of(self, count: int) -> tuple[int, ...]:
        """Return the strides of a batch of `count` images.

        An axis that encloses the batch has longer steps when there are more images.
        """
        batch = self.strides[0]
        return tuple(
            step if step <= batch or batch == 0 else step * count // self.count
            for step in self.strides
        )

    def restore(self, values: Tensor) -> Tensor:
        """Return values as the network had them.

        Parameters
        ----------
        values : Tensor
            Float32, contiguous, shape (B, *shape of the layer).

        Returns
        -------
        Tensor
            With this type and these strides, on the same device. It is `values` itself
            where nothing differs.
        """
        strides = self.strides_of(len(values))
        if values.stride() == strides and values.dtype == self.dtype:
            return values
        # An axis of stride 0 repeats one entry: there is room for that one alone.
        once = tuple(slice(0, 1 if step == 0 else None) for step in strides)
        kept = values[once]
        room = torch.empty_strided(
            kept.shape, strides, dtype=self.dtype, device=values.device
        )
        return room.copy_(kept).expand(values.shape)


def layout_of(value: Tensor) -> Layout:
    """Return how a value with the batch in front lies in memory."""
    return Layout(dtype=value.dtype, strides=value.stride(), count=len(value))
