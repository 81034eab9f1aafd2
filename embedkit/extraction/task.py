"""One block of images through one network into the store: what a worker does.

A task is given a block number and a specification of about 1 kB. Everything heavy is
reached from there: the manifest and the layout from the store, the network from a file
beside it, kept per process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from embedkit.errors import NetworkError, SourceError, StoreError
from embedkit.images.imageset import Source
from embedkit.networks.network import Network
from embedkit.networks.pooling import Pool
from embedkit.networks.spool import Spooled, load_spooled
from embedkit.networks.taps import TapGraph
from embedkit.store.arrays import read_schema, read_text, write_block
from embedkit.store.commits import Commit, read_commit, write_commit
from embedkit.store.schema import StoreSchema

BATCHES_AHEAD = 2

_Input: TypeAlias = npt.NDArray[np.float32] | SourceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every task of a run needs to know.

    Parameters
    ----------
    store : str
        Path of the store.
    identity : str
        The store's identity, so that a worker never serves a store from its memory of
        another.
    network : Spooled
        Where the network lies.
    pool : Pool
        How taps are pooled.
    source : Source
        How pixels are read.
    batch_size : int
        Images per forward pass.
    decode_threads : int
        Threads that read and transform ahead of the network.
    """

    store: str
    identity: str
    network: Spooled
    pool: Pool
    source: Source
    batch_size: int
    decode_threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockReport:
    """What a task sends back; well under 1 kB.

    Parameters
    ----------
    block, n_images, n_failed : int
        Its number, rows, and rows that could not be read.
    seconds : float
        Wall-clock seconds of the task.
    skipped : bool
        Whether the block was committed already.
    """

    block: int
    n_images: int
    n_failed: int
    seconds: float
    skipped: bool = False


@dataclass(slots=True)
class _Clock:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)
    since: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self.since
        self.since = now


def extract_block(job: Job, block: int) -> BlockReport:
    """Compute one block of every layer, write it, commit it.

    Parameters
    ----------
    job : Job
        The run.
    block : int
        Which block.

    Returns
    -------
    BlockReport
        A committed block is not computed again.

    Raises
    ------
    NetworkError
        When the network or its transform fails on an image.
    StoreError
        When the store cannot be read or written.
    """
    done = read_commit(job.store, block, identity=job.identity)
    if done is not None:
        return _report(done, skipped=True)
    schema, network, taps = _opened(job)
    clock = _Clock()
    values, failures = _compute(job, block, schema, network, taps, clock)
    rows = schema.grid.rows(block)
    try:
        checksums = write_block(job.store, schema, block, values)
        clock.lap("write")
        commit = Commit(
            block=block,
            identity=job.identity,
            start=rows.start,
            stop=rows.stop,
            failures=failures,
            crc32=checksums,
            seconds={**clock.seconds, "total": sum(clock.seconds.values())},
            device=taps.device,
        )
        write_commit(job.store, commit)
    except OSError as error:
        message = (
            f"block {block} cannot be written to {job.store}: {error.strerror or error}: "
            "make room or get permission, then run the same call again"
        )
        raise StoreError(message) from error
    return _report(commit)


def _report(commit: Commit, *, skipped: bool = False) -> BlockReport:
    return BlockReport(
        block=commit.block,
        n_images=commit.stop - commit.start,
        n_failed=len(commit.failures),
        seconds=commit.seconds.get("total", 0.0),
        skipped=skipped,
    )


@lru_cache(maxsize=4)
def _opened(job: Job) -> tuple[StoreSchema, Network, TapGraph]:
    """Open what a job needs, once per process."""
    schema = read_schema(job.store)
    network = load_spooled(job.network)
    layers = [spec.name for spec in schema.layers]
    return schema, network, network.taps(layers, pool=job.pool)


def _compute(
    job: Job,
    block: int,
    schema: StoreSchema,
    network: Network,
    taps: TapGraph,
    clock: _Clock,
) -> tuple[dict[str, npt.NDArray[np.float32]], dict[str, str]]:
    """Return every layer's rows of a block, and the images that could not be read."""
    rows = schema.grid.rows(block)
    ids = read_text(job.store, "image", rows)
    uris = read_text(job.store, "uri", rows)
    values = {
        spec.name: np.empty((len(ids), *spec.shape), np.float32)
        for spec in schema.layers
    }
    failures: dict[str, str] = {}
    start = 0
    for inputs in _batches(job, network, uris):
        stop = start + len(inputs)
        batch, bad = _stack(inputs, ids[start:stop], network, size=job.batch_size)
        clock.lap("prepare")
        for layer, activation in taps.forward(batch).items():
            values[layer][start:stop] = activation[: len(inputs)]
            values[layer][start:stop][bad] = np.nan
        clock.lap("forward")
        failures |= {
            name: str(given)
            for name, given in zip(ids[start:stop], inputs, strict=True)
            if isinstance(given, SourceError)
        }
        start = stop
    return values, failures


def _batches(job: Job, network: Network, uris: list[str]) -> Iterator[list[_Input]]:
    """Yield prepared inputs batch by batch, reading ahead of whoever takes them."""

    def prepare(uri: str) -> _Input:
        try:
            image = job.source.read(uri)
        except SourceError as error:
            return error
        return network.prepare(image)

    size = job.batch_size
    cut = [uris[i : i + size] for i in range(0, len(uris), size)]
    with ThreadPoolExecutor(job.decode_threads, "embedkit-decode") as pool:
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


def _stack(
    inputs: list[_Input], ids: list[str], network: Network, *, size: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return the batch, filled up to `size` with zeros, and which images are unreadable.

    Zeros stand for unreadable images too. The last bits of a row depend on how many
    rows there are, because libraries choose their kernels by shape: with the same
    number always, a row has the same bits beside bad images and at the end of a block.
    """
    shape = network.input_shape
    batch = np.zeros((size, *shape), np.float32)  # B, C, H, W
    bad = np.zeros(len(inputs), np.bool_)
    for row, given in enumerate(inputs):
        if isinstance(given, SourceError):
            bad[row] = True
        elif given.shape == shape:
            batch[row] = given
        else:
            message = (
                f"the transform of {network.name} gave shape {given.shape} for image "
                f"{ids[row]!r} and {shape} before: make it resize to one size"
            )
            raise NetworkError(message)
    return batch, bad
