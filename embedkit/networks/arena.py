"""One piece of memory for the pooled values of a batch, and the time that pooling takes.

A pooled value is small and lives until the pass ends. Put wherever the allocator finds
room, it lands inside the megabytes that a map has just left, and no later map fits there
again: with 175 taps of ResNet-50 the heap grew by 300 MB over a batch of 8, where the
network alone takes 130 MB. So the place of all of them is reserved before the pass.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, fx

SMALL: Final = 2**20
"""Bytes of a value up to which it is moved; larger ones are maps that were asked for, and
the allocator gives them pages of their own (chosen: 8 images of 32,768 features)."""


class Arena:
    """Memory for the small values of one batch at a time.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        The shape of each pooled layer for one image.

    Attributes
    ----------
    seconds : float
        How long pooling took, over all batches so far.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._widths = [math.prod(shape) for shape in shapes.values()]
        self._memory = torch.empty(0)
        self._used = 0
        self._since = 0.0
        self.seconds = 0.0

    def reserve(self, count: int) -> None:
        """Make room for a batch of `count` images. What earlier ones hold stays theirs."""
        sizes = [count * width for width in self._widths]
        self._memory = torch.empty(sum(size for size in sizes if 4 * size <= SMALL))
        self._used = 0

    def begin(self) -> None:
        """Start the clock: a layer is about to be pooled."""
        self._since = time.perf_counter()

    def keep(self, value: Tensor) -> Tensor:
        """Return a small value from the reserved memory, anything else as it is."""
        try:
            return self._kept(value)
        finally:
            self.seconds += time.perf_counter() - self._since

    def _kept(self, value: Tensor) -> Tensor:
        end = self._used + value.numel()
        small = value.nbytes <= SMALL and value.dtype == torch.float32
        if not small or end > len(self._memory) or value.device.type != "cpu":
            return value
        place = self._memory[self._used : end].view(value.shape)
        self._used = end
        return place.copy_(value)


def keep_outputs(module: fx.GraphModule, arena: Arena) -> fx.GraphModule:
    """Return a graph that moves what it pools into an arena at once, and times both.

    Parameters
    ----------
    module : GraphModule
        Returns a dict of layer to the node that pools it. Its graph is changed.
    arena : Arena
        Has to be reserved before each batch.
    """
    graph = module.graph
    output = next(iter(reversed(graph.nodes)))
    taps: Mapping[str, fx.Node] = output.args[0]
    kept = {}
    for layer, node in taps.items():
        with graph.inserting_before(node):
            graph.call_function(arena.begin)
        with graph.inserting_after(node):
            kept[layer] = graph.call_function(arena.keep, (node,))
    output.args = (kept,)
    module.recompile()
    return module
