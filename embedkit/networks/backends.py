"""The backends that execute a tap graph: what they share, and which there are.

The reference is ``"torch"``: plain PyTorch, the bits that the network itself gives. All
others compute the same layers faster and with other last bits. None of them is taken
because it is known to be fast: `embedkit.networks.backend_choice.choose_backend` measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from embedkit.errors import InputError, NetworkError, did_you_mean
from embedkit.networks.fused import fuse
from embedkit.networks.layers import Layer
from embedkit.networks.pools import Pool
from embedkit.networks.program import Program
from embedkit.networks.starts import Start
from embedkit.networks.taps import BACKEND, TapGraph
from embedkit.networks.tracing import FOREIGN_ERRORS, one_line

Backend: TypeAlias = Literal[
    "torch", "torch_channels_last", "torch_fused", "openvino", "cuda_amp"
]
"""What executes a tap graph."""

BACKENDS: tuple[Backend, ...] = get_args(Backend)

_OF_GRAPHS = ("torch_fused", "openvino", "cuda_amp")


class Taps(Protocol):
    """A function from batches to pooled layers, whatever executes it.

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
        ``"cuda"`` or ``"cpu"``.
    backend : str
        What executes the graph.
    tolerance : float
        The largest difference between a row and the reference's, relative to the
        largest magnitude in the row, at which the two still count as equal.
    pool_seconds : float
        Seconds of this thread's last forward that were pooling; 0 where that happens
        inside of what cannot be looked into, as OpenVINO's graphs and hooks.
    """

    backend: ClassVar[str]
    tolerance: ClassVar[float]
    layers: tuple[str, ...]
    pools: dict[str, Pool]
    shapes: dict[str, tuple[int, ...]]
    start: str | None
    device: str

    @property
    def pool_seconds(self) -> float:
        """See the class."""

    def forward(self, batch: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Run one batch; see `embedkit.networks.taps.TapGraph.forward`."""


class ChannelsLastTaps(TapGraph):
    """The reference, with the channels of pictures, maps and kernels last in memory.

    Rows are the same bit by bit whatever the other rows of a batch are. It is no
    reference because some networks look at memory: a view of a map as vectors fails, and
    writing to a reshaped map no longer reaches the map.

    Attributes
    ----------
    tolerance : float
        As the reference's, for the same reason.
    """

    backend: ClassVar[str] = "torch_channels_last"

    def _run(self, values: Tensor) -> dict[str, Tensor]:
        try:
            return super()._run(values)
        except FOREIGN_ERRORS as error:
            message = (
                f"backend {self.backend!r} cannot run this network ({one_line(error)}): "
                f"use backend={BACKEND!r}"
            )
            raise NetworkError(message) from error


class FusedTaps(ChannelsLastTaps):
    """Channels last, and convolutions that do the normalisation behind them as well.

    See `embedkit.networks.fused.fuse` for which ones.

    Attributes
    ----------
    tolerance : float
        As the reference's: folding a scale into weights rounds them once.
    """

    backend: ClassVar[str] = "torch_fused"

    def _ready(self, module: nn.Module) -> nn.Module:
        assert isinstance(module, fx.GraphModule)  # `make_taps` sees to it
        return super()._ready(fuse(module))


def takes_channels_last(backend: Backend) -> bool:
    """Tell whether a backend wants the program that `channels_last` returns."""
    return backend in ("torch_channels_last", "torch_fused", "cuda_amp")


def check_backend(backend: str) -> Backend:
    """Return a backend's name.

    Raises
    ------
    InputError
        When there is no such backend.
    """
    if backend in BACKENDS:
        return backend
    nearest = did_you_mean(backend, BACKENDS)
    raise InputError(f"there is no backend {backend!r}. {nearest}")


def make_taps(
    backend: Backend,
    program: Program,
    *,
    layers: Sequence[Layer],
    pools: Mapping[str, Pool],
    start: Start | None,
    identity: Callable[[], str],
) -> TapGraph:
    """Return what executes a tap graph.

    Parameters
    ----------
    backend : str
        One of `BACKENDS`.
    program : Program
        The network, with channels last where the backend takes it so.
    layers, pools, start
        As for `TapGraph`; `start` has to be a place in the graph of `program`.
    identity : callable
        Returns the network's identity, where something is kept under it.

    Raises
    ------
    InputError
        For ``"cuda_amp"`` where there is no GPU, and for what works on a graph where the
        network has none.
    MissingDependencyError
        For ``"openvino"`` where it is not installed.
    """
    if program.reason is not None and backend in _OF_GRAPHS:
        message = (
            f"backend {backend!r} works on graphs, and the network cannot be traced "
            f"({program.reason}): use backend={BACKEND!r}"
        )
        raise InputError(message)
    if backend == "openvino":
        from embedkit.networks.openvino_adapter import OpenVinoTaps

        return OpenVinoTaps(
            program, layers, pools=pools, start=start, identity=identity()
        )
    return _class_of(backend)(program, layers, pools=pools, start=start)


def _class_of(backend: Backend) -> type[TapGraph]:
    from embedkit.networks.cuda_amp import AmpTaps

    found: dict[str, type[TapGraph]] = {
        each.backend: each for each in (TapGraph, ChannelsLastTaps, FusedTaps, AmpTaps)
    }
    return found[backend]
