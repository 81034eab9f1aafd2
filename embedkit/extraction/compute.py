"""The numbers of one block: images read ahead, batches through the network, rows out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from embedkit.errors import NetworkError, SourceError
from embedkit.extraction.clock import Clock
from embedkit.files.files import Files
from embedkit.images.source import Source
from embedkit.networks.network import Network
from embedkit.networks.taps import TapGraph
from embedkit.store.arrays import read, read_text
from embedkit.store.blocks import activation, content_array
from embedkit.store.commits import read_commits
from embedkit.store.layout import read_schema
from embedkit.store.schema import Pass
from embedkit.store.table import REMOVED

BATCHES_AHEAD = 2


@dataclass(frozen=True, slots=True)
class _Input:
    """One image as the network takes it, or why there is none, and its content hash."""

    value: npt.NDArray[np.float32] | SourceError
    content: int


_Batch: TypeAlias = list[_Input]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a block is computed from.

    Parameters
    ----------
    files : Files
        The store.
    one : Pass
        The pass.
    network : Network
        Prepares images.
    taps : TapGraph
        Computes the layers of the pass.
    source : Source
        Reads pixels.
    decode_threads : int
        Threads that read and transform ahead of the network.
    input_shape : tuple of int
        What `taps` takes for one image.
    start : str, optional
        A stored layer, by the store's name, that `taps` begins from.
    """

    files: Files
    one: Pass
    network: Network
    taps: TapGraph
    source: Source
    decode_threads: int
    input_shape: tuple[int, ...]
    start: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """The rows of a block.

    Parameters
    ----------
    values : dict of str to (n, ...) array of float32
        By the store's names of the layers; NaN for images that could not be read.
    content : (n,) array of uint64
        Hashes of the image files, 0 where there was none.
    failures : dict of str to str
        Id to reason.
    """

    values: dict[str, npt.NDArray[np.float32]]
    content: npt.NDArray[np.uint64]
    failures: dict[str, str]


def compute_block(
    given: Given, rows: slice, ids: Sequence[str], *, clock: Clock
) -> Computed:
    """Return every layer's rows for some images.

    Parameters
    ----------
    given : Given
        What they are computed from.
    rows : slice
        Which rows of the store, start and stop given.
    ids : sequence of str
        Their ids.
    clock : Clock
        Takes the time by stage, all but ``write``.

    Raises
    ------
    NetworkError
        When the transform gives images of different shapes.
    """
    specs, size = given.one.layers, given.one.batch_size
    result = Computed(
        values={
            spec.name: np.empty((len(ids), *spec.shape), np.float32) for spec in specs
        },
        content=np.zeros(len(ids), np.uint64),
        failures={},
    )
    start = 0
    for inputs in _inputs(given, rows, ids, clock=clock):
        stop = start + len(inputs)
        batch, bad = _stack(inputs, ids[start:stop], given, size=size)
        clock.lap("wait")
        taps = given.taps.forward(batch)
        for spec in specs:
            part = result.values[spec.name][start:stop]
            part[:] = taps[spec.tap][: len(inputs)]
            part[bad] = np.nan
        clock.lap("forward")
        result.content[start:stop] = [each.content for each in inputs]
        result.failures.update(_failures(inputs, ids[start:stop]))
        start = stop
    return result


def _failures(inputs: _Batch, ids: Sequence[str]) -> dict[str, str]:
    return {
        name: str(given.value)
        for name, given in zip(ids, inputs, strict=True)
        if isinstance(given.value, SourceError)
    }


def _inputs(
    given: Given, rows: slice, ids: Sequence[str], *, clock: Clock
) -> Iterator[_Batch]:
    if given.start is not None:
        return _from_layer(given, rows, ids)
    uris = read_text(given.files, "uri", rows=rows)
    return _from_images(given, uris, clock=clock)


def _from_images(
    given: Given, uris: Sequence[str], *, clock: Clock
) -> Iterator[_Batch]:
    """Yield prepared images batch by batch, reading ahead of whoever takes them."""

    def prepare(uri: str) -> _Input:
        if not uri:
            return _Input(SourceError(REMOVED), 0)
        with clock.aside("decode"):
            loaded = given.source.load(uri)
        if isinstance(loaded.image, SourceError):
            return _Input(loaded.image, loaded.content)
        with clock.aside("transform"):
            return _Input(given.network.prepare(loaded.image), loaded.content)

    size = given.one.batch_size
    cut = [uris[i : i + size] for i in range(0, len(uris), size)]
    with ThreadPoolExecutor(given.decode_threads, "embedkit-decode") as pool:
        waiting: list[list[Future[_Input]]] = []
        todo = iter(cut)
        while True:
            waiting.extend(
                [pool.submit(prepare, uri) for uri in batch]
                for batch in islice(todo, BATCHES_AHEAD + 1 - len(waiting))
            )
            if not waiting:
                return
            yield [future.result() for future in waiting.pop(0)]


def _from_layer(given: Given, rows: slice, ids: Sequence[str]) -> Iterator[_Batch]:
    """Yield the stored maps of an earlier layer batch by batch."""
    schema = read_schema(given.files)
    one = schema.pass_of(str(given.start))
    spec = next(each for each in one.layers if each.name == given.start)
    commits = read_commits(given.files, one, schema.grid(one))
    reasons = {
        name: why for each in commits.values() for name, why in each.failures.items()
    }
    content = read(given.files, content_array(one), rows=rows)
    for first in range(rows.start, rows.stop, given.one.batch_size):
        part = slice(first, min(first + given.one.batch_size, rows.stop))
        maps: npt.NDArray[Any] = read(given.files, activation(spec), rows=part)
        here = range(part.start - rows.start, part.stop - rows.start)
        yield [
            _Input(
                SourceError(reasons[ids[row]]) if ids[row] in reasons else value,
                int(content[row]),
            )
            for row, value in zip(here, maps, strict=True)
        ]


def _stack(
    inputs: _Batch, ids: Sequence[str], given: Given, *, size: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return the batch, filled up to `size` with zeros, and which images are unreadable.

    Zeros stand for unreadable images too. The last bits of a row depend on how many
    rows there are, because libraries choose their kernels by shape: with the same
    number always, a row has the same bits beside bad images and at the end of a block.
    """
    shape = given.input_shape
    batch = np.zeros((size, *shape), np.float32)  # B, C, H, W
    bad = np.zeros(len(inputs), np.bool_)
    for row, each in enumerate(inputs):
        if isinstance(each.value, SourceError):
            bad[row] = True
        elif each.value.shape == shape:
            batch[row] = each.value
        else:
            message = (
                f"the transform of {given.network.name} gave shape {each.value.shape} for "
                f"image {ids[row]!r} and {shape} before: make it resize to one size"
            )
            raise NetworkError(message)
    return batch, bad
