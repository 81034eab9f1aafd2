"""What repeating forward passes costs: layers in one pass, against each from the images.

``make bench`` prints for three networks the analytic bound F (operations of all prefixes
over those of the deepest one), the measured speed-up S of the fused way, and S/F. Among the
tests a small network runs the three ways once, and only the numbers are judged.

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

N_PHOTOS = {"alexnet": 384, "vgg16": 192, "resnet50": 384}
"""So many that writing the network for workers, once, does not count for much."""

STUDIED = {
    "alexnet": ["features.11", "classifier.1", "classifier.4", "classifier.6"],
    "vgg16": ["classifier.0", "classifier.3", "classifier.6"],
    "resnet50": ["layer3.5", "layer4.0", "layer4.1", "layer4.2", "fc"],
}


def _bound(network, layers):
    """Operations of all prefixes, over those of the deepest."""
    flops = network.layers["flops"][list(network.resolve(layers))]
    return flops.sum() / flops.max()


def _ways(arm, ways, photos, network, layers):
    def work(way):
        return lambda folder: ek.extract(
            photos, network, folder / "s.zarr", layers=layers, strategy=way, plan=None
        )

    return [arm(way, work(way)) for way in ways]


def _same(results):
    """Refuse to compare the times of different numbers."""
    first, *others = results.values()
    for layer in first:
        for other in others:
            np.testing.assert_array_equal(first[layer].values, other[layer].values)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", STUDIED)
def test_fused_against_lazy(name, full, jpegs, arm, race, threads, cores, capsys):
    """S, F and S/F, one block at a time with all cores inside it."""
    if not full:
        pytest.skip("takes minutes: set EMBEDKIT_BENCH=1")
    layers, photos = STUDIED[name], [str(each) for each in jpegs[: N_PHOTOS[name]]]
    network = ek.load_network(name, weights=None)
    arms = _ways(arm, ("fused", "lazy"), photos, network, layers)

    with threads(cores), dask.config.set(scheduler="sync"):
        results = race(arms)

    _same(results)
    bound, (fused, lazy) = _bound(network, layers), (each.best for each in arms)
    tasks = [results[each.name].info()["seconds"]["total"] for each in arms]
    with capsys.disabled():
        print(
            f"\n{name}, {len(layers)} layers, {len(photos)} photos, {cores} cores: fused "
            f"{fused:.1f} s, lazy {lazy:.1f} s; S {lazy / fused:.2f}, F {bound:.2f}, "
            f"S/F {lazy / fused / bound:.2f}; of the tasks alone S "
            f"{tasks[1] / tasks[0]:.2f}, S/F {tasks[1] / tasks[0] / bound:.2f}"
        )


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
