"""What repeating forward passes costs: layers in one pass, against each from the images.

Run it alone, at full size, or one network of it::

    EMBEDKIT_BENCH=1 pytest tests/benchmarks/test_strategies_speed.py -s -q
    EMBEDKIT_BENCH=1 EMBEDKIT_BENCH_ONLY=alexnet pytest tests/benchmarks/test_strategies_speed.py -s -q

For three networks it prints the analytic bound F (operations of all prefixes over those of
the deepest one), the measured speed-up S of the fused way, and S/F: of the whole runs, of
their tasks, and of the forward passes in them, which is the work that F is about. Among
the tests a small network runs the three ways once, and only the numbers are judged.

References
----------
Nakandala, S. and Kumar, A. (2020). Vista: Optimized System for Declarative Feature
Transfer from Deep CNNs at Scale. SIGMOD (the networks and layers; there S/F is 0.74 for
AlexNet and 0.79 for ResNet-50, against seven lazy workers).
"""

import dask
import numpy as np
import pytest

import embedkit as ek

N_PHOTOS = {"alexnet": 1024, "vgg16": 64, "resnet50": 96}
"""So few that three turns of all take ten minutes: writing the networks for workers, once,
counts in whole runs, and not in their forward passes."""

STUDIED = {
    "alexnet": ["features.11", "classifier.1", "classifier.4", "classifier.6"],
    "vgg16": ["classifier.0", "classifier.3", "classifier.6"],
    "resnet50": ["layer3.5", "layer4.0", "layer4.1", "layer4.2", "fc"],
}

VISTA = {"alexnet": 0.74, "resnet50": 0.79}
WANTED = 0.85
COLUMNS = {
    "network": 8,
    "layers": 6,
    "photos": 6,
    "fused s": 7,
    "lazy s": 7,
    "F": 5,
    "S run": 6,
    "S/F run": 7,
    "S tasks": 7,
    "S/F tasks": 9,
    "S forward": 9,
    "S/F forward": 11,
}


def _bound(network, layers):
    """Operations of all prefixes, over those of the deepest."""
    flops = network.layers["flops"][list(network.resolve(layers))]
    return flops.sum() / flops.max()


def _ways(arm, ways, photos, network, layers, *, told=None):
    """Return an arm for each way; `told` takes the seconds by stage of every run."""

    def work(way):
        def extract(folder):
            store = ek.extract(
                photos,
                network,
                folder / "s.zarr",
                layers=layers,
                strategy=way,
                plan=None,
            )
            if told is not None:
                told.setdefault(way, []).append(store.info()["seconds"])
            return store

        return extract

    return [arm(way, work(way)) for way in ways]


def _same(results):
    """Refuse to compare the times of different numbers."""
    first, *others = results.values()
    for layer in first:
        for other in others:
            np.testing.assert_array_equal(first[layer].values, other[layer].values)


def _row(arms, stages, bound):
    """Return F, and S and S/F of whole runs, of their tasks and of their forward passes."""
    fused, lazy = (each.best for each in arms)
    speedups = [lazy / fused]
    for name in ("total", "forward"):
        took = [min(run[name] for run in stages[each.name]) for each in arms]
        speedups.append(took[1] / took[0])
    return (
        *(f"{fused:.1f}", f"{lazy:.1f}", f"{bound:.2f}"),
        *(f"{each:.2f}" for s in speedups for each in (s, s / bound)),
    )


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_fused_against_lazy(
    full, chosen, shown, many_jpegs, arm, race, threads, cores, capsys
):
    """S, F and S/F, one block at a time with all cores inside it."""
    if not full:
        pytest.skip("takes minutes: set EMBEDKIT_BENCH=1")
    title = f"Fused against lazy: pooled layers, one process, {cores} PyTorch threads"
    table, told = shown.Table(capsys.disabled, title, COLUMNS), {}
    for name in filter(chosen, STUDIED):
        photos = sorted(map(str, many_jpegs(N_PHOTOS[name]).iterdir()))
        network, layers = ek.load_network(name, weights=None), STUDIED[name]
        stages = {}
        arms = _ways(arm, ("fused", "lazy"), photos, network, layers, told=stages)
        with threads(cores), dask.config.set(scheduler="sync"):
            results = race(arms)
        _same(results)
        row = _row(arms, stages, _bound(network, layers))
        table.row(name, len(layers), len(photos), *row)
        told[name] = row
    kept = sum(float(row[-1]) >= WANTED for row in told.values())
    table.summary(
        *(
            f"{name}: S/F {row[4]} of whole runs, {row[6]} of tasks, {row[8]} of forward "
            f"passes; Vista {VISTA.get(name, '-')}"
            for name, row in told.items()
        ),
        shown.judged(
            f"S/F of forward passes at least {WANTED}", kept, len(told), wanted=1
        ),
    )


@pytest.mark.slow
def test_all_ways_write_the_same(jpegs, arm, race):
    """The arms of the race, over a few photos and a small network."""
    network = ek.load_network("squeezenet1_1", weights=None)
    layers = ["features.4", "features.12"]
    arms = _ways(
        arm,
        ("fused", "staged", "lazy"),
        [str(each) for each in jpegs[:4]],
        network,
        layers,
    )

    with dask.config.set(scheduler="sync"):
        _same(race(arms))

    assert 1 < _bound(network, layers) < 2
