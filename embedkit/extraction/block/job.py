"""What tasks are told, and what they open with it, once per process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from embedkit.extraction.block.batches import Look
from embedkit.extraction.block.compute import Given
from embedkit.extraction.block.table_rows import table_rows
from embedkit.files.files import files_at
from embedkit.images.source import Source
from embedkit.networks.backends import check_backend
from embedkit.networks.spool import Spooled, load_spooled
from embedkit.planning.grid import BlockGrid
from embedkit.store.layout import read_schema
from embedkit.store.schema import Pass, StoreSchema


@dataclass(frozen=True, slots=True)
class Part:
    """One pass of a job.

    Parameters
    ----------
    identity : str
        Of the pass.
    network : Spooled
        Where the network lies.
    start : str, optional
        A stored layer, by the store's name, to compute from instead of from pixels.
    place : str, optional
        Where the store with that layer lies, where it is not the one that is written.
    """

    identity: str
    network: Spooled
    start: str | None = None
    place: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every task of a run needs to know; pickled, less than 1 kB for two passes.

    Parameters
    ----------
    store : str
        Where the store lies.
    token : str
        Of the driver's lock: a task of a driver that has lost it writes nothing.
    parts : tuple of Part
        Passes with the same blocks, for which an image is read once. One that starts
        from a stored layer is alone.
    source : Source
        How pixels are read.
    decode_threads : int
        Threads that read and transform ahead of the networks.
    slots : int, default 0
        Most blocks that one process computes at once, those of other jobs included; a
        task waits for its turn. 0 for as many as there are threads.
    projected_mem : int, default 0
        Bytes that a worker needs at its peak, as planned; 0 where nothing was planned.
    n_workers : int, default 1
        Processes that the blocks are spread over, as far as that is known: it decides
        how the image table is joined, see `embedkit.planning.table_join`.
    """

    store: str
    token: str
    parts: tuple[Part, ...]
    source: Source
    decode_threads: int
    slots: int = 0
    projected_mem: int = 0
    n_workers: int = 1

    @property
    def key(self) -> str:
        """Name of the first pass among the store's private files: it speaks for all."""
        return self.parts[0].identity[:16]


@lru_cache(maxsize=8)
def layout(job: Job) -> tuple[tuple[Pass, BlockGrid], ...]:
    """Return the passes of a job and their blocks."""
    schema = read_schema(files_at(job.store))
    passes = [schema.by_identity(part.identity) for part in job.parts]
    return tuple((one, schema.grid(one)) for one in passes)


@lru_cache(maxsize=4)
def opened(job: Job) -> Given:
    """Return what a job computes with."""
    files = files_at(job.store)
    schema = read_schema(files)
    return Given(
        files=files,
        looks=tuple(_look(schema, part) for part in job.parts),
        source=job.source,
        decode_threads=job.decode_threads,
        table=table_rows(
            files,
            job.token,
            n_images=schema.n_images,
            block=schema.by_identity(job.parts[0].identity).block,
            n_workers=job.n_workers,
        ),
    )


def _look(schema: StoreSchema, part: Part) -> Look:
    one, network = schema.by_identity(part.identity), load_spooled(part.network)
    place = None if part.place is None else files_at(part.place)
    home = schema if place is None else read_schema(place)
    begin_at = next((spec for spec in home.layers if spec.name == part.start), None)
    return Look(
        one=one,
        network=network,
        taps=network.taps(
            [spec.tap for spec in one.layers],
            pool=one.pools,
            backend=check_backend(one.backend),
            start=None if begin_at is None else begin_at.tap,
        ),
        input_shape=network.input_shape if begin_at is None else begin_at.shape,
        start=part.start,
        place=place,
    )
