"""Images a second by layout: one worker and two, and threads of one process.

Run it alone, at full size::

    EMBEDKIT_BENCH=1 pytest tests/benchmarks/test_scaling.py -s -q

Every layout computes the same store; what differs is who waits for whom. The honest rival
of two workers is one process with as many PyTorch threads. Weak scaling gives two workers
twice the photos. Starting processes and loading networks are not timed.
"""

import dask
import numpy as np
import pytest
from distributed import Client

import embedkit as ek
from embedkit.networks.row_errors import row_errors

NETWORKS = {"resnet18": 512, "resnet50": 192}
"""Photos at full size."""

LAYERS = ["layer1", "layer2", "layer3", "layer4", "fc"]
SAME = 1e-5
"""Of a row's largest number: two threads add up in another order than one."""

STAGES = ("decode", "transform", "wait", "forward", "write")
COLUMNS = {
    "network": 10,
    "layout": 32,
    "images": 6,
    "seconds": 7,
    "images/s": 8,
    "of one": 6,
    **{f"{each} s": 11 for each in STAGES},
}
ONE = "1 worker, 1 thread"


def _cluster(processes, each):
    return Client(
        n_workers=processes,
        threads_per_worker=each,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        set_as_default=False,
    )


class Layouts:
    """The ways to spread work over some cores, each warmed up before it is timed.

    Parameters
    ----------
    network, photos : Network, list of Path
        The work. Twice as many photos are given for weak scaling.
    threads : callable
        Sets the threads of PyTorch for a while.
    """

    def __init__(self, network, photos, *, threads, batch):
        self._network, self._photos, self._threads = network, photos, threads
        self._batch, self._clients = batch, {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for client in self._clients.values():
            client.close()

    def extract(self, place, *, share=1):
        """Write a share of the photos."""
        return ek.extract(
            self._photos[: int(share * len(self._photos))],
            self._network,
            place / "s.zarr",
            layers=LAYERS,
            batch_size=self._batch,
            plan=None,
        )

    def here(self, count):
        """Return the work in this process with so many PyTorch threads."""

        def work(place):
            with self._threads(count), dask.config.set(scheduler="synchronous"):
                return self.extract(place, share=0.5)

        return work

    def workers(self, processes, each, *, share=0.5):
        """Return the work on worker processes with so many tasks at a time."""
        key = processes, each
        if key not in self._clients:
            self._clients[key] = _cluster(*key)

        def work(place):
            with self._clients[key].as_current():
                return self.extract(place, share=share)

        return work


def _arms(arm, layouts, cores):
    return [
        arm(ONE, layouts.workers(1, 1)),
        arm(f"{cores} workers, 1 thread", layouts.workers(cores, 1)),
        arm(f"{cores} workers, twice the photos", layouts.workers(cores, 1, share=1)),
        arm(f"1 worker, {cores} threads", layouts.workers(1, cores)),
        arm(f"1 process, {cores} PyTorch threads", layouts.here(cores)),
    ]


def _warm(arms, tmp_path):
    """Imports, and the network in every process."""
    for each in arms:
        place = tmp_path / f"warm {each.name}"
        place.mkdir(parents=True)
        each.work(place)


def _same(results):
    """Refuse to compare the times of different numbers; twice the photos begin alike."""
    first = results[ONE]
    for store in results.values():
        for layer in first:
            rows = store[layer][: len(first[layer])]
            off = row_errors(np.asarray(rows), np.asarray(first[layer]))
            assert off.max() < SAME


def _row(each, results, one):
    images = len(results[each.name][LAYERS[0]])
    rate = images / each.best
    stages = results[each.name].info()["seconds"]
    return (
        *(each.name, images, f"{each.best:.1f}", f"{rate:.1f}", f"{rate / one:.2f}"),
        *(f"{stages.get(stage, 0.0):.1f}" for stage in STAGES),
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_scaling(
    full, chosen, shown, many_jpegs, arm, race, threads, cores, tmp_path, capsys
):
    """From JPEG files to disk: strong and weak scaling, and threads in one process."""
    if not full:
        pytest.skip("takes minutes: set EMBEDKIT_BENCH=1")
    title = f"Scaling: 5 pooled layers, {cores} cores"
    table, told = shown.Table(capsys.disabled, title, COLUMNS), []
    for name, count in NETWORKS.items():
        if not chosen(name):
            continue
        network = ek.load_network(name, weights="none")
        photos = sorted(many_jpegs(2 * count).iterdir())
        with Layouts(network, photos, threads=threads, batch=16) as layouts:
            arms = _arms(arm, layouts, cores)
            _warm(arms, tmp_path / name)
            results = race(arms)
        _same(results)
        one, many, weak, _, torch = arms
        for each in arms:
            table.row(name, *_row(each, results, count / one.best))
        told.append(
            f"{name}: {cores} workers are {one.best / many.best:.2f} times as fast as "
            f"one = {one.best / many.best / cores:.0%} of {cores} (weak "
            f"{one.best / weak.best:.0%}), and {torch.best / many.best:.2f} times as "
            f"fast as one process with {cores} PyTorch threads"
        )
    table.summary(*told)


@pytest.mark.slow
def test_every_layout_writes_the_same(jpegs, arm, race, threads, tmp_path):
    """Two workers, one with two threads, and this process, over a few photos."""
    network = ek.load_network("resnet18", weights="none")
    with Layouts(network, jpegs[:8], threads=threads, batch=4) as layouts:
        results = race(
            [
                arm(ONE, layouts.here(1)),
                arm("1 worker, 2 threads", layouts.workers(1, 2)),
                arm("2 workers, 1 thread", layouts.workers(2, 1)),
            ]
        )

    _same(results)
