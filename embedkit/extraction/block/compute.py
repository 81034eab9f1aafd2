"""The numbers of one block: images read ahead, batches through networks, rows out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.errors import NetworkError, SourceError
from embedkit.extraction.block.batches import Batches, Input, Look
from embedkit.extraction.block.clock import Clock
from embedkit.extraction.block.guard import Guard
from embedkit.extraction.block.table_rows import TableRows
from embedkit.files.files import Files
from embedkit.images.source import Loaded, Source
from embedkit.networks.network import Network
from embedkit.planning.memory import BATCHES_AHEAD
from embedkit.store.arrays import read
from embedkit.store.blocks import activation, content_array
from embedkit.store.commits import Halving, read_commits
from embedkit.store.layout import read_schema
from embedkit.store.table import REMOVED


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
    table : TableRows
        Reads the ids and places of images.
    """

    files: Files
    looks: tuple[Look, ...]
    source: Source
    decode_threads: int
    table: TableRows


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
    halvings : dict of str to tuple of Halving
        By the key of the pass, from which rows on batches were smaller.
    """

    values: dict[str, npt.NDArray[np.float32]]
    content: npt.NDArray[np.uint64]
    failures: dict[str, str]
    halvings: dict[str, tuple[Halving, ...]]


class TransformFailure(Exception):
    """A transform fails on one image. No error of the run: other blocks can be computed."""


def compute_block(
    given: Given, rows: slice, ids: Sequence[str], *, clock: Clock, guard: Guard
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
    guard : Guard
        Says when batches become smaller.

    Raises
    ------
    NetworkError
        When a transform gives images of different shapes, or memory does not suffice
        for a single one.
    """
    looks = [
        (look.one.key, Batches(look, ids, first=rows.start, guard=guard))
        for look in given.looks
    ]
    content = np.zeros(len(ids), np.uint64)
    failures: dict[str, str] = {}

    def ahead() -> int:
        return BATCHES_AHEAD * max(batches.size for _, batches in looks)

    for row, image in enumerate(_inputs(given, rows, ids, ahead=ahead, clock=clock)):
        clock.lap("wait", looks[0][0])
        content[row] = image.content
        if isinstance(image.values, SourceError):
            failures[ids[row]] = str(image.values)
        for key, batches in looks:
            clock.lap("forward", key, pool=batches.add(image))
    for key, batches in looks:
        clock.lap("forward", key, pool=batches.flush())
    values = {k: v for _, batches in looks for k, v in batches.values.items()}
    return Computed(
        values=values,
        content=content,
        failures=failures,
        halvings={key: tuple(batches.halvings) for key, batches in looks},
    )


def _inputs(
    given: Given,
    rows: slice,
    ids: Sequence[str],
    *,
    ahead: Callable[[], int],
    clock: Clock,
) -> Iterator[Input]:
    first = given.looks[0]
    if first.start is not None:
        place = given.files if first.place is None else first.place
        return _from_layer(place, first, rows, ids)
    uris = given.table.read("uri", rows)
    prepare = _preparing(given, clock)
    return _read_ahead(uris, prepare, threads=given.decode_threads, ahead=ahead)


def _preparing(given: Given, clock: Clock) -> Callable[[str], Input]:
    """Return what reads one image and prepares it for every network."""
    owner = given.looks[0].one.key
    networks = {look.one.network: look for look in given.looks}

    def prepare(uri: str) -> Input:
        if not uri:
            return Input(SourceError(REMOVED), 0)
        with clock.aside("decode", owner):
            loaded = given.source.load(uri)
        if isinstance(loaded.image, SourceError):
            return Input(loaded.image, loaded.content)
        values = {}
        for name, look in networks.items():
            with clock.aside("transform", look.one.key):
                values[name] = _prepared(look.network, loaded, uri)
        return Input(values, loaded.content)

    return prepare


def _prepared(network: Network, loaded: Loaded, uri: str) -> npt.NDArray[np.float32]:
    try:
        return network.prepare(loaded.unwrap())
    except NetworkError as error:
        raise TransformFailure(f"{uri}: {error}") from error


def _read_ahead(
    uris: Sequence[str],
    prepare: Callable[[str], Input],
    *,
    threads: int,
    ahead: Callable[[], int],
) -> Iterator[Input]:
    """Yield prepared images in order, `ahead` of them being read besides the next one.

    Fewer are read as soon as batches are smaller.
    """
    todo = iter(uris)
    waiting: deque[Future[Input]] = deque()
    with ThreadPoolExecutor(threads, "embedkit-decode") as pool:
        while True:
            missing = max(0, ahead() + 1 - len(waiting))
            waiting.extend(pool.submit(prepare, uri) for uri in islice(todo, missing))
            if not waiting:
                return
            yield waiting.popleft().result()


def _from_layer(
    files: Files, look: Look, rows: slice, ids: Sequence[str]
) -> Iterator[Input]:
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
            yield Input(
                {look.one.network: value} if why is None else SourceError(why),
                int(content[at]),
            )
