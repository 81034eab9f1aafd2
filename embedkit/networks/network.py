"""A network as embedkit sees it: layers to name, taps to read, an identity to compare."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from embedkit.errors import NetworkError
from embedkit.files.files import Files
from embedkit.networks.backends import (
    Backend,
    check_backend,
    make_taps,
    takes_channels_last,
)
from embedkit.networks.choice import LayerChoice
from embedkit.networks.describe import described
from embedkit.networks.graph_program import GraphProgram
from embedkit.networks.hooks import HookProgram
from embedkit.networks.identity import combine, describe_transform
from embedkit.networks.layered import Layered
from embedkit.networks.measure import Measured
from embedkit.networks.pools import Pool
from embedkit.networks.prepare import Transform, prepared
from embedkit.networks.program import Program
from embedkit.networks.spool_file import Spooled, write_spool
from embedkit.networks.starts import demand_start, find_start
from embedkit.networks.taps import BACKEND, TapGraph
from embedkit.networks.tracing import ONE_AT_A_TIME, one_line, trace
from embedkit.networks.trust import Seen, see
from embedkit.networks.weights import weights_digest

_PROBE_SIZE = (512, 384)  # a common photo's shape; its content is of no account
_PROBE_GREY = (128, 128, 128)


class Network(Layered):
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

    Notes
    -----
    Where PyTorch can trace the module, every call of a module or function is a layer.
    Where it cannot, or where the graph does something else, as `traced` and the ``repr`` tell, every call of a module is one, and
    is called ``path#call`` (see `embedkit.networks.hooks`); nothing can then be computed
    from a stored layer.
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
        self._given = _program_of(self._module, name)

    @property
    def module(self) -> nn.Module:
        """The network itself."""
        return self._module

    @property
    def traced(self) -> bool:
        """Whether PyTorch can trace the network, so that functions are layers too.

        False also where the traced graph does not give, bit by bit, what the network
        gives for a picture of noise: a network can mislead the tracer.
        """
        return self._program.reason is None

    @cached_property
    def _probe(self) -> NDArray[np.float32]:
        return self.prepare(Image.new("RGB", _PROBE_SIZE, _PROBE_GREY))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """What the transform gives and the network takes: (channels, rows, columns)."""
        return self._probe.shape

    @cached_property
    def _seen(self) -> Seen:
        return see(
            self._given,
            self._module,
            name=self.name,
            probe=self._probe,
            sample=self.prepare(_noise()),
        )

    @property
    def _program(self) -> Program:
        return self._seen.program

    @property
    def _measured(self) -> Measured:
        return self._seen.measured

    @cached_property
    def _channels_last(self) -> Program:
        return self._program.channels_last()

    @cached_property
    def _measured_channels_last(self) -> Measured:
        return self._channels_last.measure(self._probe, name=self.name)

    @cached_property
    def identity_parts(self) -> dict[str, str]:
        """Digests or descriptions of architecture, weights and transform."""
        return {
            "architecture": self._program.architecture(),
            "weights": weights_digest(self._module),
            "transform": describe_transform(self.transform),
        }

    @cached_property
    def identity(self) -> str:
        """SHA-256 of `identity_parts`, as hexadecimal digits."""
        return combine(self.identity_parts)

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
            When the transform fails or gives anything but a floating tensor of three axes.
        """
        return prepared(self.transform, image, network=self.name)

    def taps(
        self,
        layers: LayerChoice,
        *,
        pool: Pool | Mapping[str, Pool] = "avg",
        start: str | None = None,
        backend: Backend = "torch",
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
        backend : str, default "torch"
            What executes the graph, one of `embedkit.networks.backends.BACKENDS`:
            ``"torch"`` is the reference, the others are faster in some places and right
            within their `tolerance` (see `embedkit.networks.backend_choice.choose_backend`).

        Returns
        -------
        TapGraph
            Its `forward` computes nothing behind the last of the layers.

        Raises
        ------
        NetworkError
            When there is no such layer.
        InputError
            When there is no such pool or backend, no pool for some layer or one that
            does not fit it, no GPU for a backend, or when `start` is not enough for some
            layer.
        MissingDependencyError
            When a backend is not installed.
        """
        chosen = self._chosen(layers)
        last = takes_channels_last(check_backend(backend))
        seen = self._measured_channels_last if last and start else self._measured
        return make_taps(
            backend,
            self._channels_last if last else self._program,
            layers=chosen,
            pools=self.resolve_pools(pool, [layer.name for layer in chosen]),
            start=None
            if start is None
            else demand_start(seen, start, chosen, network=self.name),
            identity=lambda: self.identity,
        )

    def can_start(self, start: str, layers: LayerChoice) -> bool:
        """Tell whether layers can be computed from the unpooled value of another.

        Parameters
        ----------
        start : str
            The canonical name of a layer.
        layers : str, sequence of str or callable
            As for `taps`. `start` itself is possible: it is pooled as it is given.

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
        with ONE_AT_A_TIME:  # a running network may have hooks for the moment
            return write_spool((self._module, self.transform, self.name), files)

    def __repr__(self) -> str:
        return described(
            self.name,
            layers=len(self._measured.layers),
            parameters=sum(each.numel() for each in self._module.parameters()),
            input_shape=self.input_shape,
            untraced=self._program.reason,
        )


def _noise() -> Image.Image:
    """Return a picture that no two ways through a network treat alike."""
    columns, rows = _PROBE_SIZE
    levels = np.random.default_rng(0).integers(0, 256, (rows, columns, 3), np.uint8)
    return Image.fromarray(levels)


def _program_of(module: nn.Module, name: str) -> Program:
    try:
        return GraphProgram(traced=trace(module, name=name))
    except NetworkError as error:
        return HookProgram(module=module, reason=one_line(error.__cause__ or error))
