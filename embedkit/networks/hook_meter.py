"""Measure the layers of a network that has no graph, while it runs on one picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakTensorKeyDictionary

from embedkit.networks.effects import Effects
from embedkit.networks.layers import Layer
from embedkit.networks.measure import (
    CHANNELS_FIRST_MODULES,
    CHANNELS_LAST_MODULES,
    PROBE_BATCH,
    TO_CHANNELS_FIRST,
    TO_CHANNELS_LAST,
    Measured,
    is_batch,
    told,
    visible_attention,
)
from embedkit.networks.pooling import position_axes

_NO_EFFECTS = Effects(
    from_input=frozenset(), storages={}, writes={}, opaque=frozenset()
)


class _Origins(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch's has none
    """Follows from operator to operator what comes from the input, and its axes.

    A tensor that comes from the input is mapped to whether its channels are at the end.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.channels_last: Any = WeakTensorKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        value = func(*args, **(kwargs or {}))
        given = [one for one in _tensors((args, kwargs)) if one in self.channels_last]
        if given:
            last = any(self.channels_last[one] for one in given)
            if func is torch.ops.aten.permute.default:
                order = tuple(axis % len(args[1]) for axis in args[1])
                if order in (TO_CHANNELS_LAST, TO_CHANNELS_FIRST):
                    last = order == TO_CHANNELS_LAST
            for one in (*_tensors(value), *_written(func, args, kwargs)):
                self.channels_last[one] = last
        return value


def _tensors(value: Any) -> Iterator[Tensor]:
    leaves = torch.utils._pytree.tree_leaves(value)
    return (leaf for leaf in leaves if isinstance(leaf, Tensor))


def _written(func: Any, args: Any, kwargs: Any) -> Iterator[Tensor]:
    """Yield the tensors that an operator writes to."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.is_write:
            given = args[place] if place < len(args) else (kwargs or {})[argument.name]
            yield from _tensors(given)


class HookMeter:
    """Note what modules return while a network runs.

    Parameters
    ----------
    leaves : callable
        Yields name and value of everything in what a module returned.
    """

    def __init__(
        self, leaves: Callable[[str, object], Iterator[tuple[str, object]]]
    ) -> None:
        self._leaves = leaves
        self._layers: dict[str, Layer] = {}
        self._others: dict[str, str] = {}
        self._origins = _Origins()
        self._counter = FlopCounterMode(display=False)

    def measure(self, network: nn.Module, image: Tensor) -> Measured:
        """Return the layers that running a batch of one `image` (C, H, W) shows."""
        with torch.inference_mode(), visible_attention(), self._counter:
            # In inference mode, so that it is one of its tensors like all that follow.
            batch = image.expand(PROBE_BATCH, *image.shape).clone()
            self._origins.channels_last[batch] = False
            with self._origins:
                network(batch)
        layers = tuple(self._layers.values())
        return Measured(
            layers=layers,
            nodes={},
            layouts={},
            effects=_NO_EFFECTS,
            others=self._others,
        )

    def see(self, call: str, module: nn.Module, value: object) -> None:
        """Note what a module returned."""
        for name, leaf in self._leaves(call, value):
            if name in self._layers:
                continue
            if is_batch(leaf) and leaf in self._origins.channels_last:
                self._layers[name] = self._layer(name, module, leaf)
            else:
                self._others[name] = told(leaf)

    def _layer(self, name: str, module: nn.Module, value: Tensor) -> Layer:
        last = self._origins.channels_last
        if isinstance(module, CHANNELS_FIRST_MODULES):
            last[value] = False
        elif type(module) in CHANNELS_LAST_MODULES:
            last[value] = True
        return Layer(
            name=name,
            type=type(module).__name__,
            is_module=True,
            shape=tuple(value.shape[1:]),
            axes=position_axes(value.ndim, channels_last=last[value]),
            flops=self._counter.get_total_flops() // PROBE_BATCH,
        )
