"""What a store was made with, found again: its networks and its images."""

from __future__ import annotations

from typing import Any

from embedkit.errors import InputError
from embedkit.images.decode import DECODE_POLICY
from embedkit.images.draft import is_known
from embedkit.images.imageset import ImageSet
from embedkit.images.restore import restored
from embedkit.images.source import Source
from embedkit.networks.load import load_network
from embedkit.networks.network import Network
from embedkit.store import arrays
from embedkit.store.identity import check_identity
from embedkit.store.schema import Pass
from embedkit.store.store import Store


def source_of(store: Store, images: ImageSet | None) -> Source:
    """Return what reads the images of a store.

    Parameters
    ----------
    store : Store
        The store.
    images : ImageSet, optional
        Its images, where it cannot know where they are now.

    Raises
    ------
    InputError
        When the pixels were in memory and are not given.
    """
    if images is not None:
        return images.source
    uris = [uri for uri in arrays.read_text(store.files, "uri") if uri]
    source = restored(uris)
    if source is None:
        message = (
            f"{store.url} was made from an array or a dataset, whose pixels it does not "
            "hold: give them again with images=open_images(…)"
        )
        raise InputError(message)
    return source


def network_of(
    store: Store, name: str, given: Any = None, *, strict: bool = False
) -> Network:
    """Return a network of a store: the one given if it is that one, or loaded anew.

    Parameters
    ----------
    store : Store
        The store.
    name : str
        What the store calls the network.
    given : Network, str or nn.Module, optional
        A network of the store, for all that ask.
    strict : bool, default False
        Whether what is given has to be this network, also where the store holds others.

    Raises
    ------
    InputError
        When it was a module and is not given.
    IdentityMismatch
        When it is not the one that the store was made with.
    """
    one = next(each for each in store.schema.passes if each.network == name)
    if given is not None:
        net = given if isinstance(given, Network) else load_network(given)
        if strict or len(store.schema.networks) == 1 or _is(net, one):
            _check_network(store, one, net)
            return net
    asked = one.about.get("asked")
    if not asked:
        message = (
            f"network {name!r} of {store.url} was a module of yours: give it again with "
            "network=load_network(module, transform=…)"
        )
        raise InputError(message)
    net = load_network(asked, weights=one.about["weights"])
    _check_network(store, one, net)
    return net


def _parts(net: Network, one: Pass) -> dict[str, str]:
    """Return what a pass would be made from now, decoded as it was if that is known."""
    stored = one.parts["decode"]
    return {
        **net.identity_parts,
        "decode": stored if is_known(stored) else DECODE_POLICY,
    }


def _is(net: Network, one: Pass) -> bool:
    return all(one.parts[name] == text for name, text in _parts(net, one).items())


def _check_network(store: Store, one: Pass, net: Network) -> None:
    parts = _parts(net, one)
    stored = {name: one.parts[name] for name in parts}
    remedy = "or give the network that it was made with"
    check_identity(stored, parts, where=store.url, remedy=remedy)
