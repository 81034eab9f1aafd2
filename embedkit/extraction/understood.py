"""What the arguments of `extract` and `plan` mean: networks loaded, layers resolved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from embedkit.config import settings
from embedkit.errors import InputError
from embedkit.extraction.asked import Asked
from embedkit.extraction.backend import check_asked
from embedkit.extraction.decoding import Decode, policy_for
from embedkit.extraction.rounding import Dtype, check_dtype
from embedkit.extraction.strategy.ways import way_of
from embedkit.images.imageset import ImageSet
from embedkit.images.open import open_images
from embedkit.networks.backends import Backend
from embedkit.networks.choice import LayerChoice
from embedkit.networks.load import load_network
from embedkit.networks.network import Network
from embedkit.networks.pools import Pool
from embedkit.planning.strategies import AskedStrategy

if TYPE_CHECKING:
    from torch import nn


def understood(  # noqa: PLR0913 - every one of them is a decision of the user
    images: ImageSet | Any,
    network: Network | str | nn.Module | Sequence[Network | str | nn.Module],
    *,
    layers: LayerChoice | Mapping[str, LayerChoice],
    pool: Pool | Mapping[str, Pool],
    dtype: Dtype,
    backend: Backend | Literal["auto"],
    decode: Decode,
    batch_size: int | None,
    strategy: AskedStrategy = "auto",
    update: bool = False,
    add_network: bool = False,
) -> list[Asked]:
    """Return what is asked of each network; the arguments are those of `extract`.

    Raises
    ------
    InputError, SourceError, NetworkError
        When an argument cannot be used.
    """
    image_set = images if isinstance(images, ImageSet) else open_images(images)
    nets = _networks(network)
    check_dtype(dtype)
    asked_backend = check_asked(backend)
    size = settings().batch_size if batch_size is None else batch_size
    if size < 1:
        message = f"batch_size is {size}: give 1 or more"
        raise InputError(message)
    policy = policy_for(decode, nets)
    looks = []
    for net in nets:
        chosen = net.resolve(_layers_of(layers, net.name))
        asked = Asked(
            images=image_set,
            network=net,
            layers=chosen,
            pools=net.resolve_pools(pool, chosen),
            batch_size=size,
            dtype=dtype,
            backend=asked_backend,
            update=update,
            add_network=add_network or len(nets) > 1,
            decode=policy,
            way=way_of(net, strategy, backend=asked_backend),
        )
        looks.append(asked)
    return looks


def _networks(given: Any) -> list[Network]:
    """Return networks of different names."""
    several = given if isinstance(given, list | tuple) else [given]
    nets = [
        each if isinstance(each, Network) else load_network(each) for each in several
    ]
    names = [net.name for net in nets]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is None and nets:
        return nets
    message = (
        f"two networks are called {twice!r}: name one of them with "
        "load_network(..., name='…')"
        if nets
        else "no network was given: give one, or several in a list"
    )
    raise InputError(message)


def _layers_of(
    layers: LayerChoice | Mapping[str, LayerChoice], name: str
) -> LayerChoice:
    """Return the layers asked of a network."""
    if not isinstance(layers, Mapping):
        return layers
    if name in layers:
        return layers[name]
    message = (
        f"layers= says nothing of network {name!r}, only of {', '.join(layers)}: add it"
    )
    raise InputError(message)
