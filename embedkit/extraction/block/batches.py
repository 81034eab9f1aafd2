"""Batches of images through one network, rows out; smaller ones where memory runs short."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.errors import NetworkError, SourceError
from embedkit.extraction.block.guard import Guard, lacks_memory
from embedkit.files.files import Files
from embedkit.networks.network import Network
from embedkit.networks.taps import TapGraph
from embedkit.planning.units import told_bytes
from embedkit.store.commits import Halving
from embedkit.store.schema import Pass

_NAMED = 3
"""Layers that are named where not even one image fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One pass, ready to compute.

    Parameters
    ----------
    one : Pass
        The pass.
    network : Network
        Prepares images.
    taps : TapGraph
        Computes the layers of the pass.
    input_shape : tuple of int
        What `taps` takes for one image.
    start : str, optional
        A stored layer, by the store's name, that `taps` begins from.
    place : Files, optional
        The store with that layer, where it is not the one that is written.
    """

    one: Pass
    network: Network
    taps: TapGraph
    input_shape: tuple[int, ...]
    start: str | None = None
    place: Files | None = None


@dataclass(frozen=True, slots=True)
class Input:
    """One image as each look's network takes it, or why there is none; its content hash.

    `values` are by the store's name of the network: looks of one network share them.
    """

    values: Mapping[str, npt.NDArray[np.float32]] | SourceError
    content: int


class Batches:
    """The rows of one look, computed whenever a batch is full.

    A batch that is not full, and the place of an unreadable image, is filled up with
    zeros. The last bits of a row depend on how many rows there are, because libraries
    choose their kernels by shape: with the same number always, a row has the same bits
    beside bad images and at the end of a block. Batches that become smaller are filled
    up to their own size, so that a row has the bits that it has in a run with batches of
    that size.

    Parameters
    ----------
    look : Look
        What computes.
    ids : sequence of str
        Of the images.
    first : int
        Row of the store that the first of them is.
    guard : Guard
        Says when batches become smaller.

    Attributes
    ----------
    values : dict of str to (n, ...) array of float32
        By the store's names of the layers, as far as they are computed.
    size : int
        Images of a batch now.
    halvings : list of Halving
        From which rows on batches were smaller than the pass says.
    """

    def __init__(
        self, look: Look, ids: Sequence[str], *, first: int, guard: Guard
    ) -> None:
        self.values = {
            spec.name: np.empty((len(ids), *spec.shape), np.float32)
            for spec in look.one.layers
        }
        self.halvings: list[Halving] = []
        self.size = look.one.batch_size
        self._look, self._ids, self._first, self._guard = look, ids, first, guard
        self._bad: list[bool] = []
        self._start = 0
        self._change(*guard.begin(look.one.key, self.size))
        self._batch = self._zeros()  # B, C, H, W

    def add(self, given: Input) -> float:
        """Take the next image; return what `flush` does, 0 where no batch is full."""
        at = len(self._bad)
        bad = isinstance(given.values, SourceError)
        self._batch[at] = 0.0 if bad else self._fitting(given, at)
        self._bad.append(bad)
        return self.flush() if len(self._bad) == len(self._batch) else 0.0

    def flush(self) -> float:
        """Compute what is waiting; return the seconds that pooling took."""
        bad, seconds, done = np.array(self._bad, bool), 0.0, 0
        self._batch[len(bad) :] = 0.0
        while done < len(bad):
            taps = self._forward(done)
            count = min(self.size, len(bad) - done)
            seconds += self._look.taps.pool_seconds
            self._keep(taps, bad[done : done + count])
            done += count
            # After the rows are kept: the next ones are those that a new size is for.
            self._change(*self._guard.after(self._look.one.key, self.size))
        self._bad = []
        if len(self._batch) != self.size:
            self._batch = self._zeros()
        return seconds

    def _forward(self, done: int) -> dict[str, npt.NDArray[np.float32]]:
        """Compute the next rows of the waiting ones, in smaller batches if need be."""
        while True:
            self._guard.before()
            try:
                return self._look.taps.forward(self._part(done))
            except (MemoryError, RuntimeError) as error:
                if not lacks_memory(error):
                    raise
                told = _first_line(error)
            # Outside of the clause, which holds on to all that the pass had made.
            if self.size == 1:
                raise NetworkError(self._too_large(told))
            why = f"out of memory: {told}"
            self._change(*self._guard.halve(self._look.one.key, self.size, why))

    def _part(self, done: int) -> npt.NDArray[np.float32]:
        """Return the next rows as a full batch of the present size."""
        rows = self._batch[done : done + self.size]
        if len(rows) == self.size:
            return rows
        filled = self._zeros()
        filled[: len(rows)] = rows
        return filled

    def _zeros(self) -> npt.NDArray[np.float32]:
        return np.zeros((self.size, *self._look.input_shape), np.float32)

    def _keep(
        self, taps: Mapping[str, npt.NDArray[np.float32]], bad: npt.NDArray[np.bool_]
    ) -> None:
        """Put the first rows of a batch, without those filled up, in their place."""
        for spec in self._look.one.layers:
            part = self.values[spec.name][self._start : self._start + len(bad)]
            part[:] = taps[spec.tap][: len(bad)]
            part[bad] = np.nan
        self._start += len(bad)

    def _change(self, size: int, why: str) -> None:
        """Go on in batches of another size, if it is one."""
        if size != self.size:
            row = self._first + self._start
            # What changed twice before a row was computed changed once.
            before = [each for each in self.halvings if each.row < row]
            self.halvings = [*before, Halving(row=row, batch_size=size, why=why)]
            self.size = size

    def _fitting(self, given: Input, at: int) -> npt.NDArray[np.float32]:
        """Return an image of the right shape."""
        shape, network = self._look.input_shape, self._look.network
        values: Any = given.values
        value: npt.NDArray[np.float32] = values[self._look.one.network]
        if value.shape == shape:
            return value
        message = (
            f"the transform of {network.name} gave shape {value.shape} for image "
            f"{self._ids[self._start + at]!r} and {shape} before: make it resize to one "
            "size"
        )
        raise NetworkError(message)

    def _too_large(self, told: str) -> str:
        specs = sorted(self._look.one.layers, key=lambda spec: -spec.row_bytes)
        layers = ", ".join(
            f"{spec.name} {'×'.join(map(str, spec.shape))} "
            f"({told_bytes(4 * math.prod(spec.shape))})"
            for spec in specs[:_NAMED]
        )
        shape = "×".join(map(str, self._look.input_shape))
        return (
            f"{self._look.network.name} runs out of memory with a single image of "
            f"{shape} ({told}); of its {len(specs)} layers the largest are {layers} an "
            "image: ask for fewer layers or pool them, give workers more memory or fewer "
            "threads, or let the transform make smaller images"
        )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
