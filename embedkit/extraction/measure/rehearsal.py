"""A process that computes blocks beside others: ``python -m embedkit.extraction.measure.rehearsal``.

What parts of a block take is measured one by one, on a machine that does nothing else. In
a run all its workers want memory, caches and the disk at once, and the threads that read
ahead want the core that the network is on.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from os import getpid
from pathlib import Path
from socket import gethostname

import distributed.nanny
import distributed.worker

from embedkit.extraction.block.job import Job, Part
from embedkit.extraction.block.task import extract_block
from embedkit.extraction.measure.probe_job import Findings, RehearsalJob
from embedkit.extraction.measure.scratch import scratch_store
from embedkit.files.files import files_at
from embedkit.store.lock import locked

# A worker has it too.
_OF_A_WORKER = (distributed.nanny, distributed.worker)

_MOST_ROUNDS = 64
"""Blocks of each thread that are there to be computed; the first of them is no measure."""


def main(folder: Path) -> int:
    """Compute what the job in a folder says. Returns the exit status of the process."""
    job = RehearsalJob.read(folder)
    Findings(folder).tell("rehearsed", _rehearse(job))
    return 0


def _rehearse(job: RehearsalJob) -> tuple[int, float]:
    """Return how many images were computed, and in how many seconds."""
    # Processes of one machine share the place; on others a process may have the same number.
    files = files_at(f"{job.place}/rehearsed-{gethostname()}-{getpid()}.zarr")
    rows = job.threads * job.block
    schema = scratch_store(
        files,
        job,
        n_images=rows * _MOST_ROUNDS,
        block=job.block,
        batch=job.batch,
    )
    with locked(files) as lock, ThreadPoolExecutor(job.threads) as pool:
        run = Job(
            store=files.url,
            token=lock.token,
            parts=(Part(schema.passes[0].identity, job.network),),
            source=job.source,
            decode_threads=job.decode_threads,
        )
        blocks = count()

        def compute_round() -> None:
            mine = [next(blocks) for _ in range(job.threads)]
            list(pool.map(extract_block, [run] * len(mine), mine))

        compute_round()  # which loads the network
        began, taken, rounds = time.perf_counter(), 0.0, 0
        while not rounds or (taken < job.seconds and rounds < _MOST_ROUNDS - 1):
            compute_round()
            rounds += 1
            taken = time.perf_counter() - began
    return rounds * rows, taken


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
