"""A network as embedkit sees it: layers to name, taps to read, an identity to compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import ClassVar, TypeAlias, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from embedkit.errors import InputError, NetworkError, did_you_mean
from embedkit.files.files import Files
from embedkit.networks.backends import (
    Backend,
    channels_last,
    check_backend,
    make_taps,
    takes_channels_last,
)
from embedkit.networks.identity import (
    architecture_digest,
    combine,
    describe_transform,
)
from embedkit.networks.layers import (
    Layer,
    choose_layers,
    layer_table,
    module_aliases,
    resolve_layers,
)
from embedkit.networks.measure import Measured
from embedkit.networks.pooling import Pool
from embedkit.networks.spool_file import Spooled, write_spool
from embedkit.networks.starts import demand_start, find_start
from embedkit.networks.taps import BACKEND, TapGraph
from embedkit.networks.tracing import Traced, measure, trace
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

    @cached_property
    def _channels_last(self) -> Traced:
        return channels_last(self._traced)

    @cached_property
    def _measured_channels_last(self) -> Measured:
        return measure(self._channels_last, self._probe, name=self.name)

    @property
    def _layers(self) -> tuple[Layer, ...]:
        return self._measured.layers

    @cached_property
    def layers(self) -> pd.DataFrame:
        """Every layer that can be tapped, in execution order.

        Indexed by ``layer``. Columns: ``type`` (of the module or function), ``shape``
        (of one image's value), ``features`` (after average pooling), ``nbytes`` (of
        these as float32) and ``flops`` (floating point operations of one image's forward
        pass up to and with this layer; multiply and add are two).
        """
        return layer_table(self._layers)

    @cached_property
    def aliases(self) -> dict[str, str]:
        """The canonical tap for every module path: the last tap inside the module."""
        paths = {path for path, _ in self._module.named_modules()}
        found = module_aliases([layer.name for layer in self._layers])
        return {path: name for path, name in found.items() if path in paths}

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

    def resolve(self, layers: str | Sequence[str] = "stages") -> tuple[str, ...]:
        """Return the canonical names of the layers asked for.

        Parameters
        ----------
        layers : str or sequence of str, default "stages"
            Taps (``"layer1.0.relu_1"``), modules (``"layer4"``: its last tap), patterns
            (``"*.add"``), or presets: ``"all"``, ``"last"``, and ``"stages"`` for one
            tap of each spatial resolution and the last vector (defined in
            `embedkit.networks.layers.stages`). A sequence may mix them.

        Returns
        -------
        tuple of str
            In execution order, without repetition.

        Raises
        ------
        NetworkError
            When there is no such layer.
        """
        return resolve_layers(layers, self._layers, network=self.name)

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
        tensor: object = self.transform(image)
        if not isinstance(tensor, Tensor):
            found = f"a {type(tensor).__name__}"
        elif tensor.ndim != 3 or not tensor.is_floating_point():
            found = f"a tensor {tuple(tensor.shape)} of {tensor.dtype}"
        else:
            wide = tensor.detach().cpu().float()
            return np.array(wide.numpy(), order="C")
        message = (
            f"the transform of network {self.name} gave {found}: it has to give a "
            "floating tensor of shape (channels, rows, columns)"
        )
        raise NetworkError(message)

    def taps(
        self,
        layers: str | Sequence[str],
        *,
        pool: Pool = "avg",
        start: str | None = None,
        backend: Backend = "torch",
    ) -> TapGraph:
        """Return the network as a function from batches to pooled layers.

        Parameters
        ----------
        layers : str or sequence of str
            As for `resolve`, but canonical names alone are taken as they are.
        pool : {"avg", "max", "flatten", "none"}, default "avg"
            How the value of a layer is pooled for one image.
        start : str, optional
            A canonical name: `TapGraph.forward` then takes what that layer gives with
            pool ``"none"``, instead of pictures.
        backend : str, default "torch"
            What executes the graph, one of `embedkit.networks.backends.BACKENDS`:
            ``"torch"`` is the reference, the others are faster in some places and right
            within their `tolerance` (see `embedkit.networks.choice.choose_backend`).

        Returns
        -------
        TapGraph
            Its `forward` computes nothing behind the last of the layers.

        Raises
        ------
        NetworkError
            When there is no such layer.
        InputError
            When there is no such pool or backend, when there is no GPU for a backend,
            or when `start` is not enough for some layer.
        MissingDependencyError
            When a backend is not installed.
        """
        if pool not in get_args(Pool):
            message = f"there is no pool {pool!r}. {did_you_mean(pool, get_args(Pool))}"
            raise InputError(message)
        chosen = self._chosen(layers)
        last = takes_channels_last(check_backend(backend))
        begin = None
        if start is not None:
            seen = self._measured_channels_last if last else self._measured
            begin = demand_start(seen, start, chosen, network=self.name)
        return make_taps(
            backend,
            self._channels_last if last else self._traced,
            layers=chosen,
            pool=pool,
            start=begin,
            identity=lambda: self.identity,
        )

    def can_start(self, start: str, layers: str | Sequence[str]) -> bool:
        """Tell whether layers can be computed from the unpooled value of another.

        Parameters
        ----------
        start : str
            The canonical name of a layer.
        layers : str or sequence of str
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

    def _chosen(self, layers: str | Sequence[str]) -> list[Layer]:
        return choose_layers(layers, self._layers, network=self.name)

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
            f"{self.name} · {len(self._layers)} layers · {_human(count)} parameters "
            f"· input {size}"
        )


def _human(count: int) -> str:
    for size, unit in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)
