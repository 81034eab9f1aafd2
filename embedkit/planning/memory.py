"""How much memory a worker needs, part by part."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from embedkit.planning.fit import Line
from embedkit.planning.measurement import LayerSize, Measurement

BATCHES_AHEAD: Final = 2
"""Batches of prepared images that wait for the network, besides the one being filled."""

TARGET: Final = 0.6
"""The share of a worker's memory that is planned for. Dask begins to write results to
disk there, gives a worker no new tasks from 0.8 on and ends it at 0.95."""

MOST: Final = 0.8
"""The share that is planned for where nothing fits into `TARGET`, with steps as small as
they get."""

_ENCODED: Final = 2.0
"""Bytes that compressing a shard takes, per byte of it (measured: 0.75 to 1.94)."""

_ROUNDED: Final = 22
"""Bytes per number while a layer is rounded: its mask of finite numbers and the
differences that are measured, and the stored numbers."""


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that takes memory.

    Parameters
    ----------
    name : str
        For people.
    nbytes : int
        In one worker process, all its threads together.
    """

    name: str
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryModel:
    """What a worker needs, in coefficients: everything grows by them in a straight line.

    Parameters
    ----------
    reserved : int
        Bytes of a worker that has done nothing yet.
    networks : int
        Bytes of the loaded networks, which all threads share.
    forward : Line
        Bytes of a forward pass by its batch; networks follow one another, and what an
        allocator keeps of one is counted beside the next.
    input_bytes : int
        Of one prepared image, for all networks.
    decoding : int
        Bytes of one image while it is decoded and prepared.
    buffer_bytes : int
        Of one image in the buffers of its block: float32 numbers of every layer.
    encoding : int
        Bytes per image of a block while its largest layer is rounded or compressed.
    loading : int
        Bytes that are needed besides while a network is loaded, before any image is
        there: they count as far as they are more than all that comes later.
    factor : float
        By which earlier runs have corrected all of it.
    """

    reserved: int
    networks: int
    forward: Line
    input_bytes: int
    decoding: int
    buffer_bytes: int
    encoding: int
    loading: int = 0
    factor: float = 1.0

    @classmethod
    def of(cls, measured: Measurement) -> MemoryModel:
        """Return the model of what was measured."""
        lines = [each.memory for each in measured.networks]
        return cls(
            reserved=measured.reserved,
            networks=sum(each.loaded for each in measured.networks),
            forward=Line(
                fixed=sum(line.fixed for line in lines),
                per_image=sum(line.per_image for line in lines),
            ),
            input_bytes=sum(each.input_bytes for each in measured.networks),
            decoding=measured.decoding,
            buffer_bytes=sum(each.buffer_bytes for each in measured.layers),
            encoding=max((_encoding(each) for each in measured.layers), default=0),
            loading=max((each.loading for each in measured.networks), default=0),
            factor=measured.factors.memory,
        )

    def parts(
        self, *, batch: int, block: int, threads: int, decode_threads: int
    ) -> tuple[Part, ...]:
        """Return what a worker needs, part by part.

        Parameters
        ----------
        batch : int
            Images of a forward pass.
        block : int
            Images of a task.
        threads : int
            Tasks at a time.
        decode_threads : int
            Threads of each task that read ahead.

        Returns
        -------
        tuple of Part
            They add up to `projected_mem`.
        """
        # One more is with the network's batch, and one on its way there.
        waiting = min(BATCHES_AHEAD * batch + 2, block)
        working = (
            Part("forward pass", self._passes(batch=batch, threads=threads)),
            Part("batch", threads * batch * self.input_bytes),
            Part("images read ahead", threads * waiting * self.input_bytes),
            Part("decoding", threads * decode_threads * self.decoding),
            Part("rows of the block", threads * block * self.buffer_bytes),
            Part("encoding of shards", threads * block * self.encoding),
        )
        more = self.loading - sum(part.nbytes for part in working)
        found = (
            Part("Python and libraries", self.reserved),
            Part("networks", self.networks),
            *((Part("loading of networks", more),) if more > 0 else ()),
            *working,
        )
        if self.factor == 1.0:
            return found
        return tuple(
            Part(each.name, math.ceil(self.factor * each.nbytes)) for each in found
        )

    def projected_mem(
        self, *, batch: int, block: int, threads: int, decode_threads: int
    ) -> int:
        """Return the bytes that a worker needs; see `parts`."""
        found = self.parts(
            batch=batch, block=block, threads=threads, decode_threads=decode_threads
        )
        return sum(part.nbytes for part in found)

    def _passes(self, *, batch: int, threads: int) -> int:
        """Return the bytes of forward passes, of which a process runs one at a time.

        Measured with two threads: 326 MB if each had one of its own, 176 MB in fact. The
        others still hold what their last batch gave.
        """
        return self.forward.at(batch) + (threads - 1) * batch * self.buffer_bytes


def _encoding(layer: LayerSize) -> int:
    compressed = int(_ENCODED * layer.row_bytes)
    if layer.row_bytes == layer.buffer_bytes:
        return compressed
    return max(compressed + layer.row_bytes, _ROUNDED * layer.entries)
