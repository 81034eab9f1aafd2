"""Random projections: few numbers for many, which keep distances on the whole."""

from __future__ import annotations

from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from embedkit.errors import InputError
from embedkit.networks.pools import Pool, Projection

LARGEST = 2**30
"""Bytes of the largest matrix that is made."""

_FLOAT32 = 4  # bytes
_ROWS = 4096  # drawn at once: what is drawn next to the matrix itself stays small

_matrices: WeakValueDictionary[tuple[Projection, int, str], Tensor] = (
    WeakValueDictionary()
)


def check_size(size: int, projection: Projection, *, pool: Pool, layer: str) -> None:
    """Refuse a projection whose matrix would not leave room for anything else.

    Raises
    ------
    InputError
        When it has more than `LARGEST` bytes.
    """
    needed = size * projection.k * _FLOAT32
    if needed > LARGEST:
        most = LARGEST // (size * _FLOAT32)
        way = (
            f"take k up to {most}, or pool otherwise"
            if most
            else "pool it otherwise, it is too large for any k"
        )
        message = (
            f"pool {pool!r} of {layer} needs a matrix of {needed / 2**30:.1f} GiB "
            f"({size} × {projection.k} float32) where 1 GiB is allowed: {way}"
        )
        raise InputError(message)


def matrix(projection: Projection, size: int, *, device: torch.device) -> Tensor:
    """Return the matrix of a projection.

    It is made once and shared for as long as anybody holds it.

    Parameters
    ----------
    projection : Projection
        What to make.
    size : int
        Numbers that come in.
    device : torch.device
        Where it is needed.

    Returns
    -------
    Tensor
        Float32, shape (size, k), with independent entries N(0, 1/k). Two projections
        of one seed, size and k have the same entries on every machine and device.
    """
    key = (projection, size, str(device))
    found = _matrices.get(key)
    if found is None:
        found = _drawn(projection, size).to(device)
        _matrices[key] = found
    return found


def _drawn(projection: Projection, size: int) -> Tensor:
    # A counter-based generator: its bits are the same on every machine.
    seeds = np.random.SeedSequence([projection.seed, size, projection.k])
    rng = np.random.Generator(np.random.Philox(seeds))
    entries = np.empty((size, projection.k), np.float32)
    scale = np.float32(1 / np.sqrt(projection.k))
    for start in range(0, size, _ROWS):
        rows = entries[start : start + _ROWS]
        rng.standard_normal(dtype=np.float32, out=rows)
        rows *= scale
    return torch.from_numpy(entries)


def project(vectors: Tensor, projection: Projection) -> Tensor:
    """Return vectors in fewer dimensions.

    The squared length of the result is, on average, that of the vector, and for n
    vectors all distances are kept within a factor 1 ± ε with high probability where k
    is at least 4 ln(n) / (ε²/2 - ε³/3).

    Parameters
    ----------
    vectors : Tensor
        Float32, shape (B, size).
    projection : Projection
        To how many, and by which matrix.

    Returns
    -------
    Tensor
        Float32, shape (B, k).

    References
    ----------
    S. Dasgupta and A. Gupta, "An Elementary Proof of a Theorem of Johnson and
    Lindenstrauss", Random Structures & Algorithms 22(1), 2003, theorem 2.1.
    """
    return vectors @ matrix(projection, vectors.shape[1], device=vectors.device)
