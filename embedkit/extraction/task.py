"""One block through one network into the store: what a worker does, and its protocol.

A task is given a block number and a specification of about 1 kB. Everything heavy is
reached from there: the manifest and the layout from the store, the network from a file
beside it, kept per process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy.typing as npt

from embedkit.errors import EmbedkitError, StoreError
from embedkit.extraction.asked import pool_of
from embedkit.extraction.clock import Clock
from embedkit.extraction.compute import Given, compute_block
from embedkit.extraction.memory import peak, reset_peak
from embedkit.extraction.rounding import rounded
from embedkit.files.files import Files, files_at
from embedkit.files.reasons import said
from embedkit.images.source import Source
from embedkit.networks.spool import Spooled, load_spooled
from embedkit.planning.grid import BlockGrid
from embedkit.store.arrays import read_text
from embedkit.store.attempts import DEATHS, begin, deaths_in, end
from embedkit.store.blocks import CONTENT, write_block
from embedkit.store.commits import Commit, read_commit, write_commit
from embedkit.store.ids import digest
from embedkit.store.layout import read_schema
from embedkit.store.lock import holder
from embedkit.store.schema import Pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every task of a pass needs to know; pickled, less than 1 kB.

    Parameters
    ----------
    store : str
        Where the store lies.
    token : str
        Of the driver's lock: a task of a driver that has lost it writes nothing.
    identity : str
        Of the pass.
    network : Spooled
        Where the network lies.
    source : Source
        How pixels are read.
    decode_threads : int
        Threads that read and transform ahead of the network.
    start : str, optional
        A stored layer, by the store's name, to compute from instead of from pixels.
    """

    store: str
    token: str
    identity: str
    network: Spooled
    source: Source
    decode_threads: int
    start: str | None = None

    @property
    def key(self) -> str:
        """Name of the pass among the store's private files."""
        return self.identity[:16]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockLoss:
    """Why a block was not written.

    Parameters
    ----------
    key : str
        Of its pass.
    block : int
        Its number.
    reason : str
        For people.
    error : EmbedkitError, optional
        Our own error, which ends the run when no attempt helps.
    died : bool
        Whether the scheduler blamed the block for the death of workers.
    final : bool
        Whether another attempt in this run is no use.
    """

    key: str
    block: int
    reason: str
    error: EmbedkitError | None = None
    died: bool = False
    final: bool = False

    @classmethod
    def of(
        cls, job: Job, block: int, error: BaseException, *, died: bool = False
    ) -> BlockLoss:
        """Return the loss of a block by an error."""
        said = " ".join(str(error).split())[:300]
        return cls(
            key=job.key,
            block=block,
            reason=f"{type(error).__name__}: {said}",
            error=error if isinstance(error, EmbedkitError) else None,
            died=died,
        )


def attempt_block(job: Job, block: int, number: int = 1) -> BlockReport | BlockLoss:
    """Compute one block; what goes wrong comes back as a value.

    Parameters
    ----------
    job : Job
        The pass.
    block : int
        Which block.
    number : int, default 1
        Which attempt this is.

    Returns
    -------
    BlockReport or BlockLoss
        A loss also where processes have died in this block so often that it is left
        alone.
    """
    try:
        return extract_block(job, block, number=number)
    except _LeftAloneError as error:
        return BlockLoss(key=job.key, block=block, reason=str(error), final=True)
    except Exception as error:  # noqa: BLE001 - a user's transform may raise anything
        return BlockLoss.of(job, block, error)


class _LeftAloneError(Exception):
    """Processes died in this block so often that it is not begun again."""


