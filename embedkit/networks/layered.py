"""What a network's layers are called, and which of them a user means."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from functools import cached_property

import pandas as pd
from torch import nn

from embedkit.networks.blocks import block_taps
from embedkit.networks.choice import (
    LayerChoice,
    choose_layers,
    resolve_layers,
    resolve_pools,
)
from embedkit.networks.layers import Layer, layer_table, module_aliases
from embedkit.networks.measure import Measured
from embedkit.networks.pools import Pool


class Layered(abc.ABC):
    """The part of `embedkit.networks.network.Network` that chooses among its layers.

    Attributes
    ----------
    name : str
        For people.
    """

    name: str

    @property
    @abc.abstractmethod
    def module(self) -> nn.Module:
        """The network itself."""

    @property
    @abc.abstractmethod
    def _measured(self) -> Measured:
        """What running the network once has shown."""

    @cached_property
    def layers(self) -> pd.DataFrame:
        """Every layer that can be tapped, in execution order.

        See `embedkit.networks.layers.layer_table` for its columns.
        """
        return layer_table(self._measured.layers)

    @cached_property
    def aliases(self) -> dict[str, str]:
        """The canonical tap for every module path: the last tap inside the module."""
        paths = {path for path, _ in self.module.named_modules()}
        found = module_aliases([layer.name for layer in self._measured.layers])
        return {path: name for path, name in found.items() if path in paths}

    @cached_property
    def _blocks(self) -> tuple[str, ...]:
        return tuple(block_taps(self.module, self._measured.layers))

    def resolve(self, layers: LayerChoice = "stages") -> tuple[str, ...]:
        """Return the canonical names of the layers asked for.

        Parameters
        ----------
        layers : str, sequence of str or callable, default "stages"
            Taps (``"layer1.0.relu_1"``), modules (``"layer4"``: its last tap), patterns
            (``"*.add"``), or presets: ``"all"``, ``"last"``, ``"stages"`` for one tap of
            each spatial resolution and the last vector (defined in
            `embedkit.networks.layers.stages`), and ``"blocks"`` for one tap of each
            repeated building block (`embedkit.networks.blocks.block_taps`). A sequence
            may mix them. A callable is given every row of `layers` and returns whether
            to take it.

        Returns
        -------
        tuple of str
            In execution order, without repetition.

        Raises
        ------
        NetworkError
            When there is no such layer.
        """
        return resolve_layers(
            layers,
            self._measured.layers,
            network=self.name,
            blocks=self._blocks,
            others=self._measured.others,
        )

    def resolve_pools(
        self, pool: Pool | Mapping[str, Pool], layers: LayerChoice = "stages"
    ) -> dict[str, Pool]:
        """Return how each of the layers asked for is pooled.

        `pool` and `layers` are as for `taps`.

        Returns
        -------
        dict of str to str
            From canonical names, in execution order, to canonical pools (see
            `embedkit.networks.pools.check_pool`).

        Raises
        ------
        NetworkError
            When there is no such layer.
        InputError
            When there is no such pool, no pool for some layer, or one that does not fit.
        """
        return resolve_pools(
            pool,
            self._chosen(layers),
            layers=self._measured.layers,
            network=self.name,
            blocks=self._blocks,
            others=self._measured.others,
        )

    def _chosen(self, layers: LayerChoice) -> list[Layer]:
        return choose_layers(
            layers,
            self._measured.layers,
            network=self.name,
            blocks=self._blocks,
            others=self._measured.others,
        )
