"""In the measured process: what each codec makes of rows that the network gave."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from embedkit.extraction.measure.probe_job import Findings, ProbeJob
from embedkit.files.files import files_at
from embedkit.planning.codecs import Codec, WriteRate, suggest_float16
from embedkit.planning.grid import chunk_rows, power_of_two_below
from embedkit.store.codec_trials import float16_error, try_codecs, zero_share
from embedkit.store.schema import LayerSpec

_BYTES: Final = 2 * 2**20
"""Of a layer's rows that are written with each codec (chosen: some 0.2 s for all)."""

_SHARE: Final = 0.3
"""Of the time for everything that codecs may take, but for the largest layer (chosen)."""

_SMALL: Final = 0.01
"""The share of a row from which a layer is worth the time (chosen)."""

_TINY: Final = 128
"""Bytes of a row below which no layer is: its files are mostly something else (chosen)."""


def measure_codecs(
    job: ProbeJob,
    values: Mapping[str, npt.NDArray[np.float32]],
    findings: Findings,
    *,
    tolerance: float,
) -> None:
    """Write some rows of every layer with every codec, the largest layers first.

    Parameters
    ----------
    job : ProbeJob
        The job.
    values : mapping of str to (n, ...) array of float32
        Rows of every tap, of as many images as there are.
    findings : Findings
        Is told ``codec`` for every layer: its name, its share of zeros, by codec the
        bytes a second and the bytes left, none where there was no time or it is too
        small to matter, and what float16 would cost.
    tolerance : float
        Of the backend, see `embedkit.planning.codecs.suggest_float16`.
    """
    until = time.perf_counter() + _SHARE * job.seconds
    least = max(_TINY, _SMALL * sum(spec.row_bytes for spec in job.layers))
    for at, spec in enumerate(sorted(job.layers, key=lambda each: -each.row_bytes)):
        rows = _some(spec, values[spec.tap])
        late = at > 0 and time.perf_counter() > until
        tried = {} if late or spec.row_bytes < least else _tried(job, spec, rows)
        rates = {name: [each.rate, each.ratio] for name, each in tried.items()}
        hint = _float16(spec, rows, tolerance)
        findings.tell("codec", [spec.name, zero_share(rows), rates, hint])


def _some(spec: LayerSpec, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return no more rows than are written."""
    return np.nan_to_num(values[: max(1, _BYTES // max(1, spec.row_bytes))])


def _tried(
    job: ProbeJob, spec: LayerSpec, rows: npt.NDArray[np.float32]
) -> dict[Codec, WriteRate]:
    many = _many(spec, rows)
    chunk = chunk_rows(len(many), spec.row_bytes)
    return try_codecs(files_at(f"{job.place}/tried"), many, chunk=chunk)


def _float16(spec: LayerSpec, rows: npt.NDArray[np.float32], tolerance: float) -> str:
    if spec.dtype != "float32":
        return ""
    return suggest_float16(float16_error(rows), tolerance=tolerance)


def _many(spec: LayerSpec, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.generic]:
    """Return enough rows to time, as they are stored: those given, each scaled otherwise.

    A codec would find rows that are there twice. Zeros stay zeros.
    """
    count = power_of_two_below(max(1, _BYTES // max(1, spec.row_bytes)))
    factors = np.random.default_rng(0).uniform(0.5, 1.0, count).astype(np.float32)
    factors[: len(rows)] = 1.0
    scaled = rows[np.arange(count) % len(rows)]
    scaled *= factors.reshape(count, *(1 for _ in spec.shape))
    return np.ascontiguousarray(scaled, dtype=spec.dtype)
