"""What compressing rows of a layer takes, measured where a store will be."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from embedkit.files.files import Files
from embedkit.planning.codecs import CODECS, Codec, WriteRate
from embedkit.store import arrays

_REPEATS = 3


def zero_share(values: npt.NDArray[Any]) -> float:
    """Return the share of zeros among numbers, 0 where there are none."""
    return float(np.mean(values == 0)) if values.size else 0.0


def try_codecs(
    files: Files,
    values: npt.NDArray[Any],
    *,
    chunk: int,
    codecs: Sequence[Codec] = CODECS,
) -> dict[Codec, WriteRate]:
    """Write rows with each codec, and delete them.

    Parameters
    ----------
    files : Files
        A place like the one that the store will have.
    values : (n, ...) array
        Rows of a layer as they will be stored; some MB of them.
    chunk : int
        Rows of a chunk, a divisor of n.
    codecs : sequence of str
        Which to try.

    Returns
    -------
    dict of str to WriteRate
        The fastest of three times, codecs in turn.
    """
    folder = f"tried-{uuid4().hex}"
    seconds: dict[Codec, list[float]] = {each: [] for each in codecs}
    ratios: dict[Codec, float] = {}
    arrays.make_group(files, folder)
    try:
        for _ in range(_REPEATS):
            for codec in codecs:
                name = f"{folder}/{codec}"
                seconds[codec].append(_write(files, name, values, chunk, codec))
                written = files.nbytes(name) - len(files.read(f"{name}/zarr.json"))
                ratios[codec] = written / max(1, values.nbytes)
                files.delete_tree(name)
    finally:
        files.delete_tree(folder)
    return {
        each: WriteRate(rate=values.nbytes / min(seconds[each]), ratio=ratios[each])
        for each in codecs
    }


def _write(
    files: Files, name: str, values: npt.NDArray[Any], chunk: int, codec: Codec
) -> float:
    """Return the seconds of one whole shard, on disk."""
    arrays.make(
        files,
        name,
        shape=values.shape,
        chunks=(chunk, *values.shape[1:]),
        shards=values.shape,
        dtype=values.dtype,
        fill=float("nan"),
        codec=codec,
    )
    began = time.perf_counter()
    arrays.write(files, name, values)
    return time.perf_counter() - began


def float16_error(values: npt.NDArray[np.float32]) -> float:
    """Return what rounding to float16 changes, relative to a row's largest magnitude.

    Parameters
    ----------
    values : (n, ...) array of float32
        Rows; those that are not finite do not count.

    Returns
    -------
    float
        The largest difference of any row; infinite where a number is beyond 65,504.
    """
    flat = values.reshape(len(values), math.prod(values.shape[1:]))
    flat = flat[np.isfinite(flat).all(axis=1)]
    largest = np.abs(flat).max(axis=1, initial=0.0)
    if (largest > float(np.finfo(np.float16).max)).any():
        return float("inf")
    gaps = np.abs(flat - flat.astype(np.float16).astype(np.float32))
    worst = gaps.max(axis=1, initial=0.0)[largest > 0] / largest[largest > 0]
    return float(worst.max(initial=0.0))
