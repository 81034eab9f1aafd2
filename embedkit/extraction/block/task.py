"""One block through its networks into the store: what a worker does, and its protocol.

A task is given a block number and a specification of about 1 kB. Everything heavy is
reached from there: the manifest and the layout from the store, networks from files beside
it, kept per process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from embedkit.errors import EmbedkitError, StoreError
from embedkit.extraction.block.clock import Clock
from embedkit.extraction.block.compute import Computed, compute_block
from embedkit.extraction.block.guard import Guard, needed
from embedkit.extraction.block.job import Job, layout, opened
from embedkit.extraction.block.memory import Meter, metered
from embedkit.extraction.block.slots import a_slot
from embedkit.extraction.rounding import rounded
from embedkit.files.files import Files, files_at
from embedkit.files.reasons import said
from embedkit.store.attempts import DEATHS, begin, deaths_in, deaths_of_memory, end
from embedkit.store.blocks import CONTENT, write_block
from embedkit.store.commits import Commit, read_commit, write_commit
from embedkit.store.ids import digest
from embedkit.store.lock import holder
from embedkit.store.schema import Pass


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockReport:
    """What a task sends back; well under 1 kB.

    Parameters
    ----------
    block, n_images, n_failed : int
        Its number, rows, and rows that could not be read; each pass counts.
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
        The passes.
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
        with a_slot(job.slots):
            return extract_block(job, block, number=number)
    except _LeftAloneError as error:
        return BlockLoss(key=job.key, block=block, reason=str(error), final=True)
    except Exception as error:  # noqa: BLE001 - a user's transform may raise anything
        return BlockLoss.of(job, block, error)


class _LeftAloneError(Exception):
    """Processes died in this block so often that it is not begun again."""


def extract_block(job: Job, block: int, *, number: int = 1) -> BlockReport:
    """Compute one block of every layer of a job's passes, write it, commit it.

    Parameters
    ----------
    job : Job
        The passes.
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
    files, passes = files_at(job.store), layout(job)
    done = [read_commit(files, one, grid, block) for one, grid in passes]
    if all(done):
        return _report(block, done, skipped=True)
    first = passes[0][0]
    fallen = deaths_in(files, first, block)
    if len(fallen) >= DEATHS:
        raise _LeftAloneError(
            f"its worker died {len(fallen)} times: {'; '.join(fallen)}"
        )
    short = deaths_of_memory(files, first, block) if fallen else 0
    with _writing(files, block):
        mark = begin(files, first, block, memory=needed(job.token))
    try:
        lacking = _without(job, done)
        with metered() as meter:
            guard = Guard(meter, run=job.token, deaths=short)
            commits = _compute_and_write(
                lacking, block, meter=meter, guard=guard, number=number + len(fallen)
            )
            guard.end(projected=job.projected_mem)
    finally:
        end(files, mark)
    return _report(block, commits)


def _without(job: Job, done: Sequence[Commit | None]) -> Job:
    """Return the job without the passes that are committed."""
    parts = zip(job.parts, done, strict=True)
    return replace(job, parts=tuple(part for part, commit in parts if commit is None))


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


def _compute_and_write(
    job: Job, block: int, *, meter: Meter, guard: Guard, number: int
) -> list[Commit]:
    given, passes = opened(job), layout(job)
    rows = passes[0][1].rows(block)
    clock = Clock()
    ids = given.table.read("image", rows)
    computed = compute_block(given, rows, ids, clock=clock, guard=guard)
    _check_lock(given.files, job)
    commits = []
    for look, (one, grid) in zip(given.looks, passes, strict=True):
        values, lost = _as_stored(one, computed, ids)
        with _writing(given.files, block):
            crc32 = write_block(given.files, one, grid, block, values)
        clock.lap("write", one.key)
        meter.look()
        commit = Commit(
            block=block,
            identity=one.identity,
            start=rows.start,
            stop=rows.stop,
            ids=digest(ids),
            failures=computed.failures,
            crc32=crc32,
            seconds=clock.seconds(one.key),
            peak_mem=meter.peak,
            backend=look.taps.backend,
            device=look.taps.device,
            attempt=number,
            rounding=lost,
            halvings=computed.halvings[one.key],
        )
        with _writing(given.files, block):
            write_commit(given.files, one, grid, commit)
        commits.append(commit)
    return commits


def _as_stored(
    one: Pass, computed: Computed, ids: Sequence[str]
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, float]]:
    """Return the arrays of a pass as they are written, and what rounding did to them."""
    values: dict[str, npt.NDArray[Any]] = {CONTENT: computed.content}
    lost: dict[str, float] = {}
    for spec in one.layers:
        name = spec.name
        values[name], error = rounded(
            computed.values.pop(name), spec.dtype, layer=name, ids=ids
        )
        if spec.dtype != "float32":
            lost[name] = error
    return values, lost


def _check_lock(files: Files, job: Job) -> None:
    """Write nothing for a driver that is gone: another may have begun, with other images."""
    if holder(files) != job.token:
        message = (
            f"{job.store} is not held by the run that this task belongs to any more: "
            "nothing was written"
        )
        raise StoreError(message)


def _report(
    block: int, commits: Sequence[Commit | None], *, skipped: bool = False
) -> BlockReport:
    done = [each for each in commits if each is not None]
    return BlockReport(
        block=block,
        n_images=sum(each.stop - each.start for each in done),
        n_failed=sum(len(each.failures) for each in done),
        seconds=sum(each.seconds.get("total", 0.0) for each in done),
        skipped=skipped,
    )
