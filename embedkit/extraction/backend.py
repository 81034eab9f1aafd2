"""What executes a network for new layers: what was asked for, or the fastest one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from distributed import Client, KilledWorker

from embedkit.errors import InputError, NetworkError, SourceError, did_you_mean
from embedkit.files.files import files_at
from embedkit.images.imageset import ImageSet
from embedkit.images.source import Loaded
from embedkit.networks.backend_choice import Choice, Place
from embedkit.networks.backends import BACKENDS, Backend
from embedkit.networks.known_choice import fastest_backend
from embedkit.networks.network import Network
from embedkit.networks.pools import Pool
from embedkit.networks.spool import Spooled, load_spooled
from embedkit.networks.taps import BACKEND
from embedkit.networks.tracing import one_line
from embedkit.tasks import result_of
from embedkit.workers import active_client

AUTO = "auto"
AskedBackend: TypeAlias = Backend | Literal["auto"]

_Pools: TypeAlias = tuple[tuple[str, Pool], ...]
"""Layers, and how each is pooled."""


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
    """Return what executes a network; measured on a worker where there is a cluster.

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
    client = active_client()
    cluster = "" if client is None else client.id
    return _measured(network, images, tuple(pools.items()), batch_size, cluster)


@lru_cache(maxsize=2)
def _measured(
    network: Network,
    images: ImageSet,
    pools: _Pools,
    batch_size: int,
    cluster: str,  # noqa: ARG001 - what was measured on another says nothing here
) -> Found:
    """Measure once for what one call may ask more than once."""
    client = active_client()
    batch = _some(network, images, batch_size)
    if client is None:
        choice = _choose(network, pools, batch)
    else:
        try:
            choice = _on_a_worker(client, network, pools, batch)
        except KilledWorker as error:
            told = f"the worker that measured backends died ({one_line(error)})"
            return Found(BACKEND, f"backend {BACKEND!r}: {told}")
    return Found(choice.backend, choice.describe())


def _choose(network: Network, pools: _Pools, batch: npt.NDArray[np.float32]) -> Choice:
    layers = [layer for layer, _ in pools]
    return fastest_backend(network, layers, pool=dict(pools), batch=batch)


def _on_a_worker(
    client: Client, network: Network, pools: _Pools, batch: npt.NDArray[np.float32]
) -> Choice:
    """Measure where blocks will run: its cores and threads are not those of the client.

    The network travels by way of the cluster, since there is no store yet that both can
    reach.
    """
    with TemporaryDirectory() as folder:
        spooled = network.spool(files_at(folder))
        data = (Path(folder) / spooled.name).read_bytes()
    result_of(client.submit(Place.here, pure=False))  # a cluster may have no worker yet
    sent = client.scatter([data, batch], hash=False)  # large: not inside the task
    future = client.submit(_choose_there, spooled, *sent, pools, pure=False)
    choice: Choice = result_of(future)
    return choice


def _choose_there(
    spooled: Spooled, data: bytes, batch: npt.NDArray[np.float32], pools: _Pools
) -> Choice:
    """Run in a worker, which keeps the network loaded for its blocks."""
    with TemporaryDirectory() as folder:
        (Path(folder) / spooled.name).write_bytes(data)
        network = load_spooled(replace(spooled, url=files_at(folder).url))
    return _choose(network, pools, batch)


def _some(network: Network, images: ImageSet, size: int) -> npt.NDArray[np.float32]:
    """Return a batch of the first images, repeated where there are fewer."""
    batch = np.zeros((size, *network.input_shape), np.float32)  # B C H W
    loaded = map(images.source.load, images.table["uri"].iloc[:size])
    fitting = [
        each for each in (_prepared(network, one) for one in loaded) if each is not None
    ]
    for row in range(size if fitting else 0):
        batch[row] = fitting[row % len(fitting)]
    return batch


def _prepared(network: Network, loaded: Loaded) -> npt.NDArray[np.float32] | None:
    """Return what a run would compute; what fails here is told there."""
    if isinstance(loaded.image, SourceError):
        return None
    try:
        value = network.prepare(loaded.image)
    except NetworkError:
        return None
    return value if value.shape == network.input_shape else None
