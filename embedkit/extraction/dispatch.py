"""Blocks as Dask tasks: on a distributed cluster through a window, or in this process."""

from __future__ import annotations

import time
from collections.abc import Generator
from itertools import islice
from typing import Any

from dask.base import compute
from dask.delayed import delayed
from dask.system import CPU_COUNT
from distributed import Client, as_completed, get_client

from embedkit.config import settings
from embedkit.extraction.task import BlockReport, Job, extract_block


def run_blocks(job: Job, blocks: list[int]) -> Generator[BlockReport, None, None]:
    """Compute blocks and yield what each reports, in the order in which they end.

    Parameters
    ----------
    job : Job
        The run.
    blocks : list of int
        Their numbers.

    Yields
    ------
    BlockReport
        One per block. Closing the iterator early cancels what has not started.
    """
    try:
        client = get_client()
    except ValueError:  # no client is active
        return _in_process(job, blocks)
    return _on_cluster(client, job, blocks)


def _in_process(job: Job, blocks: list[int]) -> Generator[BlockReport, None, None]:
    """Run the blocks on Dask's configured scheduler, a window at a time."""
    task = delayed(extract_block, pure=False)
    window = settings().window * CPU_COUNT
    for first in range(0, len(blocks), window):
        tasks = [task(job, block) for block in blocks[first : first + window]]
        yield from compute(*tasks)


def _on_cluster(
    client: Client, job: Job, blocks: list[int]
) -> Generator[BlockReport, None, None]:
    """Keep a bounded window of blocks in flight, as wide as the cluster is now.

    No task asks for resources: that would switch off the scheduler's queueing, and one
    dying worker would then take the whole window with it.
    """
    chosen = settings()
    waiting = iter(blocks)
    run = f"{job.identity[:8]}-{time.time_ns():x}"
    in_flight: set[Any] = set()
    ended = as_completed()

    def fill() -> None:
        """Workers may have joined: look anew how many there are."""
        width = chosen.window * max(1, sum(client.nthreads().values()))
        for block in islice(waiting, max(0, width - len(in_flight))):
            future = client.submit(
                extract_block,
                job,
                block,
                key=f"extract_block-{run}-{block}",
                pure=False,
                retries=chosen.retries,
            )
            in_flight.add(future)
            ended.add(future)

    try:
        fill()
        for future in ended:
            in_flight.discard(future)
            yield future.result()
            fill()
    finally:
        client.cancel(list(in_flight))
