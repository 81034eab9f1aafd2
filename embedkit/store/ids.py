"""Image ids at scale: digests of many, and rows by id without an index in memory.

A pandas index over five million text ids takes seconds and hundreds of MB to build.
Here every id is hashed to 64 bits once, when it enters the store, and the hashes are
kept in order beside their rows: a lookup is a binary search.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt


def digest(ids: Sequence[str]) -> str:
    """Return 16 hexadecimal digits that tell a list of ids from others (BLAKE2b)."""
    text = "\0".join(ids)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def hashes(ids: Iterable[str]) -> npt.NDArray[np.uint64]:
    """Return the 64-bit hash of every id.

    Returns
    -------
    (N,) array of uint64
        BLAKE2b with a digest of 8 bytes, big-endian, of the id in UTF-8.

    References
    ----------
    J.-P. Aumasson et al., "BLAKE2: simpler, smaller, fast as MD5", ACNS 2013; RFC 7693.
    """
    blake = hashlib.blake2b
    texts = (name.encode("utf-8", "surrogatepass") for name in ids)  # asked: any text
    joined = b"".join(blake(text, digest_size=8).digest() for text in texts)
    return np.frombuffer(joined, ">u8").astype(np.uint64)


def sorted_rows(
    ids: Iterable[str],
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Return the hashes of ids in ascending order, and the row of each.

    Returns
    -------
    hash : (N,) array of uint64
        Ascending; equal ones in order of their rows.
    row : (N,) array of int64
        Where the id stands.
    """
    hashed = hashes(ids)
    order = np.argsort(hashed, kind="stable")
    return hashed[order], order.astype(np.int64)


def candidates(
    wanted: Sequence[str],
    hashed: npt.NDArray[np.uint64],
    rows: npt.NDArray[np.int64],
) -> list[npt.NDArray[np.int64]]:
    """Return, for every id wanted, the rows whose ids have its hash.

    Parameters
    ----------
    wanted : sequence of str
        Ids.
    hashed, rows : (N,) arrays
        From `sorted_rows`.

    Returns
    -------
    list of (n,) arrays of int64
        Mostly one row, and none for an unknown id. Two ids of ten million share a hash
        with a probability of 3 in a million, so whoever asks compares the ids too.
    """
    keys = hashes(wanted)
    starts = np.searchsorted(hashed, keys, side="left")
    stops = np.searchsorted(hashed, keys, side="right")
    return [rows[start:stop] for start, stop in zip(starts, stops, strict=True)]
