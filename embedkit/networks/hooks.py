"""Exact taps of a network that has no graph: every call of a module is a layer.

What a network does may depend on the values it is given, so that no graph holds for all
pictures. Such a network is run as it is, with hooks on its modules. A hook gets the value
of a module the moment the module returns and pools it into new memory at once, so nothing
that happens in place later reaches it. Behind the last tap the forward pass is cut off.

Layers are called ``path#call``: the path of the module and the number of its call from 0
on. The network itself, which has no path, is called ``forward``, a name that no part of it
can have. Where a module returns tuples, lists or dicts, every tensor in them is a layer of
its own, called ``path#call.key`` or ``path#call.1.key``. Where two values would have one
name, it is that of the first.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embedkit.errors import NetworkError
from embedkit.networks.hook_meter import HookMeter
from embedkit.networks.identity import module_digest
from embedkit.networks.layers import Layer
from embedkit.networks.measure import Measured
from embedkit.networks.pooling import pool_tap
from embedkit.networks.pools import Pool
from embedkit.networks.starts import Start
from embedkit.networks.tracing import ONE_AT_A_TIME, measured_by

ROOT = "forward"
"""What the network itself is called."""

Seen: TypeAlias = Callable[[str, nn.Module, object], None]
"""Is called with the name of a call, the module and what it returned."""


class _Done(BaseException):
    """Cuts a forward pass off. No network's ``except Exception`` catches it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HookProgram:
    """A network that is run as it is.

    Attributes
    ----------
    module : Module
        The network. Its hooks are put back after every run.
    reason : str
        Why it has no graph.
    memory_format : torch.memory_format
        How pictures have to lie in memory.
    """

    module: nn.Module
    reason: str | None
    memory_format: torch.memory_format = torch.contiguous_format

    def channels_last(self) -> HookProgram:
        """Return a copy that wants the channels last in memory."""
        layout = torch.channels_last
        module = copy.deepcopy(self.module).to(memory_format=layout)
        return replace(self, module=module, memory_format=layout)

    def measure(self, image: NDArray[np.float32], *, name: str) -> Measured:
        """Run the network on one picture and return its layers.

        Raises
        ------
        NetworkError
            When the network fails, or has no layer.
        """

        def run(picture: Tensor) -> Measured:
            meter = HookMeter(leaves)
            with watched(paths_of(self.module), meter.see):
                return meter.measure(self.module, picture)

        return measured_by(run, image, name=name)

    def architecture(self) -> str:
        """Return the SHA-256 of the classes, their code and the settings of all modules.

        Raises
        ------
        NetworkError
            When a module holds what cannot be pickled.
        """
        with ONE_AT_A_TIME:  # a running network has hooks that belong to nobody else
            return module_digest(self.module)

    def tapped(
        self,
        layers: Sequence[Layer],
        *,
        pools: Mapping[str, Pool],
        start: Start | None,
    ) -> nn.Module:
        """Return a module that runs the network up to the last of the layers."""
        assert start is None  # nothing can be computed from a layer of such a network
        return HookedTaps(self.module, layers, pools=pools)


class HookedTaps(nn.Module):
    """Runs a network and returns some layers, pooled, by name.

    Parameters
    ----------
    network : Module
        In evaluation mode.
    layers : sequence of Layer
        What to tap.
    pools : mapping of str to str
        For each of them, how it is pooled, as `check_pool` spells it.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[Layer],
        *,
        pools: Mapping[str, Pool],
    ) -> None:
        super().__init__()
        self.network = network
        self._layers = {layer.name: layer for layer in layers}
        self._pools = dict(pools)

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """Run one batch.

        Raises
        ------
        NetworkError
            When a layer was not reached, or gave something else than when it was
            measured.
        """
        taps: dict[str, Tensor] = {}
        count = len(batch)

        def take(call: str, _: nn.Module, value: object) -> None:
            for name, leaf in leaves(call, value):
                if name in self._layers and name not in taps:
                    taps[name] = self._pooled(name, leaf, count)
            if len(taps) == len(self._layers):
                raise _Done

        wanted = {name.rpartition("#")[0] for name in self._layers}
        paths = {
            path: module
            for path, module in paths_of(self.network).items()
            if path in wanted
        }
        with watched(paths, take):
            try:
                self.network(batch)
            except _Done:
                return taps
        missing = next((name for name in self._layers if name not in taps), None)
        if missing is not None:
            raise _otherwise(missing, "was not computed")
        return taps

    def _pooled(self, name: str, value: object, count: int) -> Tensor:
        layer = self._layers[name]
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise _otherwise(name, f"gave a {type(value).__name__}, no floating tensor")
        expected = (count, *layer.shape)
        if tuple(value.shape) != expected:
            found = f"gave shape {tuple(value.shape)} where {expected} was expected"
            raise _otherwise(name, found)
        return pool_tap(value, layer.axes, pool=self._pools[name])


def _otherwise(name: str, found: str) -> NetworkError:
    return NetworkError(
        f"layer {name!r} {found}: this network does different things with different "
        "pictures, so leave this layer out"
    )


def paths_of(network: nn.Module) -> dict[str, nn.Module]:
    """Return every module once, by its first path; the network itself as `ROOT`."""
    return {path or ROOT: module for path, module in network.named_modules()}


def leaves(name: str, value: object) -> Iterator[tuple[str, object]]:
    """Yield what tuples, lists and dicts hold, each under its own name.

    Examples
    --------
    >>> list(leaves("head#0", {"scores": 1, "boxes": (2, 3)}))
    [('head#0.scores', 1), ('head#0.boxes.0', 2), ('head#0.boxes.1', 3)]
    """
    if isinstance(value, Mapping):
        items: list[tuple[object, Any]] = list(value.items())
    elif isinstance(value, tuple | list):
        items = list(enumerate(value))
    else:
        yield name, value
        return
    for key, each in items:
        yield from leaves(f"{name}.{key}", each)


@contextmanager
def watched(paths: Mapping[str, nn.Module], see: Seen) -> Iterator[None]:
    """Have `see` called whenever one of the modules returns, and never afterwards.

    Parameters
    ----------
    paths : mapping of str to Module
        What to watch, and what it is called.
    see : callable
        Called with ``path#call``, the module and its value.
    """
    calls: Counter[str] = Counter()

    def hook_of(path: str) -> Callable[[nn.Module, Any, object], None]:
        def hook(module: nn.Module, _: Any, value: object) -> None:
            call = f"{path}#{calls[path]}"
            calls[path] += 1
            see(call, module, value)

        return hook

    with ExitStack() as stack, ONE_AT_A_TIME:
        for path, module in paths.items():
            handle = module.register_forward_hook(hook_of(path))
            stack.callback(handle.remove)
        yield
