"""The layers of a call by their sizes, before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedkit.extraction.asked import Asked
from embedkit.networks.backends import Backend
from embedkit.planning.measurement import FLOAT32, LayerSize
from embedkit.store.schema import LayerSpec


def specs_of(
    asked: Asked, *, prefix: str, backend: Backend = "torch"
) -> tuple[LayerSpec, ...]:
    """Return the layers asked of a network as they are stored, in execution order.

    Parameters
    ----------
    asked : Asked
        The call.
    prefix : str
        What stands before a tap's name in the store.
    backend : str, default "torch"
        What executes the network.
    """
    pools = {tap: asked.pools[tap] for tap in asked.layers}
    taps = asked.network.taps(asked.layers, pool=pools, backend=backend)
    types = asked.network.layers["type"]
    return tuple(
        LayerSpec(
            name=f"{prefix}{tap}",
            tap=tap,
            type=str(types[tap]),
            shape=tuple(taps.shapes[tap]),
            dtype=asked.dtype,
            pool=pools[tap],
        )
        for tap in taps.layers
    )


def prefixes(looks: Sequence[Asked]) -> list[str]:
    """Return what stands before the layers of each network in a new store."""
    return ["", *(f"{asked.network.name}/" for asked in looks[1:])]


def sizes_of(asked: Asked, specs: Sequence[LayerSpec]) -> tuple[LayerSize, ...]:
    """Return the sizes that planning counts with."""
    table = asked.network.layers
    return tuple(
        LayerSize(
            name=spec.name,
            shape=spec.shape,
            itemsize=np.dtype(spec.dtype).itemsize,
            flops=int(table["flops"][spec.tap]),
            raw_entries=int(table["nbytes_full"][spec.tap]) // FLOAT32,
            channels=int(table["features"][spec.tap]),
        )
        for spec in specs
    )
