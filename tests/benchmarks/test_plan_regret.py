"""What the planner's choice costs against the best of a sweep: at most a tenth.

Run it alone, at full size, or some cells of it::

    EMBEDKIT_BENCH=1 pytest tests/benchmarks/test_plan_regret.py -s -q
    EMBEDKIT_BENCH=1 EMBEDKIT_BENCH_ONLY="resnet18 2 GiB" pytest tests/benchmarks/test_plan_regret.py -s -q

Each cell has one worker process with a thread for each core. The sweep is over batches,
blocks and threads that are used; all of it is run, what planning would refuse for its
memory too. Arms take turns: all of them once, then the plan and the fastest ones again,
and the fastest run of each counts. Outputs are compared before a time is.
"""

import itertools
import os
import time
from dataclasses import replace

import numpy as np
import pytest

import embedkit as ek

NETWORKS = ("squeezenet1_0", "resnet18", "resnet50")
LIMITS = ("2 GiB", "4 GiB")
BATCHES, BLOCKS = (2, 8, 32), (16, 64)
SECONDS = float(os.environ.get("EMBEDKIT_BENCH_SECONDS", "60")) / 12
"""Of one run, as far as the plan knows: there are some twenty of them in a cell."""

FINALISTS, TURNS = 3, 2
WANTED = 1.10
COLUMNS = {
    "network": 13,
    "limit": 6,
    "arm": 9,
    "batch": 5,
    "block": 5,
    "threads": 7,
    "planned": 7,
    "best": 6,
    "runs": 4,
    "by best": 7,
}
ANY = "1 TiB"


class Contest:
    """Plans for the same work, run in turn on one worker.

    Parameters
    ----------
    photos : list of Path
        The images.
    network : Network
        The network.
    folder : Path
        Where stores are written.
    """

    def __init__(self, photos, network, folder):
        self.photos, self.network, self._folder = photos, network, folder
        self.seconds, self.failed, self._first = {}, {}, None

    def run(self, name, plan):
        """Time one run; compare what it wrote with what the first one did."""
        place = self._folder / f"{time.time_ns()}.zarr"
        began = time.perf_counter()
        try:
            store = ek.extract(self.photos, self.network, place, plan=plan)
        except ek.errors.EmbedkitError as error:  # the sweep goes beyond the memory
            self.failed[name] = str(error)
            return
        os.sync()
        took = time.perf_counter() - began
        found = {layer: np.asarray(store[layer]) for layer in store}
        self._first = self._first or found
        for layer, expected in self._first.items():
            error = np.abs(found[layer] - expected).max()
            assert error <= 1e-4 * np.abs(expected).max(), (name, layer, error)
        self.seconds.setdefault(name, []).append(took)

    def best(self, name):
        """Return the seconds of the fastest run."""
        return min(self.seconds[name])

    def fastest(self, names):
        """Return those of some arms that have finished, the fastest first."""
        return sorted((each for each in names if each in self.seconds), key=self.best)


def _sweep(photos, network, *, batches, blocks, threads, memory):
    """Return a plan for every arm, whatever memory it needs."""
    plans = {}
    for batch, block, each in itertools.product(batches, blocks, threads):
        plan = ek.plan(
            photos,
            network,
            batch_size=batch,
            block=block,
            threads=each,
            n_workers=1,
            memory_limit=ANY,
        )
        plans[f"{batch} {block} {each}"] = replace(plan, needed_mem=memory)
    return plans


def _enough(photos, network):
    """Return so many photos as take the seconds of one run."""
    plan = ek.plan(photos, network)
    return photos[: max(64, int(SECONDS * plan.n_images / plan.seconds))]


def _rows(contest, plans, best):
    for name, plan in plans.items():
        sizes = (plan.batch_size, plan.block, plan.threads, f"{plan.seconds:.1f}")
        if name not in contest.seconds:
            yield name, *sizes, f"failed: {contest.failed[name][:90]}"
            continue
        took = contest.best(name)
        runs = len(contest.seconds[name])
        yield name, *sizes, f"{took:.2f}", runs, f"{took / best:.2f}"


def _load(name, shared_data):
    real = "squeezenet1_0_imagenet_deepcompression.pt"
    known = shared_data / "weights" / real
    return ek.load_network(name, weights=known if name == "squeezenet1_0" else "none")


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """Measurements of this test alone."""
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path / "cache"))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.usefixtures("own_cache")
def test_regret(full, chosen, shown, many_jpegs, shared_data, cores, tmp_path, capsys):
    """Networks by limits: the planned layout against the best of the sweep."""
    if not full:
        pytest.skip("takes minutes: set EMBEDKIT_BENCH=1")
    title = f"Regret: stages of photos, 1 worker with {cores} threads"
    table = shown.Table(capsys.disabled, title + " (seconds)", COLUMNS)
    every, told = sorted(many_jpegs(4096).iterdir()), {}
    for name, limit in itertools.product(NETWORKS, LIMITS):
        if not chosen(f"{name} {limit}"):
            continue
        network = _load(name, shared_data)
        with ek.connect(n_workers=1, threads_per_worker=cores, memory_limit=limit):
            photos = _enough(every, network)
            auto = {"planned": ek.plan(photos, network)}
            sweep = _sweep(
                photos,
                network,
                batches=BATCHES,
                blocks=BLOCKS,
                threads=sorted({1, cores}),
                memory=auto["planned"].needed_mem,
            )
            contest = Contest(photos, network, tmp_path)
            ek.extract(photos[:8], network, tmp_path / f"{time.time_ns()}.zarr")
            for arm, plan in (auto | sweep).items():
                contest.run(arm, plan)
            finals = ["planned", *contest.fastest(sweep)[:FINALISTS]]
            for arm in finals * TURNS:
                contest.run(arm, (auto | sweep)[arm])
        best = contest.best(contest.fastest(finals)[0])
        told[name, limit] = contest.best("planned") / best
        for row in _rows(contest, auto | sweep, best):
            table.row(name, limit, *row)
    kept = sum(each <= WANTED for each in told.values())
    table.summary(
        *(f"{name}, {limit}: {each:.2f}" for (name, limit), each in told.items()),
        shown.judged(f"regret at most {WANTED:.2f}", kept, len(told), wanted=1),
    )


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
def test_every_layout_writes_the_same(many_jpegs, tmp_path):
    """The plan and a part of the sweep, over a few photos and a small network."""
    photos, network = (
        sorted(many_jpegs(8).iterdir()),
        ek.load_network("embedkit/digits"),
    )
    with ek.connect(n_workers=1, threads_per_worker=2, memory_limit="2 GiB"):
        auto = {"planned": ek.plan(photos, network)}
        sweep = _sweep(
            photos, network, batches=(1, 4), blocks=(4,), threads=(1, 2), memory=1
        )
        contest = Contest(photos, network, tmp_path)
        for arm, plan in (auto | sweep).items():
            contest.run(arm, plan)

    assert not contest.failed
    assert set(contest.seconds) == {"planned", "1 4 1", "1 4 2", "4 4 1", "4 4 2"}
    assert auto["planned"].projected_mem <= 0.6 * 2**31
