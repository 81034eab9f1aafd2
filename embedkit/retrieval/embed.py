"""Images as a store would hold them: its network, layer and pool, to the same type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedkit.errors import InputError, MissingDependencyError, NetworkError
from embedkit.extraction.origins import network_of
from embedkit.extraction.rounding import rounded
from embedkit.networks.backends import check_backend
from embedkit.networks.network import Network
from embedkit.networks.taps import BACKEND, TapGraph
from embedkit.store.schema import LayerSpec, Pass
from embedkit.store.store import Store, open_store

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True, eq=False)
class Embedder:
    """One layer of a store, as a function from images to rows.

    Attributes
    ----------
    spec : LayerSpec
        The layer.
    one : Pass
        The pass that wrote it.
    network : Network
        Prepares images.
    taps : TapGraph
        Computes that layer alone.
    """

    spec: LayerSpec
    one: Pass
    network: Network
    taps: TapGraph

    def rows(
        self, images: Sequence[Image.Image], *, names: Sequence[str]
    ) -> npt.NDArray[Any]:
        """Compute the layer of some images.

        Parameters
        ----------
        images : sequence of PIL images, n of them
            Mode RGB.
        names : sequence of str
            What they are called, for messages.

        Returns
        -------
        (n, ...) array of the layer's dtype
            Within the store's tolerance of what it would hold, not the same bits:
            libraries choose their kernels by the size of a batch, and one image would
            cost as much as a whole batch of the store's size.

        Raises
        ------
        NetworkError
            When the transform fails, or a value is beyond the layer's dtype.
        """
        parts = [np.empty((0, *self.spec.shape), np.float32)]
        for start in range(0, len(images), self.one.batch_size):
            some = images[start : start + self.one.batch_size]
            batch = np.empty((len(some), *self.network.input_shape), np.float32)  # BCHW
            for place, image in enumerate(some):
                batch[place] = self._prepared(image, names[start + place])
            parts.append(self.taps.forward(batch)[self.spec.tap])
        values = np.concatenate(parts)
        spec = self.spec
        return rounded(values, spec.dtype, layer=spec.name, ids=names)[0]

    def _prepared(self, image: Image.Image, name: str) -> npt.NDArray[np.float32]:
        value = self.network.prepare(image)
        if value.shape != self.network.input_shape:
            message = (
                f"the transform of {self.network.name} gave shape {value.shape} for "
                f"{name!r} and {self.network.input_shape} before: make it resize to one "
                "size"
            )
            raise NetworkError(message)
        return value


def embedder_of(store: Store, layer: str, *, network: Any = None) -> Embedder:
    """Return what computes a layer of a store for other images.

    Parameters
    ----------
    store : Store
        The store.
    layer : str
        The store's name of the layer.
    network : Network, str or nn.Module, optional
        The network that it was made with; by default it is loaded again by the name that
        the store remembers, once per process.

    Raises
    ------
    InputError
        When the network was a module and is not given.
    IdentityMismatch
        When it is not the one that the store was made with.
    """
    one = store.schema.pass_of(layer)
    if network is None:
        return _restored(store.url, layer, one.identity)
    return _made(store, layer, network_of(store, one.network, network, strict=True))


@lru_cache(maxsize=2)
def _restored(url: str, layer: str, identity: str) -> Embedder:  # noqa: ARG001 - part of the key
    """Load the network that a store names: people search more than once."""
    store = open_store(url)
    name = store.schema.pass_of(layer).network
    return _made(store, layer, network_of(store, name))


def _made(store: Store, layer: str, network: Network) -> Embedder:
    one = store.schema.pass_of(layer)
    spec = next(each for each in one.layers if each.name == layer)
    return Embedder(spec, one, network, _taps(network, spec, one.backend))


def _taps(network: Network, spec: LayerSpec, backend: str) -> TapGraph:
    """Return the store's backend, or the reference where this machine lacks it."""
    try:
        return network.taps([spec.tap], pool=spec.pool, backend=check_backend(backend))
    except (MissingDependencyError, InputError):
        if backend == BACKEND:
            raise
        return network.taps([spec.tap], pool=spec.pool)
