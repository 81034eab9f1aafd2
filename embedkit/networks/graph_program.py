"""A network that has a graph: how it is measured, told from others and tapped.

Networks overwrite their own values: a rectifier that works in place leaves in the tensor
of the normalisation before it what only comes after. Here the reduction that makes a tap
small is put into the network's graph directly behind the node it belongs to, so it runs
before anything else can touch the value. Behind the last tap the graph ends.

References
----------
J. K. Reed et al., "torch.fx: Practical Program Capture and Transformation for Deep
Learning in Python", MLSys 2022 (the graph and its interpreter).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from embedkit.networks.identity import architecture_digest
from embedkit.networks.layers import Layer
from embedkit.networks.measure import Measured
from embedkit.networks.pooling import pool_tap
from embedkit.networks.pools import Pool
from embedkit.networks.starts import Start
from embedkit.networks.tracing import Traced, channels_last, measure


def tap_graph(
    traced: Traced,
    axes: Mapping[str, tuple[int, ...]],
    pools: Mapping[str, Pool],
    start: Start | None = None,
) -> fx.Graph:
    """Return the network's graph with taps in it, cut off behind the last of them.

    Parameters
    ----------
    traced : Traced
        The network.
    axes : mapping of str to tuple of int
        For each layer to tap, the axes of its value that are positions.
    pools : mapping of str to str
        For each of these layers, how it is pooled, as `check_pool` spells it.
    start : Start, optional
        Where to start from instead of the network's input.

    Returns
    -------
    Graph
        It returns a dict from layer to pooled value. From the input, nothing the network
        does on the way is left out, because what looks unused may still work in place.
        From a start, only what `start` names is there.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    taps: dict[str, fx.Node] = {}
    for node in traced.module.graph.nodes:
        if start is not None and node is start.node:
            copies[node] = graph.placeholder("start")
        elif start is None or node in start.nodes:
            copies[node] = graph.node_copy(node, copies.__getitem__)
        else:
            continue
        layer = traced.names.get(node.name, "")
        if layer in axes:
            arguments = (copies[node], axes[layer])
            how: dict[str, Any] = {"pool": pools[layer]}
            taps[layer] = graph.call_function(pool_tap, arguments, how)
        if len(taps) == len(axes):
            break
    graph.output(dict(taps))
    return graph


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GraphProgram:
    """A network that has a graph.

    Attributes
    ----------
    traced : Traced
        The network.
    reason : None
        Why it has no graph.
    """

    traced: Traced
    reason: str | None = None

    def measure(self, image: NDArray[np.float32], *, name: str) -> Measured:
        """Run the graph on one picture and return its layers."""
        return measure(self.traced, image, name=name)

    @property
    def memory_format(self) -> torch.memory_format:
        """How pictures have to lie in memory."""
        return self.traced.memory_format

    def channels_last(self) -> GraphProgram:
        """Return a copy that wants the channels last in memory."""
        return GraphProgram(traced=channels_last(self.traced))

    def architecture(self) -> str:
        """Return the SHA-256 of the graph and of the code and modules it calls."""
        return architecture_digest(self.traced)

    def tapped(
        self,
        layers: Sequence[Layer],
        *,
        pools: Mapping[str, Pool],
        start: Start | None,
    ) -> nn.Module:
        """Return the graph with taps in it, as a module."""
        axes = {layer.name: layer.axes for layer in layers}
        graph = tap_graph(self.traced, axes, pools, start)
        return fx.GraphModule(self.traced.module, graph).eval()
