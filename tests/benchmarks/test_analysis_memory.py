"""Analyses take at most the memory that their plans project, and not much less."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTICED = 50e6
"""Bytes of rows below which a plan may be coarse: libraries and blocks are most of it."""

LISTS = ((5_000, 15), (40_000, 15), (40_000, 30), (160_000, 15))
ROWS = ((5_000, 64), (20_000, 256), (40_000, 128), (5_000, 1024))
GRID = {
    "neighbor_graph": LISTS,
    "neighbor_graph_binary": (*LISTS, (640_000, 15)),
    "communities": LISTS,
    "project": LISTS,
    "neighbor_accuracy": (*LISTS, (640_000, 15)),
    "duplicates": LISTS,
    "cluster": ((5_000, 64), (10_000, 64), (5_000, 256), (3_000, 512)),
    "cluster_cosine": ((5_000, 64), (3_000, 512)),
    "probe": ROWS,
    "probe_regression": ROWS,
    "search": (*ROWS, (10_000, 2048)),
    "append_neighbors": ((5_000, 64), (20_000, 128), (5_000, 512), (4_000, 1024)),
}
TINY = {
    "communities": (5_000, 15),
    "neighbor_accuracy": (20_000, 15),
    "probe_regression": (3_000, 64),
    "search": (5_000, 256),
}


def _measured(function, n_images, width, folder):
    """Return the plan of an analysis and what it took, in a process of its own."""
    user = Path(__file__).with_name("analysis_user.py")
    said = subprocess.run(
        [sys.executable, str(user), function, str(n_images), str(width), str(folder)],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return json.loads(said.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("function", TINY)
def test_an_analysis_takes_at_most_what_was_projected(function, tmp_path):
    """In its own process, whose peak was set back before."""
    found = _measured(function, *TINY[function], tmp_path)

    assert 0 < found["measured"] <= found["projected_mem"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("function", GRID)
def test_projections_hold_and_are_near(function, full, tmp_path, capsys):
    """Never below what was measured, and at most twice as much where rows matter."""
    if not full:
        pytest.skip("EMBEDKIT_BENCH=1 measures")
    for n_images, width in GRID[function]:
        folder = tmp_path / f"{n_images}-{width}"
        folder.mkdir()
        found = _measured(function, n_images, width, folder)
        measured, projected = found["measured"], found["projected_mem"]
        rows = measured - found["parts"][0]["nbytes"]
        with capsys.disabled():
            print(
                f"\n{function:22} {n_images:>7,} × {width:<5} measured "
                f"{measured / 1e6:6.0f} MB, projected {projected / 1e6:6.0f} MB, "
                f"{projected / measured:.2f} times; {found['n_tasks']} tasks, "
                f"{found['took']:.1f} s",
                end="",
            )
        assert measured <= projected
        assert rows < NOTICED or projected <= 2 * measured
