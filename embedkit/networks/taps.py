"""Exact taps: the value of any layer as it was when the network computed it.

Networks overwrite their own values: a rectifier that works in place leaves in the tensor
of the normalisation before it what only comes after. Whoever hands out that tensor and
reads it later reads another layer. Here the reduction that makes a tap small is put into
the network's graph directly behind the node it belongs to, so it runs before anything
else can touch the value, and full activations never leave the graph. Behind the last
tap the graph ends.

References
----------
J. K. Reed et al., "torch.fx: Practical Program Capture and Transformation for Deep
Learning in Python", MLSys 2022 (the graph and its interpreter).
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from embedkit.errors import InputError, NetworkError
from embedkit.networks.layers import Layer
from embedkit.networks.measure import LayerMeter
from embedkit.networks.pooling import Pool, pool_tap, pooled_shape

ONE_AT_A_TIME = threading.RLock()
"""Held while a network is traced, measured or run. PyTorch already spreads a forward pass
over all cores, and tracing replaces ``nn.Module.__call__`` for the whole process."""

# What foreign code may raise when it is called with stand-ins instead of tensors, or
# with a picture of a size it does not expect.
FOREIGN_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Traced:
    """A network's forward pass as a graph.

    Attributes
    ----------
    module : GraphModule
        The graph, with the network's own submodules and weights.
    names : dict of str to str
        Canonical names by the node's name in the graph, in execution order, inputs
        left out.
    """

    module: fx.GraphModule
    names: dict[str, str]


def one_line(error: BaseException) -> str:
    """Return the type of an error and the first line of what it says."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def trace(module: nn.Module, *, name: str) -> Traced:
    """Trace a network.

    Parameters
    ----------
    module : Module
        In evaluation mode. It is not changed.
    name : str
        For messages.

    Returns
    -------
    Traced
        The graph and the names of its nodes.

    Raises
    ------
    NetworkError
        When what the network does depends on the values it is given, or when it calls
        what cannot be traced.
    MissingDependencyError
        When torchvision, which names the nodes, cannot be loaded.
    """
    from embedkit.networks import torchvision_adapter

    # Tracing leaves constants on the module it is given: let that be a shallow copy.
    root = copy.copy(module)
    try:
        with ONE_AT_A_TIME:
            graph, names = torchvision_adapter.trace(root)
            traced = fx.GraphModule(root, graph).eval()
    except FOREIGN_ERRORS as error:
        message = (
            f"network {name} cannot be traced ({one_line(error)}): move what depends "
            "on values into a function marked with torch.fx.wrap, or split the network "
            "before it"
        )
        raise NetworkError(message) from error
    return Traced(
        module=traced, names={node.name: path for node, path in names.items()}
    )


def measure(traced: Traced, image: NDArray[np.float32], *, name: str) -> list[Layer]:
    """Return the layers of a network, in execution order.

    Parameters
    ----------
    traced : Traced
        The network.
    image : ndarray of float32, shape (C, H, W)
        A prepared picture. Its values do not matter, its size does.
    name : str
        For messages.

    Raises
    ------
    NetworkError
        When the network does not take such a picture, or has no layer that gives
        floating numbers for every image.
    """
    try:
        with ONE_AT_A_TIME:
            meter = LayerMeter(traced.module, traced.names)
            layers = meter.measure(torch.tensor(image))
    except FOREIGN_ERRORS as error:
        message = (
            f"network {name} does not take the {image.shape} float32 picture that its "
            f"transform gives ({one_line(error)}): pass transform= that fits it"
        )
        raise NetworkError(message) from error
    if not layers:
        message = (
            f"network {name} has no layer: no floating tensor with the batch in front "
            "depends on its input"
        )
        raise NetworkError(message)
    return layers