def extract_block(job: Job, block: int, *, number: int = 1) -> BlockReport:
    """Compute one block of every layer of a pass, write it, commit it.

    Parameters
    ----------
    job : Job
        The pass.
    block : int
        Which block.
    number : int, default 1
        Which attempt this is.

    Returns
    -------
    BlockReport
        A committed block is not computed again.

    Raises
    ------
    NetworkError
        When the network or its transform fails on an image.
    StoreError
        When the store cannot be read or written, or another driver has taken it over.
    """
    files = files_at(job.store)
    one, grid = _layout(job)
    done = read_commit(files, one, grid, block)
    if done is not None:
        return _report(done, skipped=True)
    fallen = deaths_in(files, one, block)
    if len(fallen) >= DEATHS:
        raise _LeftAloneError(
            f"its worker died {len(fallen)} times: {'; '.join(fallen)}"
        )
    with _writing(files, block):
        mark = begin(files, one, block)
    try:
        commit = _compute_and_write(job, block, number + len(fallen))
    finally:
        end(files, mark)
    return _report(commit)


@contextmanager
def _writing(files: Files, block: int) -> Iterator[None]:
    """Say what to do when the store cannot be written."""
    try:
        yield
    except files.failures as error:
        message = (
            f"block {block} cannot be written to {files.url}: {said(error)}: "
            "make room or get permission, then run the same call again"
        )
        raise StoreError(message) from error


def _compute_and_write(job: Job, block: int, number: int) -> Commit:
    given, (one, grid) = opened(job), _layout(job)
    files, rows = given.files, grid.rows(block)
    clock = Clock()
    reset_peak()
    ids = read_text(files, "image", rows=rows)
    computed = compute_block(given, rows, ids, clock=clock)
    _check_lock(files, job)
    values: dict[str, npt.NDArray[Any]] = {CONTENT: computed.content}
    lost: dict[str, float] = {}
    for spec in one.layers:
        name = spec.name
        values[name], error = rounded(
            computed.values.pop(name), spec.dtype, layer=name, ids=ids
        )
        if spec.dtype != "float32":
            lost[name] = error
    with _writing(files, block):
        crc32 = write_block(files, one, grid, block, values)
    clock.lap("write")
    commit = Commit(
        block=block,
        identity=one.identity,
        start=rows.start,
        stop=rows.stop,
        ids=digest(ids),
        failures=computed.failures,
        crc32=crc32,
        seconds=clock.seconds,
        peak_mem=peak(),
        backend=given.taps.backend,
        device=given.taps.device,
        attempt=number,
        rounding=lost,
    )
    with _writing(files, block):
        write_commit(files, one, grid, commit)
    return commit


def _check_lock(files: Files, job: Job) -> None:
    """Write nothing for a driver that is gone: another may have begun, with other images."""
    if holder(files) != job.token:
        message = (
            f"{job.store} is not held by the run that this task belongs to any more: "
            "nothing was written"
        )
        raise StoreError(message)


def _report(commit: Commit, *, skipped: bool = False) -> BlockReport:
    return BlockReport(
        block=commit.block,
        n_images=commit.stop - commit.start,
        n_failed=len(commit.failures),
        seconds=commit.seconds.get("total", 0.0),
        skipped=skipped,
    )


@lru_cache(maxsize=8)
def _layout(job: Job) -> tuple[Pass, BlockGrid]:
    """Read what a job's blocks are, once per process."""
    schema = read_schema(files_at(job.store))
    one = schema.by_identity(job.identity)
    return one, schema.grid(one)


@lru_cache(maxsize=4)
def opened(job: Job) -> Given:
    """Open what a job computes with, once per process."""
    files = files_at(job.store)
    schema = read_schema(files)
    one = schema.by_identity(job.identity)
    network = load_spooled(job.network)
    begin_at = next((spec for spec in schema.layers if spec.name == job.start), None)
    return Given(
        files=files,
        one=one,
        network=network,
        taps=network.taps(
            [spec.tap for spec in one.layers],
            pool=pool_of(one),
            start=None if begin_at is None else begin_at.tap,
        ),
        source=job.source,
        decode_threads=job.decode_threads,
        input_shape=network.input_shape if begin_at is None else begin_at.shape,
        start=job.start,
    )
