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
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from embedkit.errors import InputError, NetworkError
from embedkit.networks.layers import Layer
from embedkit.networks.pooling import Pool, pool_tap, pooled_shape
from embedkit.networks.starts import Start
from embedkit.networks.tracing import ONE_AT_A_TIME, Traced

BACKEND: Final = "torch"
"""What executes the graphs made here."""


def tap_graph(
    traced: Traced,
    axes: Mapping[str, tuple[int, ...]],
    pool: Pool,
    start: Start | None = None,
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
    if start is not None:
        copies[start.node] = graph.placeholder("start")
    for node in traced.module.graph.nodes:
        if start is not None and node not in start.nodes:
            continue
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
    start : Start, optional
        Where to start from instead of the network's input.

    Attributes
    ----------
    layers : tuple of str
        Canonical names in execution order.
    pool : str
        How taps are pooled.
    shapes : dict of str to tuple of int
        What `forward` returns for one image of each layer.
    start : str or None
        The layer whose raw value `forward` takes, or None where it takes pictures.
    device : str
        ``"cuda"`` where there is a GPU, else ``"cpu"``.
    backend : str
        What executes the graph: ``"torch"``.
    tolerance : float
        The largest difference between a row computed again and a stored one, relative to
        the largest magnitude in the row, at which the two still count as equal. On one
        machine, with one version of PyTorch, rows are equal bit by bit. Kernels chosen
        for another CPU or number of threads add float32 numbers in another order: over
        all layers of six networks, with trained and random weights, on one thread
        instead of two and with oneDNN's kernels or without, no row differed by more than
        6.1e-6 (MobileNetV2, trained, unpooled). The tolerance is 16 times that.
    """

    backend: ClassVar[str] = BACKEND
    tolerance: ClassVar[float] = 1e-4

    def __init__(
        self,
        traced: Traced,
        layers: Sequence[Layer],
        *,
        pool: Pool,
        start: Start | None = None,
    ) -> None:
        axes = {layer.name: layer.axes for layer in layers}
        self.layers = tuple(axes)
        self.pool = pool
        self.shapes = {
            layer.name: pooled_shape(layer.shape, axes=layer.axes, pool=pool)
            for layer in layers
        }
        self.start = None if start is None else start.layer.name
        self.device = self._find_device()
        self._start = start
        self._format = traced.memory_format
        graph = tap_graph(traced, axes, pool, start)
        self._module = self._ready(fx.GraphModule(traced.module, graph).eval())

    def forward(self, batch: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Run one batch. Threads of a process take turns.

        Parameters
        ----------
        batch : ndarray of float32, shape (B, C, H, W)
            Prepared pictures, all of one size; or, with `start`, what that layer gave for
            a batch, unpooled: shape (B, *shape of the layer). It is not changed.

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
        self._check_batch(batch)
        with ONE_AT_A_TIME, torch.inference_mode(), _exact_convolutions():
            taps = self._run(self._given(batch))
            for layer in self.layers:
                self._check(layer, taps[layer], len(batch))
            return {layer: _to_numpy(taps.pop(layer)) for layer in self.layers}

    def _find_device(self) -> str:
        return "cuda" if torch.cuda.is_available() else "cpu"

    def _ready(self, module: fx.GraphModule) -> fx.GraphModule:
        """Bring a graph to the device, as a copy: the network stays where it is."""
        return module if self.device == "cpu" else copy.deepcopy(module).to(self.device)

    def _given(self, batch: NDArray[np.float32]) -> Tensor:
        """Return a batch as the graph takes it, in memory that it may overwrite."""
        values = torch.tensor(batch, device=self.device)
        if self._start is not None:
            return self._start.layout.restore(values)
        return values.contiguous(memory_format=self._format)

    def _run(self, values: Tensor) -> dict[str, Tensor]:
        taps: dict[str, Tensor] = self._module(values)
        return taps

    def _check_batch(self, batch: NDArray[np.float32]) -> None:
        """Refuse what the graph was not made for."""
        found = f"a batch of shape {batch.shape} and type {batch.dtype} was given: "
        single = batch.dtype == np.float32
        if self._start is None:
            if batch.ndim != 4 or not single:
                message = (
                    f"{found}it has to be float32 of shape (images, channels, rows, "
                    "columns)"
                )
                raise InputError(message)
        elif batch.shape[1:] != self._start.layer.shape or batch.ndim < 1 or not single:
            shape = ", ".join(map(str, ("images", *self._start.layer.shape)))
            message = (
                f"{found}to start from layer {self.start!r} it has to be float32 of "
                f"shape ({shape}), as taps([{self.start!r}], pool='none') gives it"
            )
            raise InputError(message)

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
        begin = "" if self.start is None else f"from {self.start!r}, "
        return f"<{type(self).__name__}: {begin}{count} layers, pool {self.pool!r}, on {self.device}>"


def _exact_convolutions() -> AbstractContextManager[None]:
    """Keep GPUs from rounding inputs to 10 bits, and from choosing by stopwatch."""
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return flags


def _to_numpy(value: Tensor) -> NDArray[np.float32]:
    return np.array(value.cpu().numpy(), order="C")
