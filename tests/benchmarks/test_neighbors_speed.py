"""Exact neighbors against plain FAISS and scikit-learn. Printed, never judged.

``make bench`` times it in full; among the tests it runs once over a few rows. Results are
compared before a time is shown. Every arm has the same float32 rows in memory and the same
cores; embedkit also writes them to a file and proves what it finds.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import faiss
import numpy as np
import pytest
import xarray as xr
from faiss.contrib.datasets import SyntheticDataset
from pynndescent import NNDescent
from sklearn.neighbors import NearestNeighbors

import embedkit as ek

FULL = os.environ.get("EMBEDKIT_BENCH") == "1"
SHAPE = (50_000, 512) if FULL else (3_000, 64)
GROWTH = (
    [(25_000, 512), (50_000, 512), (100_000, 512), (200_000, 512)]
    if FULL
    else [(2_000, 64), (4_000, 64)]
)
LIMITED = (200_000, 512, "1200MB") if FULL else (4_000, 64, "700MB")
CROSSOVER = (25_000, 50_000, 100_000) if FULL else (3_000,)
K = 15
RECALL = 0.99
REPEATS = 3 if FULL else 1

MEASURE = """
import sys, time, resource, numpy as np, xarray as xr
sys.path.insert(0, sys.argv[3])
from embedkit.analysis.neighbors import neighbors
shape = int(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(0)
rows = rng.normal(size=(200, shape[1])).astype("f4")[np.arange(shape[0]) % 200]
for part in np.array_split(rows, 50):
    part += rng.normal(size=part.shape)
x = xr.DataArray(rows, dims=("image", "feature"))
neighbors(x[:40], n_neighbors=1)
unit = 1 if sys.platform == "darwin" else 1024
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
began = time.perf_counter()
found = neighbors(x)
seconds = time.perf_counter() - began
took = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before
print(seconds, took, found.attrs["projected_mem"], found.attrs["certified"])
"""


def clustered(shape):
    """Rows like those of a network: non-negative, in groups."""
    rng = np.random.default_rng(0)
    centers = 0.6 * rng.normal(size=(200, shape[1])).astype(np.float32)
    noise = rng.normal(size=shape).astype(np.float32)
    return np.maximum(centers[rng.integers(0, 200, shape[0])] + noise, 0)


def by_faiss(rows):
    return faiss.knn(rows, rows, K + 1)[1][:, 1:]


def by_sklearn(rows):
    tree = NearestNeighbors(n_neighbors=K, algorithm="brute", n_jobs=-1).fit(rows)
    return tree.kneighbors(return_distance=False)


def by_embedkit(rows):
    x = xr.DataArray(rows, dims=("image", "feature"))
    return ek.neighbors(x, n_neighbors=K)["indices"].values


@pytest.mark.slow
def test_exact_neighbors_against_plain_libraries(capsys):
    """The same neighbors, up to what float32 orders wrongly; then the times."""
    rows = clustered(SHAPE)
    arms = {"faiss.knn": by_faiss, "scikit-learn": by_sklearn, "embedkit": by_embedkit}
    seconds = {name: [] for name in arms}
    found = {}
    for _ in range(REPEATS):
        for name, arm in arms.items():
            began = time.perf_counter()
            found[name] = arm(rows)
            seconds[name].append(time.perf_counter() - began)
    best = {name: min(each) for name, each in seconds.items()}

    for name in arms:
        assert (found[name] == found["embedkit"]).mean() > 0.99, name
    with capsys.disabled():
        print(f"\n{K} neighbors of {SHAPE[0]} x {SHAPE[1]}, {os.cpu_count()} cores")
        for name, each in best.items():
            print(f"  {name}: {each:.2f} s = {each / best['faiss.knn']:.2f} faiss.knn")


def recall_of(ids, exact):
    """Share of exact neighbors among those found, shape (N, K) each."""
    return (exact[:, :, None] == ids[:, None, :]).any(axis=2).mean()


def by_pynndescent(rows, exact):
    """Return what the narrowest of some graphs that finds RECALL takes, and its recall.

    Its user does not know which one that is, nor its recall.
    """
    for width in (K, K + 4, K + 8, 2 * K, 4 * K):
        began = time.perf_counter()
        graph = NNDescent(rows, n_neighbors=width + 1, random_state=0, n_jobs=-1)
        ids = graph.neighbor_graph[0]
        seconds = time.perf_counter() - began
        itself = ids == np.arange(len(ids))[:, None]
        order = np.argsort(itself, axis=1, kind="stable")[:, :K]
        reached = recall_of(np.take_along_axis(ids, order, axis=1), exact)
        if reached >= RECALL:
            break
    return seconds, reached


def by_recall(rows):
    """Return seconds, ids and what was done."""
    x = xr.DataArray(rows, dims=("image", "feature"))
    began = time.perf_counter()
    found = ek.neighbors(x, n_neighbors=K, recall=RECALL)
    seconds = time.perf_counter() - began
    ways = {"graph_width": "graph", "nprobe": "lists"}
    way = next((ways[each] for each in ways if each in found.attrs), "exact")
    return seconds, found["indices"].values, way


@pytest.mark.slow
def test_nearly_all_neighbors_against_pynndescent(capsys):
    """At equal recall, interleaved, and from how many rows on it pays to ask for less."""
    told = []
    for count in CROSSOVER:
        rows = SyntheticDataset(SHAPE[1], 0, count, 0).get_database()
        began = time.perf_counter()
        exact = by_embedkit(rows)
        whole = time.perf_counter() - began
        first, *_ = by_recall(rows)
        first_theirs, _ = by_pynndescent(rows, exact)
        ours, ids, way = by_recall(rows)
        theirs, reached = by_pynndescent(rows, exact)
        assert recall_of(ids, exact) >= RECALL
        told.append(
            f"  {count} x {SHAPE[1]}: exact {whole:.1f} s; recall {RECALL} by {way} "
            f"{ours:.1f} s (first call {first:.1f} s), {recall_of(ids, exact):.4f}; "
            f"pynndescent {theirs:.1f} s (first {first_theirs:.1f} s), {reached:.4f}: "
            f"{theirs / ours:.2f} times its speed, {whole / ours:.2f} times the exact one"
        )
    with capsys.disabled():
        print(f"\n{K} neighbors, {os.cpu_count()} cores", *told, sep="\n")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
def test_time_and_memory_grow_as_planned(capsys):
    """Time with the square of the rows, memory hardly, in a process of its own."""
    root = Path(ek.__file__).parents[1]
    told = []
    for shape in GROWTH:
        command = [sys.executable, "-c", MEASURE, *map(str, shape), str(root)]
        out = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds, took, projected, certified = map(float, out.stdout.split())
        assert took <= 1.2 * projected
        told.append(
            f"  {shape[0]} x {shape[1]}: {seconds:.2f} s, {took / 1e6:.0f} MB of "
            f"{projected / 1e6:.0f} MB planned, {certified:.1%} certified"
        )
    with capsys.disabled():
        print(f"\n{K} neighbors as rows grow", *told, sep="\n")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
def test_memory_of_workers_under_a_limit(capsys):
    """Two worker processes that Dask ends when they take more than their limit."""
    user = Path(__file__).parents[1] / "analysis" / "knn_user.py"
    rows, features, limit = LIMITED
    command = [sys.executable, user, "workers", rows, features, "clusters", limit]
    began = time.perf_counter()
    out = subprocess.run(
        list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True
    )
    seconds = time.perf_counter() - began
    told = json.loads(out.stdout)

    assert told["took"] <= 1.2 * told["projected"]
    with capsys.disabled():
        print(
            f"\n{K} neighbors of {rows} x {features} on two workers of {limit}: "
            f"{seconds:.0f} s in all, {told['took'] / 1e6:.0f} MB at most beyond the "
            f"start of {told['projected'] / 1e6:.0f} MB planned, "
            f"{told['certified']:.2%} certified"
        )
