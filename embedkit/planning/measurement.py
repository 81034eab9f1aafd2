"""What has to be measured before a run can be planned. Numbers only."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from embedkit.planning.codecs import LayerTrial, WriteRate
from embedkit.planning.correction import UNCORRECTED, Factors
from embedkit.planning.document import read_document
from embedkit.planning.fit import Line, between, fit_line

FLOAT32 = 4
FORMAT = 1
GAIN = 1.05
"""A larger batch has to be faster by so much to be worth its memory (chosen: 5 %)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSize:
    """One layer as it is to be stored, by the sizes that count.

    Parameters
    ----------
    name : str
        What the store calls it.
    shape : tuple of int
        Of one image, as stored.
    itemsize : int
        Bytes of a stored number: 4 for float32, 2 for float16.
    flops : int
        Floating point operations of one image up to and with this layer.
    raw_entries : int
        Numbers of one image before pooling.
    channels : int
        Numbers of one image when it is averaged over positions.
    """

    name: str
    shape: tuple[int, ...]
    itemsize: int
    flops: int
    raw_entries: int
    channels: int

    @property
    def entries(self) -> int:
        """Numbers of one image, as stored."""
        return math.prod(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of one image, uncompressed."""
        return self.entries * self.itemsize

    @property
    def buffer_bytes(self) -> int:
        """Bytes of one image while its block is computed: always float32."""
        return self.entries * FLOAT32


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """One measured batch size.

    Parameters
    ----------
    batch : int
        Images.
    peak : int
        Bytes that the forward pass took at its peak, outputs included, above what the
        process held just before, with the network loaded and the batch made.
    seconds : float
        Of the pass, on one thread.
    device_peak : int
        Bytes of the GPU that it took at its peak, besides the network; 0 without one.
    """

    batch: int
    peak: int
    seconds: float
    device_peak: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkMeasurement:
    """What one network needs, measured.

    Parameters
    ----------
    name : str
        For messages.
    loaded : int
        Bytes that a process holds for it, whatever the number of its threads.
    load_seconds : float
        To load it, once a process.
    input_bytes : int
        Of one prepared image, float32.
    transform_seconds : float
        To prepare one decoded image, on one thread.
    forward : tuple of Forward
        At one batch size or more.
    flops : int
        Floating point operations of one image in the passes that were measured.
    layers : tuple of LayerSize
        Those asked for, in execution order.
    loading : int
        Bytes that a process takes besides while it loads it, at the peak.
    alone : tuple of Forward
        Passes that keep the deepest of the layers alone; empty where there is one layer,
        or where that was not measured.
    device_loaded : int
        Bytes that the network takes of the GPU; 0 without one.
    """

    name: str
    loaded: int
    load_seconds: float
    input_bytes: int
    transform_seconds: float
    forward: tuple[Forward, ...]
    flops: int
    layers: tuple[LayerSize, ...]
    loading: int = 0
    alone: tuple[Forward, ...] = ()
    device_loaded: int = 0

    @property
    def memory(self) -> Line:
        """Bytes of a forward pass by its batch."""
        return fit_line([(each.batch, each.peak) for each in self.forward])

    @property
    def share(self) -> float:
        """How much of the measured passes the layers asked for need, 0 to 1."""
        deepest = max((each.flops for each in self.layers), default=0)
        return min(1.0, deepest / self.flops) if self.flops else 1.0

    def seconds(self, batch: int) -> float:
        """Return the seconds of one image in batches of that size, on one thread."""
        per_image: dict[int, float] = {}
        for each in self.forward:
            seconds = each.seconds / each.batch
            per_image[each.batch] = min(seconds, per_image.get(each.batch, seconds))
        return between(list(per_image.items()), batch) * self.share


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What a run needs, measured on one worker like those that it will have.

    Parameters
    ----------
    reserved : int
        Bytes of a worker that has done nothing yet but import what it needs.
    decode_seconds : float
        To read and decode one image, on one thread.
    decoding : int
        Bytes that decoding and preparing one image takes besides its result.
    write_rate, read_rate : float
        Bytes a second, uncompressed, at which one thread writes and reads shards.
    block_seconds : float
        Of a task besides its images: opening, committing.
    held_seconds : float
        Of one image, during which no other thread of the same process can run Python.
    speedup : tuple of (int, float)
        Threads inside a forward pass, and how many times faster it is with them.
    networks : tuple of NetworkMeasurement
        Those that look at each image.
    keys : tuple of str
        Under which the measurements of the networks are kept; empty where none was made.
    factors : Factors
        By which earlier runs have corrected it; see `embedkit.planning.joined.corrected`.
    trials : tuple of LayerTrial
        What codecs make of layers; `write_rate` is that of the usual codec.
    keep_seconds : float
        To put a byte of rows, float32, into new memory of a block.
    pace : float
        How many times as long blocks take that are computed at once by all workers of a
        machine as their parts, each measured alone, add up to.
    rehearsed : int
        By how many workers at once that was measured; 0 where it was not.
    """

    reserved: int
    decode_seconds: float
    decoding: int
    write_rate: float
    read_rate: float
    networks: tuple[NetworkMeasurement, ...]
    block_seconds: float = 0.0
    held_seconds: float = 0.0
    speedup: tuple[tuple[int, float], ...] = ((1, 1.0),)
    keys: tuple[str, ...] = ()
    factors: Factors = UNCORRECTED
    trials: tuple[LayerTrial, ...] = ()
    keep_seconds: float = 0.0
    pace: float = 1.0
    rehearsed: int = 0

    @property
    def layers(self) -> tuple[LayerSize, ...]:
        """The layers of all networks."""
        return tuple(layer for each in self.networks for layer in each.layers)

    @property
    def row_bytes(self) -> int:
        """Bytes that one image writes, uncompressed."""
        return sum(layer.row_bytes for layer in self.layers)

    @property
    def buffer_bytes(self) -> int:
        """Bytes of one image while its block is computed."""
        return sum(layer.buffer_bytes for layer in self.layers)

    @property
    def transform_seconds(self) -> float:
        """Of one image, for all networks."""
        return sum(each.transform_seconds for each in self.networks)

    def forward_seconds(self, batch: int) -> float:
        """Return the seconds of one image through all networks, on one thread."""
        return sum(each.seconds(batch) for each in self.networks)

    def faster(self, threads: float) -> float:
        """Return how many times faster a pass is on so many threads, or part of a core."""
        if threads < 1:
            return threads
        return max(1.0, min(threads, between(self.speedup, threads)))

    def to_json(self) -> str:
        """Return the measurement as one JSON object."""
        return json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Measurement:
        """Return the measurement that `to_json` wrote.

        Raises
        ------
        InputError
            When it is no such text, or that of another format.
        """
        return read_document(
            text,
            _measurement,
            version=FORMAT,
            what="measurement",
            remedies=("give what Measurement.to_json wrote", "measure again"),
        )


def _measurement(found: dict[str, Any]) -> Measurement:
    networks = tuple(_network(each) for each in found.pop("networks"))
    speedup = tuple((int(at), float(x)) for at, x in found.pop("speedup"))
    keys = tuple(found.pop("keys", ()))
    factors = Factors(**found.pop("factors", {}))
    trials = tuple(_trial(each) for each in found.pop("trials", ()))
    return Measurement(
        **found,
        networks=networks,
        speedup=speedup,
        keys=keys,
        factors=factors,
        trials=trials,
    )


def _trial(found: Mapping[str, Any]) -> LayerTrial:
    rates = {codec: WriteRate(**each) for codec, each in found["rates"].items()}
    return LayerTrial(**{**found, "rates": rates})


def _network(found: Mapping[str, Any]) -> NetworkMeasurement:
    passes = {
        name: tuple(Forward(**each) for each in found.get(name, ()))
        for name in ("forward", "alone")
    }
    layers = tuple(
        LayerSize(**{**each, "shape": tuple(each["shape"])}) for each in found["layers"]
    )
    return NetworkMeasurement(**{**found, **passes, "layers": layers})
