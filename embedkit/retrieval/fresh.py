"""Whether an index holds the rows that a layer has now.

A store says by one word whether any number of a layer has changed. Where that word is
another one than when the index was built, the rows themselves are compared: a store that
has grown gives another word for old rows that are the same.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import compute
from dask.delayed import delayed

from embedkit.analysis.index.contents import Contents
from embedkit.analysis.rows import usable_rows


def changed_rows(held: Contents, x: xr.DataArray) -> npt.NDArray[np.int64]:
    """Return the rows of a layer that an index holds with other numbers.

    Every chunk is digested in a Dask task, and only those that differ are looked at row
    by row.

    Parameters
    ----------
    held : Contents
        Of the same images in the same order.
    x : DataArray, dims (image, feature), Dask-backed
        The layer.

    Returns
    -------
    ndarray of int64
        Ascending. Images that were removed from the index do not count.
    """
    edges = [0, *np.cumsum(x.chunksizes["image"]).tolist()]
    whole_rows = x.data.rechunk({1: -1})
    blocks = whole_rows.to_delayed().ravel()
    found = compute(*[delayed(_digest)(block) for block in blocks])
    changed = [np.empty(0, np.int64)]
    for (start, stop), now in zip(pairwise(edges), found, strict=True):
        then = held.rows.take(np.arange(start, stop)).astype(x.dtype)
        if _digest(then) != now:
            changed.append(start + _differing(then, x[start:stop].values))
    rows = np.concatenate(changed)
    there = held.alive[rows] | ~usable_rows(held.rows.take(rows))
    return rows[there]


def _digest(rows: npt.NDArray[Any]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(rows).data, digest_size=16).digest()


def _differing(then: npt.NDArray[Any], now: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    same = (then == now) | (np.isnan(then) & np.isnan(now))  # (n, F)
    return np.flatnonzero(~same.all(axis=1))
