"""Groups of images that are one picture, from neighbors within a distance."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from embedkit.analysis.communities import largest_first
from embedkit.analysis.rows import missing

Ids: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Groups of duplicates.

    Attributes
    ----------
    group : ndarray of int64, shape (N,)
        0 is the largest; equally large ones in the order of their first image; -1 for
        images without a duplicate.
    nearest : ndarray of float32, shape (N,)
        Distance to the nearest other member, 0 for an equal number; NaN without one.
    n_saturated : int
        Images whose whole list of neighbors lies within the threshold.
    """

    group: Ids
    nearest: npt.NDArray[np.float32]
    n_saturated: int


def groups_within(
    indices: Ids,
    distances: npt.NDArray[np.float32],
    *,
    threshold: float,
    exact: npt.NDArray[np.uint64] | None = None,
) -> Groups:
    """Join all images that a chain of near neighbors connects.

    Parameters
    ----------
    indices : ndarray of int64, shape (N, K)
        Neighbors, nearest first, -1 for none.
    distances : ndarray of float32, shape (N, K)
        NaN for none.
    threshold : float
        The largest distance of two duplicates, compared in float32.
    exact : ndarray of uint64, shape (N,), optional
        Images of the same number are duplicates at distance 0; 0 stands for none.

    Returns
    -------
    Groups

    References
    ----------
    Pearce (2005), An improved algorithm for finding the strongly connected components of
    a directed graph, for the library's components.
    """
    near = (indices >= 0) & (distances <= np.float32(threshold))  # (N, K)
    rows, others, gaps = np.nonzero(near)[0], indices[near], distances[near]
    if exact is not None:
        one, next_one = _equal_pairs(exact)
        rows, others = np.append(rows, one), np.append(others, next_one)
        gaps = np.append(gaps, np.zeros(len(one), np.float32))
    count = len(indices)
    shape = (count, count)
    links = coo_array((np.ones(len(rows), np.int8), (rows, others)), shape=shape)
    labels = connected_components(links, directed=False)[1].astype(np.int64)
    grouped = np.bincount(labels, minlength=1)[labels] > 1
    nearest = np.full(count, np.inf, np.float32)
    np.minimum.at(nearest, rows, gaps)
    np.minimum.at(nearest, others, gaps)
    return Groups(
        group=largest_first(labels, known=grouped),
        nearest=np.where(np.isinf(nearest), np.float32(np.nan), nearest),
        n_saturated=int(near.all(axis=1).sum()),
    )


def _equal_pairs(exact: npt.NDArray[np.uint64]) -> tuple[Ids, Ids]:
    """Pair every row with the next one of the same number: a chain through each set."""
    known = np.flatnonzero(exact != 0)
    order = known[np.argsort(exact[known], kind="stable")]
    same = exact[order[1:]] == exact[order[:-1]]
    return order[:-1][same], order[1:][same]


def keep_one(group: Ids, *, usable: Mask, prefer: Floats | None = None) -> Mask:
    """Choose one image of every group, and all images without one.

    Parameters
    ----------
    group : ndarray of int64, shape (N,)
        -1 for no group.
    usable : ndarray of bool, shape (N,)
        Images that can be read; they go before others.
    prefer : ndarray, shape (N,), optional
        The largest value in a group is kept; NaN goes last.

    Returns
    -------
    ndarray of bool, shape (N,)
        Of equals the first row is kept, so images that are added later never displace
        one that was kept.
    """
    rows = np.arange(len(group))
    rank = np.zeros(len(group)) if prefer is None else -prefer  # NaN sorts last
    order = np.lexsort((rows, rank, ~usable, group))
    first = np.append(True, np.diff(group[order]) != 0)[: len(order)]
    keep = group < 0
    keep[order[first]] = True
    return keep


def leaking(group: Ids, split: npt.ArrayLike) -> tuple[Mask, list[dict[str, Any]]]:
    """Tell which images have a duplicate in another split.

    Parameters
    ----------
    group : ndarray of int64, shape (N,)
        -1 for no group.
    split : array_like, shape (N,)
        Missing ones (None, NaN, an empty string) are in no split.

    Returns
    -------
    leak : ndarray of bool, shape (N,)
        Images in a split whose group has members in another one.
    pairs : list of dict
        For every pair of splits with such groups: ``splits`` (their names), ``groups``
        and ``images``, how many groups reach both and how many of their images lie there.
    """
    known = (group >= 0) & ~missing(split)
    codes, names = pd.factorize(np.asarray(split, dtype=object)[known], sort=False)
    shape = (int(group.max(initial=-1)) + 1, len(names))
    ones = np.ones(len(codes), np.int64)
    members = csr_array((ones, (group[known], codes)), shape=shape)  # (groups, splits)
    members.sum_duplicates()
    there = members.astype(bool).astype(np.int64)
    several = there.sum(axis=1) > 1
    leak = np.zeros(len(group), bool)
    leak[known] = several[group[known]]
    both = (there.T @ there).toarray()
    within = (members.T @ there).toarray()
    pairs = [
        {
            "splits": [str(names[a]), str(names[b])],
            "groups": int(both[a, b]),
            "images": int(within[a, b] + within[b, a]),
        }
        for a, b in combinations(np.argsort(np.asarray(names, dtype=str)).tolist(), 2)
        if both[a, b]
    ]
    return leak, pairs
