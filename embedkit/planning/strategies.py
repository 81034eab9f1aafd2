"""Three ways to compute several layers, and what each of them takes.

``fused`` computes all layers in one forward pass and pools them there. ``staged`` computes
the map of each layer from the stored map of the one before, and pools it from there.
``lazy`` begins at the images for every layer anew.

References
----------
Nakandala, S. and Kumar, A. (2020). Vista: Optimized System for Declarative Feature
Transfer from Deep CNNs at Scale. SIGMOD, section 4 (there "eager", "staged", "lazy").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

from embedkit.errors import InputError
from embedkit.planning.measurement import (
    FLOAT32,
    LayerSize,
    Measurement,
    NetworkMeasurement,
)

Strategy: TypeAlias = Literal["fused", "staged", "lazy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How fast things are, on one thread.

    Parameters
    ----------
    image_seconds : float
        To read, decode and prepare one image.
    flops_rate : float
        Floating point operations a second of forward passes.
    read_rate, write_rate : float
        Bytes a second, uncompressed, of stored layers.
    """

    image_seconds: float
    flops_rate: float
    read_rate: float
    write_rate: float

    @classmethod
    def of(
        cls, measured: Measurement, network: NetworkMeasurement, *, batch: int
    ) -> Rates:
        """Return the rates of one of the networks that were measured.

        A network whose operations are not known counts as if it took no time: all ways
        then have the same forward passes.
        """
        seconds = network.seconds(batch)
        deepest = max(each.flops for each in network.layers)
        return cls(
            image_seconds=measured.decode_seconds + network.transform_seconds,
            flops_rate=deepest / seconds if seconds and deepest else math.inf,
            read_rate=measured.read_rate,
            write_rate=measured.write_rate,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyCost:
    """What one way takes, for one image.

    Parameters
    ----------
    strategy : Strategy
        Which.
    images, forward, read, write : float
        Seconds: images decoded and prepared, operations, maps read, layers written.
    flops : int
        Floating point operations.
    scratch_bytes : int
        Of maps that lie on disk and were not asked for.
    buffer_bytes : int
        Of rows that a task holds at a time, float32.
    """

    strategy: Strategy
    images: float
    forward: float
    read: float
    write: float
    flops: int
    scratch_bytes: int
    buffer_bytes: int

    @property
    def seconds(self) -> float:
        """All of it together."""
        return self.images + self.forward + self.read + self.write


def strategy_costs(
    layers: Sequence[LayerSize], rates: Rates
) -> tuple[StrategyCost, ...]:
    """Return what each way takes for one image.

    Parameters
    ----------
    layers : sequence of LayerSize
        Of one network, at least one, each computed from the one before.
    rates : Rates
        How fast things are.

    Returns
    -------
    tuple of StrategyCost
        In the order fused, staged, lazy.

    Raises
    ------
    InputError
        When there is no layer.
    """
    if not layers:
        raise InputError("no layer is to be computed: ask for one or more")
    ordered = sorted(layers, key=lambda each: each.flops)
    return _fused(ordered, rates), _staged(ordered, rates), _lazy(ordered, rates)


def worth_reading(raw_bytes: int, flops: int, rates: Rates) -> bool:
    """Tell whether a stored map is sooner read than computed again from its image.

    Parameters
    ----------
    raw_bytes : int
        Of the map.
    flops : int
        Floating point operations up to and with it.
    rates : Rates
        How fast things are.
    """
    return raw_bytes / rates.read_rate < rates.image_seconds + flops / rates.flops_rate


def _fused(layers: Sequence[LayerSize], rates: Rates) -> StrategyCost:
    return _priced(
        "fused",
        rates,
        images=1,
        flops=layers[-1].flops,
        read=0,
        written=_stored(layers),
        scratch=0,
        buffer=sum(each.buffer_bytes for each in layers),
    )


def _staged(layers: Sequence[LayerSize], rates: Rates) -> StrategyCost:
    """Every layer but the last is written as a map too, and read twice.

    Once to be pooled, once for the next layer. Where the map is what was asked for, it
    is written and read once.
    """
    maps = [each.raw_entries * FLOAT32 for each in layers[:-1]]
    extra = [
        0 if (each.entries, each.itemsize) == (each.raw_entries, FLOAT32) else size
        for size, each in zip(maps, layers[:-1], strict=True)
    ]
    return _priced(
        "staged",
        rates,
        images=1,
        flops=layers[-1].flops,
        read=sum(maps) + sum(extra),
        written=_stored(layers) + sum(extra),
        scratch=_two_neighbours(extra),
        buffer=max([*maps, *(each.buffer_bytes for each in layers)]),
    )


def _two_neighbours(sizes: Sequence[int]) -> int:
    """Return the most that lies there at a time: a map, and the next one computed from it."""
    return max((a + b for a, b in pairwise([*sizes, 0])), default=0)


def _lazy(layers: Sequence[LayerSize], rates: Rates) -> StrategyCost:
    return _priced(
        "lazy",
        rates,
        images=len(layers),
        flops=sum(each.flops for each in layers),
        read=0,
        written=_stored(layers),
        scratch=0,
        buffer=max(each.buffer_bytes for each in layers),
    )


def _stored(layers: Iterable[LayerSize]) -> int:
    return sum(each.row_bytes for each in layers)


def _priced(
    strategy: Strategy,
    rates: Rates,
    *,
    images: int,
    flops: int,
    read: int,
    written: int,
    scratch: int,
    buffer: int,
) -> StrategyCost:
    return StrategyCost(
        strategy=strategy,
        images=images * rates.image_seconds,
        forward=flops / rates.flops_rate,
        read=read / rates.read_rate,
        write=written / rates.write_rate,
        flops=flops,
        scratch_bytes=scratch,
        buffer_bytes=buffer,
    )
