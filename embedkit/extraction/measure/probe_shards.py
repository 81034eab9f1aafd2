"""In the measured process: what it takes to write a block of a store, and to read it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.extraction.block.memory import peak
from embedkit.extraction.block.ticker import Ticker, held
from embedkit.extraction.measure.probe_job import Findings, ProbeJob
from embedkit.extraction.measure.probe_pixels import resident
from embedkit.extraction.measure.scratch import scratch_store
from embedkit.extraction.rounding import rounded
from embedkit.files.files import Files, files_at
from embedkit.planning.grid import power_of_two_below
from embedkit.store.arrays import read, read_text
from embedkit.store.attempts import begin, end
from embedkit.store.blocks import CONTENT, activation, write_block
from embedkit.store.commits import Commit, read_commit, write_commit
from embedkit.store.ids import digest
from embedkit.store.schema import LayerSpec, StoreSchema

_BYTES = 32 * 2**20
"""Bytes of the measured block (chosen: long enough to time, short enough to wait for)."""

_MOST_ROWS = 1024


def measure_shards(
    job: ProbeJob,
    values: Mapping[str, npt.NDArray[np.float32]],
    findings: Findings,
    *,
    idle: float,
) -> None:
    """Write blocks of a real store, read them, and tell what that takes.

    Parameters
    ----------
    job : ProbeJob
        The job.
    values : mapping of str to (n, ...) array of float32
        Rows of every tap, which decide how well shards compress.
    findings : Findings
        Is told ``shards``: uncompressed ``bytes`` of a block, its ``rows``, seconds to
        ``write`` them and to ``read`` them, those of a block besides its rows
        (``block``), those to ``keep`` a byte in new memory, for how many the interpreter
        was ``held``, and the bytes that the process has ``kept``: threads and buffers of
        Zarr.
    idle : float
        See `embedkit.extraction.block.ticker`.
    """
    before = resident()
    row_bytes = sum(spec.row_bytes for spec in job.layers)
    rows = min(power_of_two_below(_BYTES / max(row_bytes, 1)), _MOST_ROWS)
    files = files_at(f"{job.place}/measured.zarr")
    # One row more than a block: the second block has what a block takes besides its rows.
    schema = scratch_store(files, job, n_images=rows + 1, block=rows)
    many = _rows(job.layers, values, rows)
    _block(files, schema, 1, {name: each[:1] for name, each in many.items()})
    alone = _block(files, schema, 1, {name: each[:1] for name, each in many.items()})
    keep = _copied(many)
    with Ticker() as ticker:
        write = _block(files, schema, 0, many)
    began = time.perf_counter()
    for spec in job.layers:
        read(files, activation(spec), rows=slice(0, rows))
    taken = time.perf_counter() - began
    del many
    findings.tell(
        "shards",
        {
            "bytes": rows * row_bytes,
            "rows": rows,
            "block": alone,
            # One that has a row has none to spare: a large row is in both.
            "write": max(write - alone, write / 2 if rows == 1 else write / 10),
            "read": taken,
            "keep": keep,
            "held": held(ticker, idle=idle, seconds=write),
            "kept": max(0, resident() - before),
        },
    )


def _rows(
    layers: Sequence[LayerSpec],
    values: Mapping[str, npt.NDArray[np.float32]],
    rows: int,
) -> dict[str, npt.NDArray[np.float32]]:
    """Repeat the rows of some images, each scaled otherwise.

    A codec would find rows that are there twice. Zeros, of which there are many behind a
    ReLU, stay zeros.
    """
    factors = np.random.default_rng(0).uniform(0.5, 1.0, rows).astype(np.float32)
    many = {}
    for spec in layers:
        given = values[spec.tap]
        chosen = np.nan_to_num(given[np.arange(rows) % len(given)])
        many[spec.name] = chosen * factors.reshape(rows, *(1 for _ in spec.shape))
    return many


def _copied(many: Mapping[str, npt.NDArray[np.float32]]) -> float:
    """Return the seconds that a byte of rows takes to be copied into a new block."""
    began = time.perf_counter()
    for each in many.values():
        np.empty_like(each)[:] = each
    return (time.perf_counter() - began) / sum(each.nbytes for each in many.values())


def _block(
    files: Files,
    schema: StoreSchema,
    block: int,
    values: Mapping[str, npt.NDArray[np.float32]],
) -> float:
    """Return the seconds that a task takes for a block besides computing it."""
    (one,) = schema.passes
    grid = schema.grid(one)
    rows = grid.rows(block)
    began = time.perf_counter()
    read_commit(files, one, grid, block)
    mark = begin(files, one, block)
    ids = read_text(files, "image", rows=rows)
    read_text(files, "uri", rows=rows)
    stored: dict[str, npt.NDArray[Any]] = {CONTENT: np.zeros(len(ids), np.uint64)}
    for spec in one.layers:
        stored[spec.name], _ = rounded(
            values[spec.name], spec.dtype, layer=spec.name, ids=ids
        )
    crc32 = write_block(files, one, grid, block, stored)
    commit = Commit(
        block=block,
        identity=one.identity,
        start=rows.start,
        stop=rows.stop,
        ids=digest(ids),
        failures={},
        crc32=crc32,
        seconds={},
        peak_mem=peak(),
        backend=one.backend,
        device="cpu",
        attempt=1,
    )
    write_commit(files, one, grid, commit)
    end(files, mark)
    return time.perf_counter() - began
