"""What a plan has to know of strategies: how layers follow from maps, and what is begun."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from embedkit.extraction.asked import Asked
from embedkit.extraction.measure.layer_sizes import prefixes
from embedkit.extraction.strategy.chain import Taps, chain
from embedkit.extraction.strategy.ways import obstacle
from embedkit.networks.network import Network
from embedkit.planning.chains import Link
from embedkit.planning.measurement import FLOAT32, LayerSize, NetworkMeasurement
from embedkit.planning.strategies import Strategy
from embedkit.store.schema import Pass

_Key: TypeAlias = tuple[str, tuple[LayerSize, ...]]


class Chains:
    """Tells how layers of networks are computed from map to map: a `Chain` of plans.

    Parameters
    ----------
    looks : sequence of Asked
        What is asked of each network, as it was measured.
    """

    def __init__(self, looks: Sequence[Asked]) -> None:
        self._networks = {each.network.name: each.network for each in looks}
        self._prefixes = {
            asked.network.name: prefix
            for asked, prefix in zip(looks, prefixes(looks), strict=True)
        }
        self._known: dict[_Key, tuple[Link, ...]] = {}

    def __call__(self, measured: NetworkMeasurement) -> tuple[Link, ...]:
        """Return the links of a network, which is solved again and again."""
        key = measured.name, measured.layers
        if key not in self._known:
            prefix = self._prefixes[measured.name]
            sizes = {each.name.removeprefix(prefix): each for each in measured.layers}
            self._known[key] = _links(self._networks[measured.name], sizes)
        return self._known[key]


def taps_of(network: Network) -> Taps:
    """Return the taps of a network, and which follow from which."""
    return Taps(
        order=tuple(network.layers.index),
        follows=lambda start, tap: network.can_start(start, [tap]),
    )


def _links(network: Network, sizes: Mapping[str, LayerSize]) -> tuple[Link, ...]:
    """Return what `embedkit.extraction.strategy.chain` says, in bytes and operations."""
    taps = taps_of(network)
    layers = sorted(sizes, key=taps.order.index)
    shapes = network.layers["shape"]
    whole = {
        tap
        for tap, size in sizes.items()
        if (size.shape, size.itemsize) == (shapes[tap], FLOAT32)
    }
    return tuple(
        Link(
            layer=_map(network, step.tap) if step.is_map else sizes[step.tap],
            is_map=step.is_map,
            start=None if step.start is None else _map(network, step.start),
            maps=tuple(_map(network, each) for each in sorted(step.maps)),
        )
        for step in chain(taps, layers, whole=whole)
    )


def _map(network: Network, tap: str) -> LayerSize:
    """Return the raw map of a tap as it is stored."""
    table = network.layers
    entries = int(table["nbytes_full"][tap]) // FLOAT32
    return LayerSize(
        name=tap,
        shape=(entries,),
        itemsize=FLOAT32,
        flops=int(table["flops"][tap]),
        raw_entries=entries,
        channels=int(table["features"][tap]),
    )


def impossible(looks: Sequence[Asked], begun: Sequence[Pass]) -> dict[Strategy, str]:
    """Return the strategies that cannot be taken, and why.

    Parameters
    ----------
    looks : sequence of Asked
        What is asked of each network.
    begun : sequence of Pass
        Those of a store that are to be finished.
    """
    found: dict[Strategy, str] = {}
    if any(len(one.layers) > 1 for one in begun):
        why = "the store was begun with several layers in one pass, and goes on so"
        return {"staged": why, "lazy": why}
    for asked in looks:
        why = obstacle(asked.network, asked.backend)
        if why:
            found["staged"] = why
    return found


def as_begun(begun: Sequence[Pass]) -> Strategy | None:
    """Return the strategy that a store's unfinished layers were begun with, if one has."""
    if any(len(one.layers) > 1 for one in begun):
        return "fused"
    ways: dict[str, Strategy] = {"staged": "staged", "lazy": "lazy"}
    found = (ways.get(one.about.get("strategy", "")) for one in begun)
    return next((way for way in found if way is not None), None)
