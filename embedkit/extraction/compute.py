"""The numbers of one block: images read ahead, batches through networks, rows out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.errors import NetworkError, SourceError
from embedkit.extraction.clock import Clock
from embedkit.files.files import Files
from embedkit.images.source import Loaded, Source
from embedkit.networks.network import Network
from embedkit.networks.taps import TapGraph
from embedkit.planning.memory import BATCHES_AHEAD
from embedkit.store.arrays import read, read_text
from embedkit.store.blocks import activation, content_array
from embedkit.store.commits import read_commits
from embedkit.store.layout import read_schema
from embedkit.store.schema import Pass
from embedkit.store.table import REMOVED


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a block is computed from.

    Parameters
    ----------
    files : Files
        The store.
    looks : tuple of Look
        What looks at every image; a single one where it begins from a stored layer.
    source : Source
        Reads pixels, once an image for all looks.
    decode_threads : int
        Threads that read and transform ahead of the networks.
    """

    files: Files
    looks: tuple[Look, ...]
    source: Source
    decode_threads: int


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


class TransformFailure(Exception):
    """A transform fails on one image. No error of the run: other blocks can be computed."""


@dataclass(frozen=True, slots=True)
class _Input:
    """One image as each look's network takes it, or why there is none; its content hash.

    `values` are by the store's name of the network: looks of one network share them.
    """

    values: Mapping[str, npt.NDArray[np.float32]] | SourceError
    content: int


class _Batches:
    """The rows of one look, computed whenever a batch is full.

    A batch that is not full, and the place of an unreadable image, is filled up with
    zeros. The last bits of a row depend on how many rows there are, because libraries
    choose their kernels by shape: with the same number always, a row has the same bits
    beside bad images and at the end of a block.
    """

    def __init__(self, look: Look, ids: Sequence[str]) -> None:
        self.values = {
            spec.name: np.empty((len(ids), *spec.shape), np.float32)
            for spec in look.one.layers
        }
        self._look, self._ids = look, ids
        self._batch = np.zeros(
            (look.one.batch_size, *look.input_shape), np.float32
        )  # B, C, H, W
        self._bad: list[bool] = []
        self._start = 0

    def add(self, given: _Input) -> float:
        """Take the next image; return what `flush` does, 0 where no batch is full."""
        at = len(self._bad)
        bad = isinstance(given.values, SourceError)
        self._batch[at] = 0.0 if bad else self._fitting(given, at)
        self._bad.append(bad)
        return self.flush() if len(self._bad) == len(self._batch) else 0.0

    def flush(self) -> float:
        """Compute what is waiting; return the seconds that pooling took."""
        count = len(self._bad)
        if not count:
            return 0.0
        self._batch[count:] = 0.0
        taps = self._look.taps.forward(self._batch)
        pool = self._look.taps.pool_seconds
        for spec in self._look.one.layers:
            part = self.values[spec.name][self._start : self._start + count]
            part[:] = taps[spec.tap][:count]
            part[np.array(self._bad)] = np.nan
        self._start += count
        self._bad = []
        return pool

    def _fitting(self, given: _Input, at: int) -> npt.NDArray[np.float32]:
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


def compute_block(
    given: Given, rows: slice, ids: Sequence[str], *, clock: Clock
) -> Computed:
    """Return every layer's rows for some images, each image read once.

    Parameters
    ----------
    given : Given
        What they are computed from.
    rows : slice
        Which rows of the store, start and stop given.
    ids : sequence of str
        Their ids.
    clock : Clock
        Takes the time by stage, all but ``write``. What passes have in common is on the
        account of the first one.

    Raises
    ------
    NetworkError
        When a transform gives images of different shapes.
    """
    looks = [(look.one.key, _Batches(look, ids)) for look in given.looks]
    content = np.zeros(len(ids), np.uint64)
    failures: dict[str, str] = {}
    for row, image in enumerate(_inputs(given, rows, ids, clock=clock)):
        clock.lap("wait", looks[0][0])
        content[row] = image.content
        if isinstance(image.values, SourceError):
            failures[ids[row]] = str(image.values)
        for key, batches in looks:
            clock.lap("forward", key, pool=batches.add(image))
    for key, batches in looks:
        clock.lap("forward", key, pool=batches.flush())
    values = {k: v for _, batches in looks for k, v in batches.values.items()}
    return Computed(values=values, content=content, failures=failures)


def _inputs(
    given: Given, rows: slice, ids: Sequence[str], *, clock: Clock
) -> Iterator[_Input]:
    first = given.looks[0]
    if first.start is not None:
        place = given.files if first.place is None else first.place
        return _from_layer(place, first, rows, ids)
    uris = read_text(given.files, "uri", rows=rows)
    ahead = BATCHES_AHEAD * max(look.one.batch_size for look in given.looks)
    prepare = _preparing(given, clock)
    return _read_ahead(uris, prepare, threads=given.decode_threads, ahead=ahead)


def _preparing(given: Given, clock: Clock) -> Callable[[str], _Input]:
    """Return what reads one image and prepares it for every network."""
    owner = given.looks[0].one.key
    networks = {look.one.network: look for look in given.looks}

    def prepare(uri: str) -> _Input:
        if not uri:
            return _Input(SourceError(REMOVED), 0)
        with clock.aside("decode", owner):
            loaded = given.source.load(uri)
        if isinstance(loaded.image, SourceError):
            return _Input(loaded.image, loaded.content)
        values = {}
        for name, look in networks.items():
            with clock.aside("transform", look.one.key):
                values[name] = _prepared(look.network, loaded, uri)
        return _Input(values, loaded.content)

    return prepare


def _prepared(network: Network, loaded: Loaded, uri: str) -> npt.NDArray[np.float32]:
    try:
        return network.prepare(loaded.unwrap())
    except NetworkError as error:
        raise TransformFailure(f"{uri}: {error}") from error


def _read_ahead(
    uris: Sequence[str], prepare: Callable[[str], _Input], *, threads: int, ahead: int
) -> Iterator[_Input]:
    """Yield prepared images in order, `ahead` of them being read besides the next one."""
    todo = iter(uris)
    waiting: deque[Future[_Input]] = deque()
    with ThreadPoolExecutor(threads, "embedkit-decode") as pool:
        while True:
            missing = ahead + 1 - len(waiting)
            waiting.extend(pool.submit(prepare, uri) for uri in islice(todo, missing))
            if not waiting:
                return
            yield waiting.popleft().result()


def _from_layer(
    files: Files, look: Look, rows: slice, ids: Sequence[str]
) -> Iterator[_Input]:
    """Yield the stored maps of an earlier layer, read batch by batch."""
    schema = read_schema(files)
    one = schema.pass_of(str(look.start))
    spec = next(each for each in one.layers if each.name == look.start)
    commits = read_commits(files, one, schema.grid(one))
    reasons = {
        name: why for each in commits.values() for name, why in each.failures.items()
    }
    content = read(files, content_array(one), rows=rows)
    for first in range(rows.start, rows.stop, look.one.batch_size):
        part = slice(first, min(first + look.one.batch_size, rows.stop))
        maps: npt.NDArray[Any] = read(files, activation(spec), rows=part)
        for at, value in enumerate(maps, first - rows.start):
            why = reasons.get(ids[at])
            yield _Input(
                {look.one.network: value} if why is None else SourceError(why),
                int(content[at]),
            )
