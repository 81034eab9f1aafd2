"""The process that measures, as it is: started, ended, compared with real runs."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from distributed import Client, LocalCluster

import embedkit as ek
from embedkit.errors import PlanError
from embedkit.extraction.asked import Asked
from embedkit.extraction.measure import probing
from embedkit.extraction.measure.measuring import measure
from embedkit.extraction.measure.rough import rough
from embedkit.images.open import open_images
from embedkit.networks.load import load_network
from embedkit.planning.memory import MemoryModel

_ALONE = """
import sys, torch, torchvision

def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

torch.set_num_threads(1)
net = getattr(torchvision.models, sys.argv[1])(weights=None).eval()
batch = torch.zeros(int(sys.argv[2]), 3, 224, 224)
with torch.inference_mode():
    net(batch[:1])  # kernels are read from the disk
    before = status("VmRSS:")
    net(batch)
print(status("VmHWM:") - before)
"""
"""Plain PyTorch: what a forward pass adds to a process that holds the network."""

_CASES = {
    "squeezenet1_0": {"layers": "stages", "pool": "avg", "batch_size": 16},
    "resnet18": {"layers": "blocks", "pool": "none", "dtype": "float16"},
}


class Deadly:
    """A transform that kills every process but the one that made it."""

    def __init__(self, inner):
        self.inner, self.home = inner, os.getpid()

    def __call__(self, image):
        if os.getpid() != self.home:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.inner(image)


def _asked(images, network, *, layers="stages", pool="avg", **options):
    chosen = network.resolve(layers)
    pools = network.resolve_pools(pool, chosen)
    return Asked(
        images=images,
        network=network,
        layers=chosen,
        pools=pools,
        **{"batch_size": 8, **options},
    )


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Measurements are kept among the test's files."""
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module", params=_CASES)
def real(request, shared_data, tmp_path_factory):
    """A known network on photos: the call, how it was asked, and what was measured."""
    images = open_images(shared_data / "clothing_cc0" / "test")[:32]
    network = load_network(request.param, weights="none")
    how = _CASES[request.param]
    asked = _asked(images, network, **how)
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("measured")
        patch.setenv("EMBEDKIT_CACHE", str(folder / "cache"))
        yield asked, how, measure([asked])


def _workers():
    return LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0"
    )


@pytest.mark.slow
def test_a_forward_pass_needs_what_plain_pytorch_needs(real):
    """Within a third; taps add little where they are pooled, more where maps are kept."""
    asked, _, found = real
    (net,) = found.networks
    kept = sum(layer.buffer_bytes for layer in net.layers if len(layer.shape) > 1)
    worker = {"MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    alone = subprocess.run(
        [sys.executable, "-c", _ALONE, asked.network.name, "8"],
        env={**os.environ, **worker},
        capture_output=True,
        check=True,
        text=True,
    )

    plain = int(alone.stdout)
    projected = net.memory.at(8)

    assert plain / 1.33 < projected < 1.33 * plain + 2 * 8 * kept


@pytest.mark.slow
def test_a_worker_needs_no_more_than_projected(real, tmp_path):
    """Nor less than two thirds of it: a projection that is too large wastes workers."""
    asked, how, found = real
    with _workers() as cluster, Client(cluster):
        store = ek.extract(
            asked.images,
            asked.network,
            tmp_path / "s.zarr",
            **{"batch_size": 8, **how},
        )
    (one,) = store.schema.passes
    peak = max(each.peak_mem for each in store.commits(one).values())
    projected = MemoryModel.of(found).projected_mem(
        batch=one.batch_size, block=one.block, threads=1, decode_threads=2
    )

    assert peak <= projected <= 1.5 * peak


@pytest.mark.slow
def test_rules_of_thumb_are_on_the_safe_side(real):
    """Of a worker's memory for one task and many images, and of sizes that are exact."""
    asked, _, found = real

    guess = rough([asked])

    how = {"batch": 8, "block": 32, "threads": 1, "decode_threads": 2}
    measured = MemoryModel.of(found).projected_mem(**how)
    assert measured <= MemoryModel.of(guess).projected_mem(**how) <= 4 * measured
    assert guess.layers == found.layers
    assert guess.networks[0].input_bytes == found.networks[0].input_bytes


@pytest.mark.slow
def test_a_worker_process_measures_in_another(images, network, tmp_path, cache):
    """What it finds comes back, and a transform that kills takes no worker with it."""
    asked = _asked(images, network, layers="all")
    deadly = load_network(network.module, transform=Deadly(network.transform))
    with _workers() as cluster, Client(cluster) as client:
        before = client.run(os.getpid)
        found = measure([asked])
        with pytest.raises(
            PlanError, match=r"'Tiny' cannot be measured.*signal 9.*while loading"
        ):
            measure([replace(asked, network=deadly)])
        assert client.run(os.getpid) == before

    assert found.networks[0].loaded > 0
    assert min(each.peak for each in found.networks[0].forward) >= 0
    assert found.reserved > 100 * 10**6
    assert measure([asked]) != found, "this process is no worker"


def test_a_process_that_takes_too_long_is_ended(tmp_path):
    """It had not even begun."""
    assert "had not ended after 0 s" in probing._run(
        probing._PROBE, tmp_path, seconds=0.01
    )


@pytest.mark.slow
def test_a_process_without_a_job_says_how_it_ended(tmp_path):
    """What it printed is kept for the message."""
    assert (
        probing._run(probing._PROBE, tmp_path, seconds=100.0) == "ended with status 1"
    )

    assert "FileNotFoundError" in (tmp_path / probing.SAID).read_text()


def test_a_worker_like_process_gives_memory_back(monkeypatch):
    """As Dask's nannies set it, unless this process was told otherwise."""
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")

    found = probing._environment()

    assert found["MALLOC_TRIM_THRESHOLD_"] == "65536"
    assert found["OMP_NUM_THREADS"] == "7"
    assert all(Path(each).is_absolute() for each in found["PYTHONPATH"].split(":"))


def test_rules_of_thumb_are_arithmetic(images, network):
    """More layers, more images or a second network need more; nothing is run."""
    threads = torch.get_num_threads()
    few = rough([_asked(images, network, layers=["conv1"])])
    many = rough([_asked(images, network, layers="all", pool="none")])
    both = rough([_asked(images, network), _asked(images, network)])

    assert few.networks[0].memory.per_image < many.networks[0].memory.per_image
    assert few.forward_seconds(8) < many.forward_seconds(8)
    assert both.block_seconds == 2 * few.block_seconds
    assert {layer.name.startswith("Tiny/") for layer in both.networks[1].layers} == {
        True
    }
    assert torch.get_num_threads() == threads