def tap_graph(
    traced: Traced, axes: Mapping[str, tuple[int, ...]], pool: Pool
) -> fx.Graph:
    """Return the network's graph with taps in it, cut off behind the last of them.

    Parameters
    ----------
    traced : Traced
        The network.
    axes : mapping of str to tuple of int
        For each layer to tap, the axes of its value that are positions.
    pool : {"avg", "max", "flatten", "none"}
        How taps are pooled.

    Returns
    -------
    Graph
        It returns a dict from layer to pooled value. Nothing the network does on the
        way is left out, because what looks unused may still work in place.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    taps: dict[str, fx.Node] = {}
    for node in traced.module.graph.nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
        layer = traced.names.get(node.name, "")
        if layer in axes:
            arguments = (copies[node], axes[layer])
            taps[layer] = graph.call_function(pool_tap, arguments, {"pool": pool})
        if len(taps) == len(axes):
            break
    graph.output(dict(taps))
    return graph


class TapGraph:
    """A network that returns some of its layers, pooled, and stops behind the last.

    Parameters
    ----------
    traced : Traced
        The network.
    layers : sequence of Layer
        What to tap, in execution order.
    pool : {"avg", "max", "flatten", "none"}
        How taps are pooled.

    Attributes
    ----------
    layers : tuple of str
        Canonical names in execution order.
    pool : str
        How taps are pooled.
    shapes : dict of str to tuple of int
        What `forward` returns for one image of each layer.
    device : str
        ``"cuda"`` where there is a GPU, else ``"cpu"``.
    """

    def __init__(self, traced: Traced, layers: Sequence[Layer], *, pool: Pool) -> None:
        axes = {layer.name: layer.axes for layer in layers}
        self.layers = tuple(axes)
        self.pool = pool
        self.shapes = {
            layer.name: pooled_shape(layer.shape, axes=layer.axes, pool=pool)
            for layer in layers
        }
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        graph = tap_graph(traced, axes, pool)
        module = fx.GraphModule(traced.module, graph).eval()
        if self.device != "cpu":  # a copy: the network itself stays where it is
            module = copy.deepcopy(module).to(self.device)
        self._module = module

    def forward(self, batch: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Run one batch. Threads of a process take turns.

        Parameters
        ----------
        batch : ndarray of float32, shape (B, C, H, W)
            Prepared pictures, all of one size. It is not changed.

        Returns
        -------
        dict of str to ndarray of float32
            For every layer an array of shape (B, *shapes[layer]), contiguous and nobody
            else's memory.

        Raises
        ------
        InputError
            When `batch` is not such an array.
        NetworkError
            When a layer gives an array of another shape.
        """
        if batch.ndim != 4 or batch.dtype != np.float32:
            message = (
                f"a batch of shape {batch.shape} and type {batch.dtype} was given: it "
                "has to be float32 of shape (images, channels, rows, columns)"
            )
            raise InputError(message)
        with ONE_AT_A_TIME, torch.inference_mode(), _exact_convolutions():
            # A copy even on the CPU: the first thing a network does may be in place.
            taps = self._module(torch.tensor(batch, device=self.device))
            for layer in self.layers:
                self._check(layer, taps[layer], len(batch))
            return {layer: _to_numpy(taps.pop(layer)) for layer in self.layers}

    def _check(self, layer: str, value: Tensor, count: int) -> None:
        """Refuse a value whose rows are not the images, whatever it was measured as."""
        expected, found = (count, *self.shapes[layer]), tuple(value.shape)
        if found != expected:
            message = (
                f"layer {layer!r} gave shape {found} where {expected} was expected for "
                f"{count} images: leave this layer out, or give pictures of the size "
                "that the network's transform gives"
            )
            raise NetworkError(message)

    def __repr__(self) -> str:
        count = len(self.layers)
        return f"<TapGraph: {count} layers, pool {self.pool!r}, on {self.device}>"


def _exact_convolutions() -> AbstractContextManager[None]:
    """Keep GPUs from rounding inputs to 10 bits, and from choosing by stopwatch."""
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return flags


def _to_numpy(value: Tensor) -> NDArray[np.float32]:
    return np.array(value.cpu().numpy(), order="C")
