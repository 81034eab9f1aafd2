"""Neighbors on worker processes: the same bytes, through kills, within the plan's memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import faiss
import numpy as np
import psutil
import pytest
import xarray as xr
from distributed import Client, LocalCluster

from embedkit.analysis.neighbors import neighbors

USER = Path(__file__).parent / "knn_user.py"


def start(*arguments: object, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(USER), *map(str, arguments)]
    return subprocess.Popen(command, text=True, start_new_session=True, **options)  # type: ignore[call-overload, no-any-return]


def until(condition, process: subprocess.Popen[str]) -> None:
    """Wait until something is on disk, as long as the process is there."""
    while not condition():
        assert process.poll() is None, "ended too early"
        time.sleep(0.01)


def hostile(dtype: type) -> np.ndarray:
    """Groups of near copies far from zero, equal rows, rows that are not finite."""
    rng = np.random.default_rng(0)
    center = rng.normal(size=512)
    center *= 250 / np.linalg.norm(center)
    groups = np.repeat(rng.normal(size=(120, 512)), 10, axis=0)
    rows = groups + center + 1e-3 * rng.normal(size=groups.shape)
    rows[400:460], rows[17, 3], rows[801] = rows[400], np.nan, np.inf
    return rows.astype(dtype)


def brute_force(rows: np.ndarray, k: int) -> np.ndarray:
    """Sort all distances in float64, ties by row number."""
    wide = rows.astype(np.float64)
    usable = np.isfinite(wide).all(axis=1)
    ids = np.full((len(wide), k), -1)
    for row in np.flatnonzero(usable):
        squared = ((wide - wide[row]) ** 2).sum(axis=1)
        squared[~usable] = squared[row] = np.inf
        ids[row] = np.argsort(squared, kind="stable")[:k]
    return ids


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:invalid value encountered in subtract")
def test_same_bytes_for_any_chunks_workers_and_dtype() -> None:
    """Three chunkings, one and two processes, float16 and float32: those of all pairs."""
    half = hostile(np.float16)
    found = {}
    for workers in (1, 2):
        with (
            LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=":0"
            ) as cluster,
            Client(cluster),
        ):
            for dtype in (np.float16, np.float32):
                x = xr.DataArray(half.astype(dtype), dims=("image", "feature"))
                for chunk in (97, 500, 1200):
                    nn = neighbors(x.chunk(image=chunk), n_neighbors=9)
                    parts = [nn[name].values for name in ("indices", "distances")]
                    found[workers, dtype, chunk] = [each.tobytes() for each in parts]
                    indices = parts[0]
    assert all(each == found[1, np.float16, 97] for each in found.values())
    np.testing.assert_array_equal(indices, brute_force(half, 9))


@pytest.mark.slow
def test_plain_faiss_fails_where_this_is_exact() -> None:
    """Near copies at norm 250: float32 misses neighbors, and rows themselves."""
    rng = np.random.default_rng(0)
    center = rng.normal(size=2048)
    center *= 250 / np.linalg.norm(center)
    groups = np.repeat(rng.normal(size=(100, 2048)) * 0.5, 10, axis=0)
    rows = groups + center + 1e-3 * rng.normal(size=groups.shape)
    rows = rows.astype(np.float32)
    expected = brute_force(rows, 5)

    _, plain = faiss.knn(rows, rows, 6)
    nn = neighbors(xr.DataArray(rows, dims=("image", "feature")), n_neighbors=5)

    own = np.arange(len(rows))
    assert (plain[:, 0] != own).mean() > 0.1
    recall = [
        len({*got} - {row} & {*want}) / 5
        for row, got, want in zip(own, plain.tolist(), expected.tolist(), strict=True)
    ]
    assert np.mean(recall) < 0.99
    np.testing.assert_array_equal(nn["indices"], expected)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> np.ndarray:
    """What the search of `knn_user` finds when nobody disturbs it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    process = start("search", folder / "scratch", folder / "out.npy", 2)
    assert process.wait() == 0
    return np.load(folder / "out.npy")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_worker_and_a_killed_client_change_no_byte(
    undisturbed, tmp_path
) -> None:
    """The next call goes on with the pairs that are finished."""
    scratch, out = tmp_path / "scratch", tmp_path / "out.npy"
    process = start("search", scratch, out, 2, stderr=subprocess.DEVNULL)
    pairs = "neighbors-*/hits-*.npy"

    until(lambda: len([*scratch.glob(pairs)]) > 2, process)
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "spawn_main" in " ".join(child.cmdline())
    ]
    workers[-1].kill()
    until(lambda: len([*scratch.glob(pairs)]) > 6, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    before = {each.name: each.stat().st_mtime_ns for each in scratch.glob(pairs)}
    assert before

    again = start("search", scratch, out, 2)
    until(lambda: len([*scratch.glob(pairs)]) > len(before), again)
    after = {each.name: each.stat().st_mtime_ns for each in scratch.glob(pairs)}
    assert again.wait() == 0

    kept = {name for name in before if after.get(name) == before[name]}
    assert len(kept) >= len(before) - 2  # all but what the killed ones had half done
    assert np.load(out).tobytes() == undisturbed.tobytes()


def measured(*arguments: object) -> dict[str, float]:
    """What `knn_user` tells of a search in a fresh process."""
    process = start(*arguments, stdout=subprocess.PIPE)
    told = json.loads(process.communicate()[0])
    assert process.returncode == 0
    return told  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
@pytest.mark.parametrize("shape", [(60_000, 32), (12_000, 512)])
def test_memory_stays_within_the_plan(shape) -> None:
    """Measured by the system, in a fresh process."""
    told = measured("measure", *shape, "clusters")

    assert told["took"] <= 1.2 * told["projected"]
    assert told["certified"] == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
@pytest.mark.parametrize(
    ("shape", "kind", "limit", "certified"),
    [
        ((16_000, 512), "clusters", "900MB", (1, 1)),
        ((12_000, 128), "hostile", "700MB", (0.49, 0.51)),
    ],
)
def test_workers_stay_within_the_plan_and_their_limit(
    shape, kind, limit, certified
) -> None:
    """Dask ends workers that take more; also crowds of near copies and long rows do not."""
    told = measured("workers", *shape, kind, limit)

    assert told["took"] <= 1.2 * told["projected"]
    assert told["projected"] <= float(limit[:-2]) * 1e6 / 2
    assert certified[0] <= told["certified"] <= certified[1]


def _in_a_task(rows: np.ndarray) -> np.ndarray:
    x = xr.DataArray(rows, dims=("image", "feature")).chunk(image=200)
    return neighbors(x, n_neighbors=3)["indices"].values


def test_neighbors_within_a_task_on_the_only_thread() -> None:
    """Its own tasks find a place, as do those of the lazy rows."""
    rows = np.random.default_rng(0).normal(size=(600, 5))
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        found = client.submit(_in_a_task, rows).result(timeout=60)

    np.testing.assert_array_equal(found, brute_force(rows, 3))
