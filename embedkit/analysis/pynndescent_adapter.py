"""The one file that calls pynndescent: points in memory to a graph of near neighbors.

Importing it compiles for seconds, so this file is imported inside of tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numba
import numpy as np
import pynndescent
from pynndescent import NNDescent

from embedkit.analysis.faiss_adapter import Float32s
from embedkit.analysis.merge import Ids
from embedkit.analysis.numba_lock import one_at_a_time

try:  # not public: where they are missing, the class does it
    from pynndescent.distances import squared_euclidean
    from pynndescent.hybrid_forest import make_hybrid_leaf_array
    from pynndescent.kernels import generate_graph_update_array_batched as compare
    from pynndescent.utils import (
        apply_sorted_graph_update_array,
        build_candidates_owner,
        checked_flagged_heap_push,
        deheap_sort,
        make_heap,
        sort_updates_by_block,
        tau_rand_int,
    )
except ImportError:  # pragma: no cover
    _HAS_PIECES = False
else:
    _HAS_PIECES = True

_Rounds: TypeAlias = Callable[..., tuple[Any, Any]]

_TREES = 8  # 2 to 5 take as long: what trees miss, more rounds have to find (measured)
_DELTA = 0.001  # share of the neighbors that still change when it is over
_BLOCK = 16_384  # points whose updates are kept together


def descend(
    points: Float32s, *, width: int, seed: int, threads: int
) -> tuple[Ids, Float32s]:
    """Find near neighbors of every point by neighbors of neighbors.

    The first call on a machine compiles for half a minute; what it compiled is kept on
    disk by Numba, for this version of pynndescent.

    Parameters
    ----------
    points : ndarray of float32, shape (N, F)
        More than `width` of them, no two equal.
    width : int
        Neighbors per point. More of them cost more and find more of the nearest.
    seed : int
        Of the trees that it starts from. The same seed gives the same graph on the same
        number of threads.
    threads : int
        To work with.

    Returns
    -------
    indices : ndarray of int64, shape (N, width)
        Nearest first, the point itself not among them, -1 for none.
    distances : ndarray of float32, shape (N, width)
        Euclidean, infinite for none.

    References
    ----------
    Dong, Moses, Li (2011), Efficient k-nearest neighbor graph construction for generic
    similarity measures.
    """
    grow = _by_pieces if _HAS_PIECES else _by_class
    with one_at_a_time:
        before = numba.get_num_threads()
        try:
            numba.set_num_threads(min(threads, before))
            # the point itself is one of its neighbors
            indices, distances = grow(np.ascontiguousarray(points), width + 1, seed)
        finally:
            numba.set_num_threads(before)
    return _without_itself(indices.astype(np.int64), distances.astype(np.float32))


def _by_class(points: Float32s, width: int, seed: int) -> tuple[Any, Any]:
    """Grow a graph as the library offers it, which compiles anew in every process."""
    made = NNDescent(
        points,
        metric="euclidean",
        n_neighbors=width,
        random_state=seed,
        compressed=True,  # keeps no trees
    )
    indices, distances = made.neighbor_graph
    return indices, distances


def _by_pieces(points: Float32s, width: int, seed: int) -> tuple[Any, Any]:
    """Grow a graph by its parts, compiled for one distance, hence kept on disk."""
    threads = numba.get_num_threads()
    rng = np.random.default_rng(seed)
    leaf = max(60, min(256, 5 * width))
    leaves = make_hybrid_leaf_array(points, _TREES, leaf, int(rng.integers(2**62)))
    state = rng.integers(-(2**31) + 1, 2**31 - 1, 3)
    rounds = max(5, round(np.log2(len(points))))
    indices, squared = _rounds(points, width, state, leaves, rounds, threads)
    return indices, np.sqrt(squared)


@numba.njit
def _join(
    points: Any, graph: Any, fresh: Any, old: Any, updates: Any, threads: int
) -> int:
    """Compare all fresh ones of each row, and them with the old ones."""
    filled = np.zeros(threads, np.int32)
    offsets = np.zeros((threads, threads + 1), np.int64)
    compare(updates[0], filled, fresh, old, graph, points, 1, threads)
    sort_updates_by_block(updates[0], filled, updates[1], offsets, len(points), threads)
    return int(apply_sorted_graph_update_array(graph, updates[1], offsets, threads))


@numba.njit
def _fill(points: Any, graph: Any, state: Any) -> None:
    """Give points whose leaves were small someone at random."""
    for point in range(len(points)):
        for _ in range(np.sum(graph[0][point] < 0)):
            other = abs(tau_rand_int(state)) % len(points)
            if other != point:
                squared = squared_euclidean(points[point], points[other])
                checked_flagged_heap_push(
                    graph[1][point], graph[0][point], graph[2][point],
                    squared, other, np.uint8(1),
                )  # fmt: skip


@numba.njit
def _room(rows: int, fresh: int, old: int, threads: int) -> Any:
    """Return room for what joins find, as it is found and by who gets it."""
    most = (rows // threads + 1) * (fresh * (fresh - 1) // 2 + fresh * old)
    return (
        np.empty((threads, most, 3), np.float32),
        np.empty((threads, 2 * most, 3), np.float32),
    )


def _compiled(version: str) -> _Rounds:
    """Return the rounds of descent. Numba forgets them where the version is another.

    No function is passed on to another one, and none is closed over: Numba would not keep
    it on disk, or not find it again.
    """

    @numba.njit(cache=True)
    def rounds(
        points: Any, width: int, state: Any, leaves: Any, most: int, threads: int
    ) -> Any:
        if len(version) == 0:  # what is closed over is part of the key on disk
            raise ValueError
        count, wide = points.shape[0], min(60, width)
        graph = make_heap(count, width)
        block = 64 * threads
        updates = _room(block, leaves.shape[1], 0, threads)
        nobody = np.full((block, 1), -1, np.int32)
        for start in range(0, len(leaves), block):
            some = leaves[start : start + block]
            _join(points, graph, some, nobody[: len(some)], updates, threads)
        _fill(points, graph, state)
        fresh = np.full((count, wide), -1, np.int32)
        fresh_order = np.full((count, wide), np.inf, np.float32)
        old, old_order = fresh.copy(), fresh_order.copy()
        active = np.ones(count, np.uint8)
        edges = np.empty(count * width, np.int32), np.empty(count * width, np.int32)
        bounds = np.zeros((threads, threads + 1), np.int64)
        updates = _room(_BLOCK, wide, wide, threads)
        for _ in range(most):
            build_candidates_owner(
                graph, wide, state, threads, fresh, fresh_order, old, old_order,
                active, edges[0], edges[1], bounds,
            )  # fmt: skip
            changed = 0
            for start in range(0, count, _BLOCK):
                changed += _join(
                    points, graph, fresh[start : start + _BLOCK],
                    old[start : start + _BLOCK], updates, threads,
                )  # fmt: skip
            if changed <= _DELTA * width * count:
                break
        return deheap_sort(graph[0], graph[1])

    made: _Rounds = rounds
    return made


_rounds = _compiled(pynndescent.__version__)


def _without_itself(indices: Ids, distances: Float32s) -> tuple[Ids, Float32s]:
    """Drop the point from its list; where it is not there, the last one."""
    distances = np.where(indices < 0, np.inf, distances)
    itself = indices == np.arange(len(indices))[:, None]
    order = np.argsort(itself, axis=1, kind="stable")[:, :-1]
    return (
        np.take_along_axis(indices, order, axis=1),
        np.take_along_axis(distances, order, axis=1),
    )
