"""Exact taps: the value of any layer as it was when the network computed it.

Whoever hands out a tensor of the network and reads it later may read another layer,
because networks overwrite their own values. Here every value is pooled at once, by
`embedkit.networks.graph_program` or `embedkit.networks.hooks`, and full activations never
leave the network.
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from embedkit.errors import InputError, NetworkError
from embedkit.networks.arena import Arena, keep_outputs
from embedkit.networks.layers import Layer
from embedkit.networks.pooling import pooled_shape
from embedkit.networks.pools import Pool, projection_of
from embedkit.networks.program import Program
from embedkit.networks.projection import matrix
from embedkit.networks.starts import Start
from embedkit.networks.tracing import ONE_AT_A_TIME

BACKEND: Final = "torch"
"""What executes the graphs made here."""


class TapGraph:
    """A network that returns some of its layers, pooled, and stops behind the last.

    Parameters
    ----------
    program : Program
        The network.
    layers : sequence of Layer
        What to tap, in execution order.
    pools : mapping of str to str
        For each of them, how it is pooled, as `check_pool` spells it.
    start : Start, optional
        Where to start from instead of the network's input.

    Attributes
    ----------
    layers : tuple of str
        Canonical names in execution order.
    pools : dict of str to str
        How each layer is pooled.
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
        program: Program,
        layers: Sequence[Layer],
        *,
        pools: Mapping[str, Pool],
        start: Start | None = None,
    ) -> None:
        self.layers = tuple(layer.name for layer in layers)
        self.pools = {layer: pools[layer] for layer in self.layers}
        self.shapes = {
            layer.name: pooled_shape(
                layer.shape,
                axes=layer.axes,
                pool=pools[layer.name],
                layer=layer.name,
            )
            for layer in layers
        }
        self._sizes = {layer.name: math.prod(layer.shape) for layer in layers}
        self.start = None if start is None else start.layer.name
        self.device = self._find_device()
        self._start = start
        self._format = program.memory_format
        self._arena = Arena(self.shapes)
        self._last = threading.local()
        self._module = self._ready(
            program.tapped(layers, pools=self.pools, start=start)
        )

    @property
    def pool_seconds(self) -> float:
        """Seconds of this thread's last forward that were pooling; 0 where not known."""
        seconds: float = getattr(self._last, "pooling", 0.0)
        return seconds

    @cached_property
    def _matrices(self) -> list[Tensor]:
        """What the graph projects with: as long as it is held, nobody draws it again."""
        found = {name: projection_of(pool) for name, pool in self.pools.items()}
        device = torch.zeros((), device=self.device).device  # "cuda" has a number there
        return [
            matrix(projection, self._sizes[name], device=device)
            for name, projection in found.items()
            if projection is not None
        ]

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
        with ONE_AT_A_TIME, torch.inference_mode(), _exact(self.device):
            _ = self._matrices
            self._arena.reserve(len(batch))
            before = self._arena.seconds
            taps = self._run(self._given(batch))
            self._last.pooling = self._arena.seconds - before
            for layer in self.layers:
                self._check(layer, taps[layer], len(batch))
            return {layer: _to_numpy(taps.pop(layer)) for layer in self.layers}

    def _find_device(self) -> str:
        return "cuda" if torch.cuda.is_available() else "cpu"

    def _ready(self, module: nn.Module) -> nn.Module:
        """Bring a graph to the device, as a copy: the network stays where it is."""
        if self.device != "cpu":  # whose allocator does not mix small and large
            return copy.deepcopy(module).to(self.device)
        if isinstance(module, fx.GraphModule):
            return keep_outputs(module, self._arena)
        return module

    def _given(self, batch: NDArray[np.float32]) -> Tensor:
        """Return a batch as the graph takes it, in memory that it may overwrite."""
        if self.device == "cuda":  # pinned memory is copied while the host goes on
            pinned = torch.from_numpy(np.ascontiguousarray(batch)).pin_memory()
            values = pinned.to(self.device, non_blocking=True)
        else:
            values = torch.tensor(batch)
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
        pools = ", ".join(map(repr, dict.fromkeys(self.pools.values())))
        kind = type(self).__name__
        return f"<{kind}: {begin}{count} layers, pool {pools}, on {self.device}>"


@contextmanager
def _exact(device: str) -> Iterator[None]:
    """Keep what a user's program allows elsewhere out of stored numbers.

    No inputs rounded to 10 bits or fewer, no half precision, no kernels by stopwatch.
    """
    before = torch.get_float32_matmul_precision()
    if before != "highest":  # asked first: setting it is said to all threads
        torch.set_float32_matmul_precision("highest")
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    try:
        with flags, torch.autocast(device, enabled=False):
            yield
    finally:
        if before != "highest":
            torch.set_float32_matmul_precision(before)


def _to_numpy(value: Tensor) -> NDArray[np.float32]:
    return np.array(value.cpu().numpy(), order="C")
