"""A process that computes blocks beside others: ``python -m embedkit.extraction.measure.rehearsal``.

What parts of a block take is measured one by one, on a machine that does nothing else. In
a run all its workers want memory, caches and the disk at once, and the threads that read
ahead want the core that the network is on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from os import getpid
from pathlib import Path
from socket import gethostname

import psutil

from embedkit.extraction.block.job import Job, Part
from embedkit.extraction.block.task import extract_block
from embedkit.extraction.measure.probe_job import Findings, RehearsalJob
from embedkit.extraction.measure.scratch import scratch_store
from embedkit.files.files import files_at
from embedkit.networks.machine import use_threads
from embedkit.store.lock import locked

_MOST = 64
"""Blocks of each thread that are there to be computed; the first of them is no measure."""


def main(folder: Path) -> int:
    """Compute what the job in a folder says. Returns the exit status of the process."""
    job = RehearsalJob.read(folder)
    if job.memory > psutil.virtual_memory().available:
        return 1
    findings = Findings(folder)
    for told in _rehearse(job):
        findings.tell("rehearsed", told)
    return 0


def _rehearse(job: RehearsalJob) -> list[tuple[int, float]]:
    """Return how many images each thread has computed, and in how many seconds."""
    # Processes of one machine share the place; on others a process may have the same number.
    files = files_at(f"{job.place}/rehearsed-{gethostname()}-{getpid()}.zarr")
    n_images = job.threads * _MOST * job.block
    schema = scratch_store(
        files, job, n_images=n_images, block=job.block, batch=job.batch
    )
    with (
        locked(files) as lock,
        ThreadPoolExecutor(
            job.threads, initializer=use_threads, initargs=(job.inside,)
        ) as pool,
    ):
        run = Job(
            store=files.url,
            token=lock.token,
            parts=(Part(schema.passes[0].identity, job.network),),
            source=job.source,
            decode_threads=job.decode_threads,
        )
        blocks = count()
        threads = [
            pool.submit(_compute, run, blocks, job.seconds) for _ in range(job.threads)
        ]
        told = [each.result() for each in threads]
    return [(job.block * done, taken) for done, taken in told]


def _compute(run: Job, blocks: Iterator[int], seconds: float) -> tuple[int, float]:
    """Compute blocks until the time is over; return how many, and the time, but the first."""
    extract_block(run, next(blocks))  # which loads the network
    began, taken, done = time.perf_counter(), 0.0, 0
    while not done or (taken < seconds and done < _MOST - 1):
        extract_block(run, next(blocks))
        done += 1
        taken = time.perf_counter() - began
    return done, taken


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
