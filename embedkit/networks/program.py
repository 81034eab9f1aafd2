"""What a network has to offer to be tapped, however its values are reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from embedkit.networks.layers import Layer
from embedkit.networks.measure import Measured
from embedkit.networks.pools import Pool
from embedkit.networks.starts import Start


class Program(Protocol):
    """A network that can be measured, told from others and tapped.

    `embedkit.networks.graph_program.GraphProgram` puts taps into the network's graph;
    `embedkit.networks.hooks.HookProgram` runs a network that has none.
    """

    @property
    def reason(self) -> str | None:
        """Why there is no graph, or None where there is one."""

    @property
    def memory_format(self) -> torch.memory_format:
        """How pictures have to lie in memory."""

    def channels_last(self) -> Program:
        """Return a copy that wants the channels last in memory."""

    def measure(self, image: NDArray[np.float32], *, name: str) -> Measured:
        """Return the layers, seen on one prepared picture (C, H, W)."""

    def architecture(self) -> str:
        """Return the SHA-256 of what the network does, weights left out."""

    def tapped(
        self,
        layers: Sequence[Layer],
        *,
        pools: Mapping[str, Pool],
        start: Start | None,
    ) -> nn.Module:
        """Return a module from a batch to a dict of layers, each pooled by its pool."""
