"""A network as embedkit sees it: layers to name, taps to read, an identity to compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import ClassVar, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from embedkit.files.files import Files
from embedkit.networks.blocks import block_taps
from embedkit.networks.choice import (
    LayerChoice,
    choose_layers,
    resolve_layers,
    resolve_pools,
)
from embedkit.networks.identity import (
    architecture_digest,
    combine,
    describe_transform,
)
from embedkit.networks.layers import Layer, layer_table, module_aliases
from embedkit.networks.measure import Measured
from embedkit.networks.pools import Pool
from embedkit.networks.prepared import as_input, human
from embedkit.networks.spool_file import Spooled, write_spool
from embedkit.networks.starts import demand_start, find_start
from embedkit.networks.taps import BACKEND, TapGraph
from embedkit.networks.tracing import measure, trace
from embedkit.networks.weights import weights_digest

Transform: TypeAlias = Callable[[Image.Image], Tensor]
"""From an image of any size to a float tensor (C, H, W) of the network's size."""

_PROBE_SIZE = (512, 384)  # a common photo's shape; its content is of no account
_PROBE_GREY = (128, 128, 128)


class Network:
    """A network in evaluation mode, and the transform that its weights expect.

    Use `embedkit.networks.load.load_network` to get one.

    Parameters
    ----------
    module : Module
        Becomes the network's own: it is put into evaluation mode and frozen.
    name : str
        For people. It is not part of the identity.
    transform : callable
        From a PIL image to a float tensor (C, H, W).
    asked, weights : str, optional
        What to pass to `embedkit.networks.load.load_network` to get the module again.

    Attributes
    ----------
    name, transform
        As given.
    asked : str or None
        The name that was given to `load_network`; None for a module.
    weights : str or None
        ``"default"``, ``"none"`` or the absolute path of a file; None for a module.
        A transform of one's own is passed again. Neither is part of the identity.
    backend : str
        What executes the network: ``"torch"``.

    Raises
    ------
    NetworkError
        When the module cannot be traced.
    """

    backend: ClassVar[str] = BACKEND

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        transform: Transform,
        asked: str | None = None,
        weights: str | None = None,
    ) -> None:
        self.name = name
        self.transform = transform
        self.asked = asked
        self.weights = weights
        self._module = module.eval().requires_grad_(requires_grad=False)
        self._traced = trace(self._module, name=name)

    @property
    def module(self) -> nn.Module:
        """The network itself."""
        return self._module

    @cached_property
    def _probe(self) -> NDArray[np.float32]:
        return self.prepare(Image.new("RGB", _PROBE_SIZE, _PROBE_GREY))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """What the transform gives and the network takes: (channels, rows, columns)."""
        return self._probe.shape

    @cached_property
    def _measured(self) -> Measured:
        return measure(self._traced, self._probe, name=self.name)

    @property
    def _layers(self) -> tuple[Layer, ...]:
        return self._measured.layers

    @cached_property
    def layers(self) -> pd.DataFrame:
        """Every layer that can be tapped, in execution order.

        See `embedkit.networks.layers.layer_table` for its columns.
        """
        return layer_table(self._layers)

    @cached_property
    def aliases(self) -> dict[str, str]:
        """The canonical tap for every module path: the last tap inside the module."""
        paths = {path for path, _ in self._module.named_modules()}
        found = module_aliases([layer.name for layer in self._layers])
        return {path: name for path, name in found.items() if path in paths}

    @cached_property
    def _blocks(self) -> tuple[str, ...]:
        return tuple(block_taps(self._module, self._layers))

    @cached_property
    def identity_parts(self) -> dict[str, str]:
        """Digests or descriptions of architecture, weights and transform."""
        return {
            "architecture": architecture_digest(self._traced),
            "weights": weights_digest(self._module),
            "transform": describe_transform(self.transform),
        }

    @cached_property
    def identity(self) -> str:
        """SHA-256 of `identity_parts`, as hexadecimal digits."""
        return combine(self.identity_parts)

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
            layers, self._layers, network=self.name, blocks=self._blocks
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
            layers=self._layers,
            network=self.name,
            blocks=self._blocks,
        )

    def prepare(self, image: Image.Image) -> NDArray[np.float32]:
        """Return an image as the network takes it.

        Parameters
        ----------
        image : PIL image
            Of any size.

        Returns
        -------
        ndarray of float32, shape (C, H, W)
            Contiguous.

        Raises
        ------
        NetworkError
            When the transform gives anything but a floating tensor of three axes.
        """
        return as_input(self.transform(image), network=self.name)

    def taps(
        self,
        layers: LayerChoice,
        *,
        pool: Pool | Mapping[str, Pool] = "avg",
        start: str | None = None,
    ) -> TapGraph:
        """Return the network as a function from batches to pooled layers.

        Parameters
        ----------
        layers : str, sequence of str or callable
            As for `resolve`, but canonical names alone are taken as they are.
        pool : str or mapping of str to str, default "avg"
            How the value of a layer is pooled for one image: a text as
            `embedkit.networks.pools.check_pool` describes them, or several for layers
            named as for `resolve`, such as ``{"layer4": "none", "*": "avg"}``. The first
            key that fits a layer counts.
        start : str, optional
            A canonical name: `TapGraph.forward` then takes what that layer gives with
            pool ``"none"``, instead of pictures.

        Returns
        -------
        TapGraph
            Its `forward` computes nothing behind the last of the layers.

        Raises
        ------
        NetworkError
            When there is no such layer.
        InputError
            When there is no such pool, no pool for some layer or one that does not fit
            it, or when `start` is not enough for some layer.
        """
        chosen = self._chosen(layers)
        pools = self.resolve_pools(pool, [layer.name for layer in chosen])
        if start is None:
            return TapGraph(self._traced, chosen, pools=pools)
        begin = demand_start(self._measured, start, chosen, network=self.name)
        return TapGraph(self._traced, chosen, pools=pools, start=begin)

    def can_start(self, start: str, layers: LayerChoice) -> bool:
        """Tell whether layers can be computed from the unpooled value of another.

        Parameters
        ----------
        start : str
            The canonical name of a layer.
        layers : str, sequence of str or callable
            As for `taps`. `start` itself is never possible.

        Returns
        -------
        bool
            False where more of the picture is needed, or float32 cannot hold the value.

        Raises
        ------
        NetworkError
            When there is no such layer.
        """
        seen, chosen = self._measured, self._chosen(layers)
        return find_start(seen, start, chosen, network=self.name) is not None

    def _chosen(self, layers: LayerChoice) -> list[Layer]:
        return choose_layers(
            layers, self._layers, network=self.name, blocks=self._blocks
        )

    def spool(self, files: Files) -> Spooled:
        """Write the network to a file, for `load_spooled` in other processes.

        Parameters
        ----------
        files : Files
            Where. A file that is there already, with the same content, is left alone.

        Returns
        -------
        Spooled
            Its place, name and digest, a few bytes to send around.
        """
        return write_spool((self._module, self.transform, self.name), files)

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self._module.parameters())
        size = "×".join(map(str, self._probe.shape))
        return (
            f"{self.name} · {len(self._layers)} layers · {human(count)} parameters "
            f"· input {size}"
        )
