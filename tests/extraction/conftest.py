"""A tiny network with in-place ops, and pictures to give it."""

from contextlib import contextmanager
from importlib import import_module

import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster
from distributed.system import MEMORY_LIMIT
from PIL import Image
from torch import nn

from embedkit.extraction.asked import Asked
from embedkit.extraction.measure import probing
from embedkit.images.open import open_images
from embedkit.networks.load import load_network


class Tiny(nn.Module):
    """Two convolutions, a shared in-place ReLU and an in-place shortcut."""

    def __init__(self):
        """Build with fixed weights."""
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
            self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
            self.fc = nn.Linear(8, 4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        """Return four logits."""
        x = self.relu(self.conv1(x))
        y = self.conv2(x)
        y += x
        return self.fc(self.relu(y).mean((2, 3)))


class ToTensor:
    """Resize to 12 by 12 and scale to 0..1."""

    def __call__(self, image):
        """Return (3, 12, 12)."""
        pixels = np.asarray(image.resize((12, 12)), np.float32) / 255
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())

    def __repr__(self):
        """Describe the transform, for the store's identity."""
        return "ToTensor(12)"


@pytest.fixture(scope="session")
def network():
    """The tiny network."""
    return load_network(Tiny(), transform=ToTensor())


@pytest.fixture
def photos(tmp_path):
    """Forty noisy PNG files in two class folders, one of them no picture."""
    rng = np.random.default_rng(1)
    folder = tmp_path / "photos"
    for i in range(40):
        place = folder / ("cat", "dog")[i % 2] / f"{i:02d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (9 + i % 3, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place)
    (folder / "dog" / "17.png").write_bytes(b"this is no picture")
    return folder


@pytest.fixture
def images(photos):
    """The pictures, opened."""
    return open_images(photos)


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Measurements are kept among the test's files."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("EMBEDKIT_CACHE", str(folder))
    return folder


@pytest.fixture
def started(monkeypatch):
    """Measure in this process, and note the folder of each process that would start."""
    folders = []

    def run(module, folder, *, seconds):
        folders.append(folder)
        status = import_module(module).main(folder)
        torch.set_num_threads(threads)  # for this thread: it is the worker's, too
        return f"ended with status {status}" if status else ""

    threads = torch.get_num_threads()
    monkeypatch.setattr(probing, "_run", run)
    yield folders
    torch.set_num_threads(threads)


@pytest.fixture
def workers_here():
    """Makes a cluster of workers in this process, and a client of it."""

    @contextmanager
    def running(n_workers, threads):
        with (
            LocalCluster(
                processes=False,
                n_workers=n_workers,
                threads_per_worker=threads,
                memory_limit=int(MEMORY_LIMIT),  # of which tests take some
                dashboard_address=":0",
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client

    return running


@pytest.fixture
def ask(images, network):
    """Makes a call of `extract` of the tiny network."""

    def make(images=images, network=network, layers="all", pool="avg", **options):
        chosen = network.resolve(layers)
        return Asked(
            images=images,
            network=network,
            layers=chosen,
            pools=network.resolve_pools(pool, chosen),
            batch_size=8,
            **options,
        )

    return make
