"""How images are decoded for networks: exactly, or only as large as is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from embedkit.errors import InputError, NetworkError, SourceError, did_you_mean
from embedkit.images.decode import DECODE_POLICY
from embedkit.images.draft import decoded_by, draft_policy, enough
from embedkit.images.imageset import ImageSet
from embedkit.images.source import Source
from embedkit.networks.network import Network
from embedkit.networks.pools import Pool
from embedkit.networks.resized import resized_to
from embedkit.networks.row_errors import row_errors
from embedkit.store.schema import StoreSchema

if TYPE_CHECKING:
    from embedkit.extraction.asked import Asked

Decode: TypeAlias = Literal["exact", "fast"]
"""Whether all of a JPEG is decoded."""

_MEASURED = 8
"""Images on which the error is measured (chosen: a second with a large network)."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """What decoding JPEGs small does to some images, in words; none where it is not done.

    Parameters
    ----------
    text : str
        One line.
    layers : str
        The largest relative difference of every layer: ``layer1=1.2e-03 layer2=…``.
    """

    text: str = ""
    layers: str = ""


def policy_for(decode: Decode, networks: Sequence[Network]) -> str:
    """Return the name of the rule by which images are decoded for some networks.

    Parameters
    ----------
    decode : {"exact", "fast"}
        What was asked for.
    networks : sequence of Network
        Those that share an image: the one that needs the most pixels counts.

    Returns
    -------
    str
        See `embedkit.images.draft`.

    Raises
    ------
    InputError
        When `decode` is neither, or the size cannot be told from a transform.
    """
    if decode not in get_args(Decode):
        nearest = did_you_mean(str(decode), get_args(Decode))
        raise InputError(f"images cannot be decoded {decode!r}. {nearest}")
    if decode == "exact":
        return DECODE_POLICY
    return draft_policy(max(_least_side(each) for each in networks))


def _least_side(network: Network) -> int:
    found = resized_to(network.transform)
    if found is not None:
        return found
    called = getattr(network.transform, "__name__", type(network.transform).__name__)
    message = (
        f"decode='fast' was asked for, and to what size the transform {called} of network "
        f"{network.name} resizes cannot be told: use decode='exact', or a transform that "
        "begins with torchvision's Resize"
    )
    raise InputError(message)


def as_stored(schema: StoreSchema, looks: Sequence[Asked]) -> list[Asked]:
    """Return what is asked, by the rule that a store has for each network already.

    The rule goes by the network that needs the most pixels, and that one may not be
    asked for any more, or not have been then.

    Parameters
    ----------
    schema : StoreSchema
        Of the store.
    looks : sequence of Asked
        What is asked of each network.

    Returns
    -------
    list of Asked
        With the stored rule where both it and the one asked for decode JPEGs small, and
        it leaves enough for the network.
    """
    return [_as_stored(schema, asked) for asked in looks]


def _as_stored(schema: StoreSchema, asked: Asked) -> Asked:
    if enough(asked.decode) is None:
        return asked
    parts, least = asked.network.identity_parts.items(), _least_side(asked.network)
    for one in schema.passes:
        mine = all(one.parts[name] == text for name, text in parts)
        if mine and (enough(one.parts["decode"]) or 0) >= least:
            return replace(asked, decode=one.parts["decode"])
    return asked


def deviation(
    network: Network, images: ImageSet, policy: str, *, pools: Mapping[str, Pool]
) -> Deviation:
    """Measure what decoding JPEGs small does to the first images.

    Parameters
    ----------
    network : Network
        The network.
    images : ImageSet
        Up to eight of its first ones are decoded both ways.
    policy : str
        The rule.
    pools : mapping of str to str
        The layers to compute, and how each is pooled.

    Returns
    -------
    Deviation
        Empty where everything is decoded.
    """
    if policy == DECODE_POLICY:
        return Deviation()
    return _measured(network, images, policy, tuple(pools.items()))


@lru_cache(maxsize=2)
def _measured(
    network: Network, images: ImageSet, policy: str, pools: tuple[tuple[str, Pool], ...]
) -> Deviation:
    """Measure once for what one call may ask more than once."""
    uris = images.table["uri"].iloc[:_MEASURED].tolist()
    small = decoded_by(images.source, policy)
    pairs = [_pair(network, images.source, small, uri) for uri in uris]
    good = [pair for pair in pairs if pair is not None]
    if not good:
        return Deviation(
            f"{policy}: none of the first {len(uris)} images can be measured"
        )
    exact, fast = (np.stack(each) for each in zip(*good, strict=True))  # B C H W
    return _told(policy, exact, fast, _by_layer(network, exact, fast, dict(pools)))


def _pair(
    network: Network, whole: Source, small: Source, uri: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None:
    """Return an image as a network takes it, decoded both ways; None if it fails."""
    exact, fast = whole.load(uri).image, small.load(uri).image
    if isinstance(exact, SourceError) or isinstance(fast, SourceError):
        return None
    try:
        pair = network.prepare(exact), network.prepare(fast)
    except NetworkError:  # the run itself tells of it, for the images behind it too
        return None
    return pair if all(each.shape == network.input_shape for each in pair) else None


def _by_layer(
    network: Network,
    exact: npt.NDArray[np.float32],
    fast: npt.NDArray[np.float32],
    pools: dict[str, Pool],
) -> dict[str, float]:
    """Return the largest difference of any row of a layer, relative to the row."""
    taps = network.taps(list(pools), pool=pools)
    before, now = taps.forward(exact), taps.forward(fast)
    return {
        tap: float(row_errors(now[tap], before[tap]).max(initial=0.0))
        for tap in taps.layers
    }


def _told(
    policy: str,
    exact: npt.NDArray[np.float32],
    fast: npt.NDArray[np.float32],
    layers: Mapping[str, float],
) -> Deviation:
    gaps = np.abs(exact.astype(np.float64) - fast)
    worst = max(layers, key=lambda tap: layers[tap])
    text = (
        f"{policy}, against all pixels on {len(exact)} images: input of the network off "
        f"by {gaps.max():.2g} at most, {gaps.mean():.2g} on average; layers by "
        f"{layers[worst]:.1e} of a row's largest number at most ({worst})"
    )
    if not gaps.any():
        text = f"{policy}: changes nothing in the first {len(exact)} images"
    return Deviation(text, " ".join(f"{tap}={off:.1e}" for tap, off in layers.items()))
