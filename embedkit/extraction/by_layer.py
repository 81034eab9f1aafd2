"""Layers one after the other: each from the images, or from the raw map before it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from embedkit.extraction import chain
from embedkit.extraction.maps import Maps, map_block
from embedkit.extraction.run import Progress, fill, spool_of
from embedkit.extraction.selection import Origin, Selection, SelectionIncomplete
from embedkit.extraction.ways import Way
from embedkit.images.imageset import ImageSet
from embedkit.networks.network import Network
from embedkit.networks.taps import BACKEND
from embedkit.planning.strategies import Strategy
from embedkit.store.lock import Lock
from embedkit.store.schema import LayerSpec, Pass
from embedkit.store.store import Store

_Follow = Callable[[Progress], None]


def fill_by_ways(
    store: Store,
    networks: Mapping[str, Network],
    images: ImageSet,
    ways: Mapping[str, Way],
    *,
    lock: Lock,
    on_progress: _Follow | None = None,
) -> Store:
    """Compute the blocks that a store lacks of some networks, each network its way.

    Parameters
    ----------
    store : Store
        Locked, and in line with what is asked.
    networks : mapping of str to Network
        By what the store calls them.
    images : ImageSet
        The store's images, as they are now.
    ways : mapping of str to Way
        Of every network. Passes that were begun otherwise stay so, unless it was asked
        for by name; one that has several layers is always computed as one.
    lock : Lock
        Of the store.
    on_progress : callable, optional
        See `extract`.

    Returns
    -------
    Store
        The same.

    Raises
    ------
    IncompleteStore
        When blocks had to be given up. All layers have been tried then.
    """
    run = _Run(
        store=store,
        networks=networks,
        images=images,
        lock=lock,
        follow=_Follower(on_progress),
    )
    lacking = [one for one in store.schema.passes if one.network in networks]
    lacking = [one for one in lacking if run.blocks(one)]
    kinds = {one.key: _strategy(one, ways[one.network]) for one in lacking}
    if set(kinds.values()) - {"fused"}:
        fused = [one for one in lacking if kinds[one.key] == "fused"]
        steps = [] if not fused else [[fused]]
        run.together([one for one in lacking if kinds[one.key] == "fused"])
        for one in (one for one in lacking if kinds[one.key] == "lazy"):
            run.layer(one, None)
        for chained in _chains([o for o in lacking if kinds[o.key] == "staged"]):
            run.staged(chained)
    # What is left is what was given up, and the end of the store.
    return fill(store, networks, images.source, lock=lock, on_progress=on_progress)
