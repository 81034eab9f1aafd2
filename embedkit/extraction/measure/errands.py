"""What processes that measure are sent: a job, the network, a few images, and a place."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from embedkit.extraction.asked import Asked
from embedkit.extraction.backend import backend_for
from embedkit.extraction.measure.machines import Machine, at_once, on_worker
from embedkit.extraction.measure.probe_job import ProbeJob, RehearsalJob, Tried
from embedkit.extraction.measure.probing import Errand
from embedkit.extraction.measure.sampling import sample_of
from embedkit.files.files import Files, files_at
from embedkit.networks.backends import Backend
from embedkit.planning.costs import Layout
from embedkit.planning.memory import TARGET
from embedkit.store.lock import process_name
from embedkit.store.schema import LayerSpec

_BATCHES: Final = (1, 2, 8, 32, 128)
"""Images of a pass: two for the line of memory, then far enough apart to make a difference
before the time is over (chosen)."""


def backend_of(asked: Asked) -> Backend:
    """Return what executes a network."""
    pools = {tap: asked.pools[tap] for tap in asked.layers}
    return backend_for(
        asked.network,
        asked.images,
        asked.backend,
        pools=pools,
        batch_size=asked.batch_size,
    ).backend


def probe_errand(
    asked: Asked,
    specs: Sequence[LayerSpec],
    machine: Machine,
    folder: str,
    *,
    place: str,
    seconds: float,
) -> Errand:
    """Return what a process is to do that measures part by part.

    Parameters
    ----------
    asked, specs
        The network, and its layers as they are to be stored.
    machine : Machine
        Where.
    folder : str
        For the network's file, as long as the process runs.
    place : str
        For blocks; see `place_for`.
    seconds : float
        That it has.
    """
    # More than tasks have would be no promise.
    most = min(machine.cores, machine.inside)
    counts = {1, most, *(2**at for at in range(most.bit_length()))}
    job = ProbeJob(
        **_tried(asked, specs, folder, place=place, seconds=seconds),
        batches=_BATCHES,
        threads=tuple(sorted(each for each in counts if each <= most)),
        memory=int(TARGET * machine.limit),
    )
    file = Path(folder) / job.network.name
    seen = on_worker(machine.address, os.path.isfile, str(file))
    return _errand(job, file, seen=seen, name=asked.network.name)


def rehearsal_errand(
    asked: Asked,
    specs: Sequence[LayerSpec],
    machine: Machine,
    folder: str,
    *,
    layout: Layout,
    memory: int,
    place: str,
    seconds: float,
) -> Errand:
    """Return what each process is to do that computes blocks beside the others.

    Parameters
    ----------
    layout : Layout
        How.
    memory : int
        Bytes that all of them need.
    asked, specs, machine, folder, place, seconds
        As for `probe_errand`.
    """
    job = RehearsalJob(
        **_tried(asked, specs, folder, place=place, seconds=seconds),
        batch=layout.batch,
        block=layout.block,
        threads=layout.threads,
        decode_threads=layout.decode_threads,
        inside=machine.inside,
        memory=memory,
    )
    file = Path(folder) / job.network.name
    seen = all(at_once(machine.beside, os.path.isfile, str(file)))
    return _errand(job, file, seen=seen, name=asked.network.name)


def _tried(
    asked: Asked,
    specs: Sequence[LayerSpec],
    folder: str,
    *,
    place: str,
    seconds: float,
) -> dict[str, Any]:
    source, uris = sample_of(asked.images, decode=asked.decode)
    return {
        "network": asked.network.spool(files_at(folder)),
        "layers": tuple(specs),
        "backend": backend_of(asked),
        "source": source,
        "uris": uris,
        "place": place,
        "seconds": seconds,
    }


def _errand(job: Tried, file: Path, *, seen: bool, name: str) -> Errand:
    return Errand(
        job=job.pickled(),
        file=str(file),
        network=b"" if seen else file.read_bytes(),
        name=name,
        seconds=job.seconds,
    )


@contextmanager
def place_for(where: Files | None) -> Iterator[str]:
    """Yield a place for blocks, beside that of the store, and delete it.

    On a file system its name is that of a store's beginning: should this process be
    killed, the next one that makes the store deletes it.

    Parameters
    ----------
    where : Files, optional
        The store. Empty, for the process's own folder, where it is not known, or is this
        process's memory.
    """
    if where is None or not where.shared:
        yield ""
        return
    own = f"{uuid4().hex}.{process_name()}.partial"
    if "://" in where.url:
        place = f"{where.url}.{own}"
    else:
        path = Path(where.url)
        there = next(each for each in path.parents if each.exists())
        place = str(there / f".{path.name}.{own}")
    try:
        yield place
    finally:
        files_at(place).delete_tree("")
