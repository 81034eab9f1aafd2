"""The bytes do not depend on who computed them, nor on how many, nor on the window."""

import pytest


def _processes(n):
    return {
        "n_workers": n,
        "threads_per_worker": 1,
        "processes": True,
        "host": "127.0.0.1",
    }


def _threads(n, per_worker):
    return {"n_workers": n, "threads_per_worker": per_worker, "processes": False}


RUNS = {
    "synchronous": {"config": {"scheduler": "synchronous"}},
    "threads": {"config": {"scheduler": "threads"}},
    "synchronous, window 7": {
        "config": {"scheduler": "synchronous", "embedkit.window": 7}
    },
    "1 process, window 1": {
        "cluster": _processes(1),
        "config": {"embedkit.window": 1},
    },
    "4 processes, window 2": {
        "cluster": _processes(4),
        "config": {"embedkit.window": 2},
    },
    "4 workers of 1 thread, window 7": {
        "cluster": _threads(4, 1),
        "config": {"embedkit.window": 7},
    },
    "2 workers of 2 threads, window 1": {
        "cluster": _threads(2, 2),
        "config": {"embedkit.window": 1},
    },
    "1 worker of 4 threads, window 2": {
        "cluster": _threads(1, 4),
        "config": {"embedkit.window": 2},
    },
}


@pytest.fixture(scope="module")
def stores(photos, tmp_path_factory, run_script):
    """One store per way to run."""
    folder = tmp_path_factory.mktemp("matrix")
    paths = {name: folder / f"{number}.zarr" for number, name in enumerate(RUNS)}
    runs = [{**run, "store": str(paths[name])} for name, run in RUNS.items()]
    done = run_script("matrix.py", {"photos": str(photos), "runs": runs}, within=400)
    assert done.returncode == 0, done.stdout
    return paths


@pytest.mark.parametrize("way", RUNS)
def test_the_bytes_do_not_depend_on_the_way(way, stores, reference, contents):
    """Any number of workers, threads or processes, any window: identical bytes."""
    assert contents(stores[way]) == reference
