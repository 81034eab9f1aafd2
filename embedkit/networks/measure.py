"""Measure the layers of a traced network on one picture: shapes, positions, operations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from embedkit.networks.effects import EffectMeter, Effects, node_type
from embedkit.networks.layers import Layer
from embedkit.networks.layout import Layout, layout_of
from embedkit.networks.pooling import position_axes

PROBE_BATCH = 5
"""Images measured at once. Whatever else has this many rows would look like a batch, so
it is no number that networks like: not 1, nor the 2 or 3 of stacked queries, keys and
values. A larger one would only take longer."""

TO_CHANNELS_LAST = (0, 2, 3, 1)
TO_CHANNELS_FIRST = (0, 3, 1, 2)
CHANNELS_LAST_MODULES = (nn.Linear, nn.LayerNorm)
CHANNELS_FIRST_MODULES = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.GroupNorm)


@contextmanager
def visible_attention() -> Iterator[None]:
    """Keep attention out of its fused kernels, which hide their operations."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(value=False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(value=before)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """What running a network once has shown.

    Attributes
    ----------
    layers : tuple of Layer
        In execution order.
    nodes : dict of str to Node
        The node of the graph that each layer is.
    layouts : dict of str to Layout
        How the value of each layer lies in memory.
    effects : Effects
        What the nodes of the graph do to memory.
    others : dict of str to str
        What gives no layer: its name, and what it gives instead.
    """

    layers: tuple[Layer, ...]
    nodes: dict[str, fx.Node]
    layouts: dict[str, Layout]
    effects: Effects
    others: dict[str, str] = field(default_factory=dict)


class LayerMeter(EffectMeter):
    """Run a graph once, node by node, and note what a table of layers has to say.

    A node is a layer when its value depends on the input and is a floating tensor with
    the batch in front. Values of four axes are (B, C, H, W) unless the network moved its
    channels to the end (a permutation did, or a module works there), as Swin does:
    pooling must then run over other axes, and would be silently wrong otherwise.

    Parameters
    ----------
    module : GraphModule
        What to run.
    names : dict
        The canonical names of its nodes, by their names in the graph.
    """

    def __init__(self, module: fx.GraphModule, names: dict[str, str]) -> None:
        super().__init__(module)
        self._layers: list[Layer] = []
        self._nodes: dict[str, fx.Node] = {}
        self._layouts: dict[str, Layout] = {}
        self._others: dict[str, str] = {}
        self._names = names
        self._channels_last: set[fx.Node] = set()
        self._counter = FlopCounterMode(display=False)

    def measure(
        self, image: Tensor, layout: torch.memory_format = torch.contiguous_format
    ) -> Measured:
        """Return what running a batch of one `image` (C, H, W) in a layout shows."""
        repeated = image.expand(PROBE_BATCH, *image.shape)
        batch = repeated.clone(memory_format=layout)  # clone: it may work in place
        with torch.inference_mode(), visible_attention(), self._counter:
            self.run(batch)
        return Measured(
            layers=tuple(self._layers),
            nodes=self._nodes,
            layouts=self._layouts,
            effects=self.effects,
            others=self._others,
        )

    def run_node(self, n: fx.Node) -> Any:
        """Run a node and note it if it is a layer."""
        value = super().run_node(n)
        if n.name not in self._names:
            return value
        if n not in self.from_input or not is_batch(value):
            self._others[self._names[n.name]] = told(value)
        else:
            layer = self._layer(n, value)
            self._layers.append(layer)
            self._nodes[layer.name] = n
            self._layouts[layer.name] = layout_of(value)
        return value

    def _layer(self, node: fx.Node, value: Tensor) -> Layer:
        if value.ndim == 4 and self._is_channels_last(node):
            self._channels_last.add(node)
        return Layer(
            name=self._names[node.name],
            type=node_type(node, self.module),
            is_module=node.op == "call_module",
            shape=tuple(value.shape[1:]),
            axes=position_axes(value.ndim, channels_last=node in self._channels_last),
            flops=self._counter.get_total_flops() // PROBE_BATCH,
        )

    def _is_channels_last(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            module = self.module.get_submodule(str(node.target))
            if isinstance(module, CHANNELS_FIRST_MODULES):
                return False
            # Not isinstance: ConvNeXt's LayerNorm2d is one and puts channels back.
            if type(module) in CHANNELS_LAST_MODULES:
                return True
        order = self._permutation(node)
        if order in (TO_CHANNELS_LAST, TO_CHANNELS_FIRST):
            return order == TO_CHANNELS_LAST
        return any(each in self._channels_last for each in node.all_input_nodes)

    def _permutation(self, node: fx.Node) -> tuple[int, ...] | None:
        """Return the order of axes that a node of any kind asks for, if it does."""
        if node_type(node, self.module).lower() != "permute":
            return None
        if node.op == "call_module":
            order: Any = self.module.get_submodule(str(node.target)).dims
        else:
            given = node.args[1:] or tuple(node.kwargs.values())[-1:]
            order = given[0] if len(given) == 1 else given
        return tuple(axis % len(order) for axis in order)


def told(value: object) -> str:
    """Say in a word what a value is.

    Examples
    --------
    >>> told((1, 2)), told(torch.zeros(5, 3) > 0)
    ('a value of type tuple', 'a tensor (5, 3) of torch.bool')
    """
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype}"
    return f"a value of type {type(value).__name__}"


def is_batch(value: object) -> TypeGuard[Tensor]:
    """Tell whether a value is a floating tensor of one or more numbers per image."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return False
    shape = tuple(value.shape)
    return len(shape) > 0 and shape[0] == PROBE_BATCH and math.prod(shape) > 0
