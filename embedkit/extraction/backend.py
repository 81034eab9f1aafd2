"""What executes a network for new layers: what was asked for, or the fastest one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from embedkit.errors import InputError, SourceError, did_you_mean
from embedkit.images.imageset import ImageSet
from embedkit.networks.backend_choice import choose_backend
from embedkit.networks.backends import BACKENDS, Backend
from embedkit.networks.network import Network
from embedkit.networks.pools import Pool

AUTO = "auto"
AskedBackend: TypeAlias = Backend | Literal["auto"]


@dataclass(frozen=True, slots=True)
class Found:
    """A backend, and in words how it was chosen; no words where it was asked for."""

    backend: Backend
    measured: str = ""


def check_asked(backend: str) -> AskedBackend:
    """Return what was asked for, if there is such a backend.

    Raises
    ------
    InputError
        With the nearest one.
    """
    if backend == AUTO or backend in BACKENDS:
        return cast(AskedBackend, backend)
    nearest = did_you_mean(str(backend), [*BACKENDS, AUTO])
    raise InputError(f"there is no backend {backend!r}. {nearest}")


def backend_for(
    network: Network,
    images: ImageSet,
    backend: AskedBackend,
    *,
    pools: Mapping[str, Pool],
    batch_size: int,
) -> Found:
    """Return what executes a network.

    Parameters
    ----------
    network : Network
        The network.
    images : ImageSet
        Its first ones are what backends are tried on.
    backend : str
        What was asked for.
    pools : mapping of str to str
        The layers to compute, and how each is pooled.
    batch_size : int
        Images per forward pass.
    """
    if backend != "auto":
        return Found(backend)
    return _measured(network, images, tuple(pools.items()), batch_size)


@lru_cache(maxsize=2)
def _measured(
    network: Network,
    images: ImageSet,
    pools: tuple[tuple[str, Pool], ...],
    batch_size: int,
) -> Found:
    """Measure once for what one call may ask more than once."""
    layers = [layer for layer, _ in pools]
    batch = _some(network, images, batch_size)
    choice = choose_backend(network, layers, pool=dict(pools), batch=batch)
    return Found(choice.backend, choice.describe())


def _some(network: Network, images: ImageSet, size: int) -> npt.NDArray[np.float32]:
    """Return a batch of the first images, repeated where there are fewer."""
    batch = np.zeros((size, *network.input_shape), np.float32)  # B C H W
    loaded = (images.source.load(uri).image for uri in images.table["uri"].iloc[:size])
    good = [each for each in loaded if not isinstance(each, SourceError)]
    prepared = [network.prepare(each) for each in good]
    fitting = [each for each in prepared if each.shape == network.input_shape]
    for row in range(size if fitting else 0):
        batch[row] = fitting[row % len(fitting)]
    return batch
