"""FAISS behind a few functions: distances are squared Euclidean, ids are ours."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import faiss
import numpy as np
import numpy.typing as npt

from embedkit.analysis.merge import Ids

Float32s: TypeAlias = npt.NDArray[np.float32]
FaissIndex: TypeAlias = Any

_ROUNDS = 10  # of k-means
_CODE_ROUNDS = 6  # the same for parts of product codes
_CONSTRUCTION = 128  # breadth of the search that places a row in a graph
_LINKS = 32  # a node on the bottom level has twice as many


@contextmanager
def _beside_torch() -> Iterator[None]:
    """Compute on one thread on macOS once torch is loaded.

    There FAISS and torch each bring an OpenMP of their own, and a parallel part of the
    one crashes or waits forever once the other has threads. The number of threads is kept
    by each thread that asks, so every call sets it.
    """
    before = faiss.omp_get_max_threads()
    if _clashes():
        faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        if before != faiss.omp_get_max_threads():
            faiss.omp_set_num_threads(before)


def _clashes() -> bool:
    return sys.platform == "darwin" and "torch" in sys.modules


@_beside_torch()
def nearest_centroid(points: Float32s, centroids: Float32s) -> tuple[Ids, Float32s]:
    """Return the number of the nearest centroid of each point, and the squared distance.

    Parameters
    ----------
    points : ndarray of float32, shape (n, F)
    centroids : ndarray of float32, shape (L, F)

    Returns
    -------
    numbers : ndarray of int64, shape (n,)
    squared : ndarray of float32, shape (n,)
        By expansion in float32; `float32_bounds` says how far off it can be.
    """
    squared, numbers = faiss.knn(points, centroids, 1)
    return numbers[:, 0], squared[:, 0]


@_beside_torch()
def nearest(points: Float32s, rows: Float32s, *, k: int) -> tuple[Float32s, Ids]:
    """Return squared distances and places of the `k` nearest rows, shape (n, k).

    Parameters
    ----------
    points : ndarray of float32, shape (n, F)
    rows : ndarray of float32, shape (N, F)
    k : int
        At most N.
    """
    squared, places = faiss.knn(points, rows, k)
    return squared, places


@_beside_torch()
def graph_index(features: int, *, sample: Float32s | None = None) -> FaissIndex:
    """Make an empty navigable graph whose rows are added with our ids.

    Parameters
    ----------
    features : int
    sample : ndarray of float32, shape (n, features), optional
        Rows from all over: then the graph holds a byte for each feature, between the
        least and the largest of these.

    References
    ----------
    Malkov, Yashunin (2018), Efficient and robust approximate nearest neighbor search
    using hierarchical navigable small world graphs.
    """
    if sample is None:
        graph: FaissIndex = faiss.IndexHNSWFlat(features, _LINKS)
    else:
        code: Any = faiss.ScalarQuantizer.QT_8bit
        graph = faiss.IndexHNSWSQ(features, code, _LINKS)
        graph.train(sample)
    graph.hnsw.efConstruction = _CONSTRUCTION
    return faiss.IndexIDMap2(graph)


@_beside_torch()
def list_index(
    sample: Float32s, *, kind: str, n_lists: int, code_bytes: int, seed: int
) -> FaissIndex:
    """Train inverted lists that hold rows as they are, as bytes, or as product codes.

    Parameters
    ----------
    sample : ndarray of float32, shape (n, F)
        Rows from all over.
    kind : {"ivf_flat", "ivf_sq8", "ivf_pq"}
    n_lists : int
    code_bytes : int
        Of a product code; ignored for the others.
    seed : int

    Returns
    -------
    FAISS index
        Empty and trained.

    References
    ----------
    Jégou, Douze, Schmid (2011), Product quantization for nearest neighbor search.
    """
    features = sample.shape[1]
    if kind == "ivf_pq":
        wide = -(-features // code_bytes) * code_bytes
        # so that all parts of a row say as much; also fills up to a multiple of them
        rotation = faiss.RandomRotationMatrix(features, wide)
        rotation.init(seed + 1)
        codes: FaissIndex = faiss.index_factory(wide, f"IVF{n_lists},PQ{code_bytes}x8")
        # of a few features each, which are slow to compare: 25 rounds take minutes
        codes.pq.cp.niter, codes.pq.cp.max_points_per_centroid = _CODE_ROUNDS, 40
        index: FaissIndex = faiss.IndexPreTransform(rotation, codes)
    else:
        stored = {"ivf_flat": "Flat", "ivf_sq8": "SQ8"}[kind]
        index = faiss.index_factory(features, f"IVF{n_lists},{stored}")
    lists = faiss.extract_index_ivf(index)
    lists.cp.seed, lists.cp.niter = seed, _ROUNDS
    lists.cp.min_points_per_centroid = 1  # no advice on standard error
    index.train(sample)
    return index


@_beside_torch()
def add(index: FaissIndex, points: Float32s, ids: Ids) -> None:
    """Add rows under our ids, shapes (n, F) and (n,)."""
    if len(ids):
        index.add_with_ids(np.ascontiguousarray(points, np.float32), ids)


@_beside_torch()
def remove(index: FaissIndex, ids: Ids) -> int:
    """Remove rows by id from inverted lists; return how many were there."""
    return int(index.remove_ids(np.asarray(ids, np.int64)))


@_beside_torch()
def search(
    index: FaissIndex, points: Float32s, *, k: int, effort: int
) -> tuple[Float32s, Ids]:
    """Return squared distances and ids of near rows, shape (n, k), -1 for none.

    Parameters
    ----------
    index : FAISS index
    points : ndarray of float32, shape (n, F)
    k : int
        FAISS fills up with -1 and the largest float where there are fewer rows.
    effort : int
        Lists to probe, or the breadth of the search in a graph.
    """
    breadth = effort
    if is_graph(index):
        graph: FaissIndex = faiss.downcast_index(index.index)
        graph.hnsw.efSearch = max(breadth, k)
    else:
        faiss.extract_index_ivf(index).nprobe = breadth
    found: tuple[Float32s, Ids] = index.search(points, k)
    return found


def is_graph(index: FaissIndex) -> bool:
    """Return whether it is a navigable graph, from which rows cannot be removed."""
    return isinstance(index, faiss.IndexIDMap2)


def n_lists(index: FaissIndex) -> int:
    """Return how many inverted lists there are, 0 for a graph."""
    return 0 if is_graph(index) else int(faiss.extract_index_ivf(index).nlist)


def count(index: FaissIndex) -> int:
    """Return how many rows are in an index."""
    return int(index.ntotal)


def write(index: FaissIndex, path: Path) -> None:
    """Write an index to a file."""
    faiss.write_index(index, str(path))


def read(path: Path, *, mapped: bool = False) -> FaissIndex:
    """Read an index from a file.

    Parameters
    ----------
    path : Path
    mapped : bool, default False
        Leave the inverted lists on disk; searches read those that they probe. Such an
        index cannot be changed.
    """
    flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY if mapped else 0
    return faiss.read_index(str(path), flags)
