"""Who survives a memory limit: planned runs, and what one would write with Dask alone.

Run it alone, at full size, or one limit of it, with fewer images::

    EMBEDKIT_BENCH=1 pytest tests/benchmarks/test_plan_survival.py -s -q
    EMBEDKIT_BENCH=1 EMBEDKIT_BENCH_ONLY="2 GiB" EMBEDKIT_BENCH_IMAGES=900 pytest tests/benchmarks/test_plan_survival.py -s -q

2,000 photos through ResNet-18, whose eight blocks are stored as full maps, 3.0 MB an
image, on two workers whose memory Dask limits. The arms with Dask alone are in
`planner_user.by_hand`: chunks of images have the size that Dask chooses by itself, 128 MiB,
which is 891 images of unsigned bytes, and 222 of the float32 numbers that PyTorch wants.
Arms with more memory run first: where a chunk size has crashed, it is not tried with less.
"""

import os
import shutil

import numpy as np
import pytest
import zarr

import embedkit as ek

LIMITS = ("3 GiB", "2 GiB", "1.5 GiB", "1.25 GiB")
ARMS = {
    "embedkit": {"arm": "auto"},
    "Dask, float32": {"arm": "dask", "dtype": "float32"},
    "Dask, uint8": {"arm": "dask", "dtype": "uint8"},
}
LAYERS = tuple(f"layer{stage}.{at}.relu_1" for stage in (1, 2, 3, 4) for at in (0, 1))
IMAGES = int(os.environ.get("EMBEDKIT_BENCH_IMAGES", "2000"))
PATIENCE = 600
"""Seconds after which a run counts as thrashing."""

COLUMNS = {
    "arm": 14,
    "limit": 8,
    "ended": 9,
    "seconds": 7,
    "images/s": 8,
    "lost": 4,
    "spilled": 7,
    "paused": 6,
    "peak": 5,
}


def _run(planner_run, folder, photos, arm, *, images, limit, workers):
    place = folder / arm.replace(", ", "-")
    place.mkdir()
    found = planner_run(
        **ARMS[arm],
        patience=PATIENCE,
        folder=str(place),
        photos=str(photos),
        images=images,
        network="resnet18",
        weights="none",
        layers=LAYERS,
        pool="none",
        workers=workers,
        limit=limit,
    )
    return found, place


def _difference(ours, theirs, rows):
    """Return the largest difference of some rows of all layers, by each layer's largest."""
    store, found = ek.open_store(ours / "s.zarr"), []
    for layer in LAYERS:
        expected = zarr.open_array(str(theirs / f"{layer}.zarr"), mode="r")[rows]
        given = np.asarray(store[layer][rows])
        found.append(np.abs(given - expected).max() / np.abs(expected).max())
    return max(found)


def _row(found, images, gib):
    done = found["ended"] == "finished"
    return (
        found["ended"],
        f"{found['seconds']:.0f}",
        f"{images / found['seconds']:.1f}" if done else "-",
        found["lost"],
        gib(found["spilled"]),
        "yes" if found["paused"] else "no",
        gib(max(found["resident"], found.get("peak", 0))),
    )


class Matrix:
    """Who survived what so far.

    Attributes
    ----------
    cells : dict of (str, str) to str
        How an arm ended under a limit.
    """

    def __init__(self, run, table, gib):
        self._run, self._table, self._gib = run, table, gib
        self.cells, self._why, self._hopeless = {}, [], set()

    def add(self, limit):
        """Run all arms; return where those that finished have written."""
        return {
            arm: place for arm in ARMS if (place := self._place(arm, limit)) is not None
        }

    def _place(self, arm, limit):
        if arm in self._hopeless:
            self.cells[arm, limit] = "(crashed)"
            self._table.row(arm, limit, "not run: it crashed with more memory")
            return None
        found, place = self._run(arm, limit)
        ended = found["ended"]
        self._table.row(arm, limit, *_row(found, IMAGES, self._gib))
        if "why" in found:
            self._why.append(f"{arm}, {limit}: {found['why']}")
        finished = ended == "finished"
        self.cells[arm, limit] = f"{found['seconds']:.0f} s" if finished else ended
        if arm != "embedkit" and not finished:
            self._hopeless.add(arm)
        return place if finished else None

    def lines(self):
        """Return a line an arm, and what those said that did not finish."""
        limits = dict.fromkeys(limit for _, limit in self.cells)
        yield f"{'':14}  " + "  ".join(f"{each:>10}" for each in limits)
        for arm in ARMS:
            ends = (self.cells[arm, limit] for limit in limits)
            yield f"{arm:14}  " + "  ".join(f"{each:>10}" for each in ends)
        yield "hung: all workers are gone and Dask starts no other; thrashed: took too long"
        yield "refused: said before anything was computed; (crashed): with more memory"
        yield from self._why


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_who_survives(full, chosen, shown, planner_run, many_jpegs, tmp_path, capsys):
    """Arms by limits: whether they finish, in what time, and at what cost."""
    if not full:
        pytest.skip("takes minutes: set EMBEDKIT_BENCH=1")
    title = f"Survival: {IMAGES:,} photos, ResNet-18, 8 full maps, 2 workers"
    table = shown.Table(capsys.disabled, title + " (memory in GiB)", COLUMNS)
    photos = many_jpegs(IMAGES)

    def run(arm, limit):
        size = {"images": IMAGES, "limit": limit, "workers": 2}
        return _run(planner_run, tmp_path, photos, arm, **size)

    matrix = Matrix(run, table, shown.gib)
    for limit in filter(chosen, LIMITS):
        places = matrix.add(limit)
        ours = places.pop("embedkit", None)
        for theirs in places.values() if ours else ():
            assert _difference(ours, theirs, slice(8)) < 1e-4
        for arm in ARMS:
            shutil.rmtree(tmp_path / arm.replace(", ", "-"), ignore_errors=True)
    table.summary(*matrix.lines())
    ends = {end for (arm, _), end in matrix.cells.items() if arm == "embedkit"}
    assert not ends & {"crashed", "thrashed"}


@pytest.mark.slow
def test_all_arms_compute_the_same(planner_run, many_jpegs, tmp_path):
    """A few photos with memory enough; nobody loses a worker or goes beyond the limit."""
    photos, places = many_jpegs(8), {}
    for arm in ("embedkit", "Dask, float32"):
        found, places[arm] = _run(
            planner_run, tmp_path, photos, arm, images=8, limit="3 GiB", workers=1
        )
        assert (found["ended"], found["lost"]) == ("finished", 0)
        assert 0 < found["resident"] <= 3 * 2**30

    assert _difference(*places.values(), slice(None)) < 1e-4
