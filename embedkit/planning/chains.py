"""How the layers of a network are computed from map to map, in the planner's terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from embedkit.planning.grid import choose_block
from embedkit.planning.measurement import FLOAT32, LayerSize, NetworkMeasurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One layer, or one raw map, of a network that is computed from map to map.

    Parameters
    ----------
    layer : LayerSize
        What is written, as it is stored.
    is_map : bool
        Whether it is a raw map that was not asked for.
    start : LayerSize, optional
        What it is computed from, as it is stored; None for the images.
    maps : tuple of LayerSize
        The raw maps that lie there meanwhile, its own included.
    """

    layer: LayerSize
    is_map: bool = False
    start: LayerSize | None = None
    maps: tuple[LayerSize, ...] = ()


Chain: TypeAlias = Callable[[NetworkMeasurement], Sequence[Link]]
"""How the layers of a network are computed from map to map."""


def map_block(map_bytes: int, *, n_images: int, batch: int, block: int) -> int:
    """Return how many images of raw maps one task takes.

    Parameters
    ----------
    map_bytes : int
        Of one image of the network's largest map.
    n_images : int
        Images.
    batch : int
        Images of a forward pass: no fewer, because the network has such a batch of maps
        in memory anyway, and rows then stand where they stand in the blocks of the store.
    block : int
        Images of the store's own tasks, at least `batch`: no more, because a plan has
        made them small enough for the memory.
    """
    return min(max(choose_block(n_images, map_bytes), batch), max(block, batch))


def in_a_row(network: NetworkMeasurement) -> tuple[Link, ...]:
    """Return the links of a network whose every layer follows from the one before."""
    layers = sorted(network.layers, key=lambda each: each.flops)
    links: list[Link] = []
    start: LayerSize | None = None
    for at, layer in enumerate(layers):
        lying = () if start is None or start in layers else (start,)
        if at == len(layers) - 1 or _whole(layer):
            links.append(Link(layer=layer, start=start, maps=lying))
            start = layer
            continue
        own = raw(layer)
        links.append(Link(layer=own, is_map=True, start=start, maps=(*lying, own)))
        links.append(Link(layer=layer, start=own, maps=(own,)))
        start = own
    return tuple(links)


def raw(layer: LayerSize) -> LayerSize:
    """Return a layer as its raw map is stored: unpooled, in float32."""
    return replace(layer, shape=(layer.raw_entries,), itemsize=FLOAT32)


def _whole(layer: LayerSize) -> bool:
    return (layer.entries, layer.itemsize) == (layer.raw_entries, FLOAT32)
