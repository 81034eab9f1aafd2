"""Blocks as Dask tasks: on a distributed cluster through a window, or in this process."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from dask.base import compute
from dask.delayed import delayed
from dask.system import CPU_COUNT
from distributed import Client, KilledWorker

from embedkit.config import settings
from embedkit.errors import IncompleteStore
from embedkit.extraction.block.job import Job
from embedkit.extraction.block.task import BlockLoss, BlockReport, attempt_block
from embedkit.store.attempts import DEATHS
from embedkit.tasks import CUT_OFF, cancelled_at_the_end, draw, ended, place_given_up
from embedkit.workers import active_client

Outcome: TypeAlias = BlockReport | BlockLoss

_MOST_KILLS = 3 * DEATHS
"""Times a block is sent again after the scheduler blamed it for deaths. Being only near
a block that kills is no fault, but there has to be an end (chosen)."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One block, and how often it has been tried."""

    job: Job
    block: int
    attempt: int = 1

    def again(self) -> Turn:
        """Return the next attempt."""
        return Turn(self.job, self.block, self.attempt + 1)


def run_blocks(
    turns: Iterable[Turn], *, window: int | None = None, slots: int | None = None
) -> Generator[Outcome, None, None]:
    """Compute blocks and yield what became of each, in the order in which they end.

    Parameters
    ----------
    turns : iterable of Turn
        Consumed as workers become free.
    window : int, optional
        Blocks in flight on the whole cluster. By default what is set for a thread
        (``embedkit.window``), for all threads that there are at the time.
    slots : int, optional
        Threads that compute blocks in this process, where there is no client. By
        default those that Dask takes. Workers of a cluster look at `Job.slots`.

    Yields
    ------
    BlockReport or BlockLoss
        One per block: written, or given up after so many deaths or errors. Closing the
        iterator early cancels what has not started. Inside a Dask task, that task gives
        up its place on the worker until the last block is out.

    Raises
    ------
    EmbedkitError
        What a task raised that no further attempt can mend.
    IncompleteStore
        When the scheduler is gone.
    """
    client = active_client()
    if client is None:
        return _in_process(iter(turns), window, slots)
    return _on_cluster(client, iter(turns), window)


def _in_process(
    turns: Iterator[Turn], window: int | None, slots: int | None
) -> Generator[Outcome, None, None]:
    """Run the blocks on Dask's configured scheduler, a window at a time."""
    task = delayed(attempt_block, pure=False)
    width = window or settings().window * (slots or CPU_COUNT)
    threads = {} if slots is None else {"num_workers": slots}
    again: deque[Turn] = deque()
    while batch := draw(again, turns, width):
        outcomes = compute(*[task(*_arguments(turn)) for turn in batch], **threads)
        for turn, outcome in zip(batch, outcomes, strict=True):
            if _failed(outcome, turn):
                again.append(turn.again())
            else:
                yield outcome


def _on_cluster(
    client: Client, turns: Iterator[Turn], window: int | None
) -> Generator[Outcome, None, None]:
    """Keep a bounded window of blocks in flight, by default as wide as the cluster is.

    No task asks for resources: that would switch off the scheduler's queueing, and one
    dying worker would then take the whole window with it.
    """
    run = f"{time.time_ns():x}"
    in_flight: dict[Any, Turn] = {}
    again: deque[Turn] = deque()

    def fill() -> None:
        """Workers may have joined: look anew how many there are."""
        threads = max(1, sum(client.nthreads().values()))
        width = window or settings().window * threads
        for turn in draw(again, turns, width - len(in_flight)):
            in_flight[_submit(client, turn, run)] = turn

    with place_given_up(), cancelled_at_the_end(client, in_flight):
        try:
            fill()
            while in_flight:
                for future in ended(client, list(in_flight)):
                    turn = in_flight.pop(future)
                    outcome = _outcome(future, turn)
                    if _failed(outcome, turn):
                        again.append(turn.again())
                    else:
                        yield outcome
                    fill()
        except CUT_OFF as error:
            raise _gone(in_flight) from error


def _submit(client: Client, turn: Turn, run: str) -> Any:
    key = f"extract_block-{run}-{turn.job.key}-{turn.block}-{turn.attempt}"
    return client.submit(attempt_block, *_arguments(turn), key=key, pure=False)


def _arguments(turn: Turn) -> tuple[Job, int, int]:
    return turn.job, turn.block, turn.attempt


def _outcome(future: Any, turn: Turn) -> Outcome:
    try:
        outcome: Outcome = future.result()
    except KilledWorker as error:
        return BlockLoss.of(turn.job, turn.block, error, died=True)
    return outcome


def _gone(in_flight: Mapping[Any, Turn]) -> IncompleteStore:
    stores = {turn.job.store for turn in in_flight.values()}
    return IncompleteStore(
        f"the Dask scheduler is gone, and {' '.join(stores) or 'the store'} is not "
        "complete: connect to a cluster and run the same call again to go on"
    )


def _failed(outcome: Outcome, turn: Turn) -> bool:
    """Whether another attempt is due. Raises what no attempt can mend."""
    if isinstance(outcome, BlockReport) or outcome.final:
        return False
    limit = _MOST_KILLS if outcome.died else 1 + settings().retries
    if turn.attempt < limit:
        return True
    if outcome.error is not None:
        raise outcome.error
    return False
