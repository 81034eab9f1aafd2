"""Deeper layers from a stored map of an earlier one, where that is right and cheaper."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from embedkit.errors import SourceError
from embedkit.images.source import Source
from embedkit.networks.network import Network
from embedkit.networks.taps import BACKEND
from embedkit.store.arrays import read, read_text
from embedkit.store.blocks import activation
from embedkit.store.schema import LayerSpec, Pass
from embedkit.store.store import Store

_T = TypeVar("_T")

_REPEATS = 2
"""Times that either way is tried; the faster one counts, since the first one warms up."""


def cheaper_start(
    store: Store, network: Network, source: Source, one: Pass
) -> str | None:
    """Return the stored layer to compute a pass from, None for the images themselves.

    Parameters
    ----------
    store : Store
        The store.
    network : Network
        Of the pass.
    source : Source
        Of its images.
    one : Pass
        What is to be computed.

    Returns
    -------
    str or None
        The store's name of the deepest complete layer, stored as it is (pool "none"),
        from which every layer of the pass follows; but only if one batch of the store's
        own images gave the same bits that way, in less time.
    """
    # Only the reference gives a map that was stored the bits it had on the way.
    spec = _deepest(store, network, one) if one.backend == BACKEND else None
    if spec is None:
        return None
    rows = slice(0, min(one.batch_size, store.schema.n_images))
    uris = read_text(store.files, "uri", rows=rows)
    images = _prepared(network, source, uris)
    maps = read(store.files, activation(spec), rows=rows)
    good = np.array([each is not None for each in images])
    if not good.any() or not np.isfinite(maps[good]).all():
        return None
    taps = [each.tap for each in one.layers]
    whole = network.taps(taps, pool=one.pools)
    tail = network.taps(taps, pool=one.pools, start=spec.tap)
    shape = network.input_shape

    def from_images() -> dict[str, npt.NDArray[np.float32]]:
        return whole.forward(
            _stacked(_prepared(network, source, uris), shape, one.batch_size)
        )

    def from_maps() -> dict[str, npt.NDArray[np.float32]]:
        found = read(store.files, activation(spec), rows=rows)
        return tail.forward(_stacked(list(found), spec.shape, one.batch_size))

    right, seconds = _timed(from_images)
    short, fewer = _timed(from_maps)
    count = len(good)
    same = all(
        np.array_equal(short[tap][:count][good], right[tap][:count][good])
        for tap in taps
    )
    return spec.name if same and fewer < seconds else None


def _deepest(store: Store, network: Network, one: Pass) -> LayerSpec | None:
    taps = [spec.tap for spec in one.layers]
    order = list(network.layers.index)
    usable = [
        spec
        for other in store.schema.passes
        if other.network == one.network and other != one
        for spec in other.layers
        if (spec.pool, spec.dtype) == ("none", "float32")  # every bit of it
        and network.can_start(spec.tap, taps)
        and len(store.commits(other)) == len(store.schema.grid(other))
    ]
    return max(usable, key=lambda spec: order.index(spec.tap), default=None)


def _prepared(
    network: Network, source: Source, uris: Sequence[str]
) -> list[npt.NDArray[np.float32] | None]:
    """Return images as the network takes them; None if unreadable."""
    loaded = [source.load(uri).image if uri else None for uri in uris]
    return [
        None if each is None or isinstance(each, SourceError) else network.prepare(each)
        for each in loaded
    ]


def _stacked(
    values: list[npt.NDArray[np.float32] | None], shape: tuple[int, ...], size: int
) -> npt.NDArray[np.float32]:
    """Return a full batch, zeros where there is no value."""
    batch = np.zeros((size, *shape), np.float32)
    for row, value in enumerate(values):
        if value is not None and np.isfinite(value).all():
            batch[row] = value
    return batch


def _timed(work: Callable[[], _T]) -> tuple[_T, float]:
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - began)
    return result, min(seconds)
