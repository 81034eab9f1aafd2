"""Images a second, against plain PyTorch with its best settings. Printed, never judged.

``make bench`` times it in full; among the tests it runs once over a few images. Outputs
are compared before a time is shown. Every arm has the same weights, transform, batch size
and cores, and writes to disk; importing and loading are not timed.
"""

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

import dask
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.models.feature_extraction import create_feature_extractor

import embedkit as ek

FULL = os.environ.get("EMBEDKIT_BENCH") == "1"
N_IMAGES = 192 if FULL else 16
REPEATS = 3 if FULL else 1
BATCH = 16
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2

# Layers that nothing overwrites in place, so that the plain extractor is right as well.
LAYERS = {
    "resnet18": [
        *["conv1", "maxpool", "layer1.0.relu_1", "layer1.1.relu_1"],
        *["layer2.0.relu_1", "layer2.1.relu_1", "layer3.0.relu_1"],
        *["layer3.1.relu_1", "layer4.0.relu_1", "layer4.1.relu_1", "avgpool", "fc"],
    ],
    "resnet50": [
        *["layer1.2.relu_2", "layer2.3.relu_2", "layer3.5.relu_2"],
        *["layer4.2.relu_2", "fc"],
    ],
}


@dataclass
class Arm:
    """One way to do the work, and what it took."""

    name: str
    work: object
    seconds: list[float] = field(default_factory=list)

    @property
    def rate(self):
        """Images a second, of the fastest run: others were disturbed."""
        return N_IMAGES / min(self.seconds)


@pytest.fixture(scope="module")
def jpegs(shared_data, tmp_path_factory):
    """Real photos, 500 by 375 pixels, as JPEG files."""
    folder = tmp_path_factory.mktemp("jpegs")
    photos = sorted((shared_data / "clothing_cc0").rglob("*.jpg"))[:N_IMAGES]
    for number, photo in enumerate(photos):
        with Image.open(photo) as image:
            image.convert("RGB").resize((500, 375)).save(
                folder / f"{number:04d}.jpg", quality=90
            )
    return sorted(folder.iterdir())


class Photos(Dataset):
    """What anyone would write for a DataLoader."""

    def __init__(self, paths, transform):
        self.paths, self.transform = paths, transform

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, row):
        with Image.open(self.paths[row]) as image:
            return self.transform(image.convert("RGB"))


@contextmanager
def _threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _plain(network, paths, layers, folder, *, threads, workers):
    """PyTorch's DataLoader and torchvision's extractor, averaged, into memory maps."""
    extractor = create_feature_extractor(network.module, layers).eval()
    loader = DataLoader(
        Photos(paths, network.transform),
        batch_size=BATCH,
        num_workers=workers,
    )
    out, row = {}, 0
    with _threads(threads), torch.inference_mode():
        for batch in loader:
            for layer, value in extractor(batch).items():
                pooled = value.mean((2, 3)) if value.ndim == 4 else value.flatten(1)
                if layer not in out:
                    shape = (len(paths), pooled.shape[1])
                    out[layer] = np.lib.format.open_memmap(
                        folder / f"{layer}.npy", "w+", np.float32, shape
                    )
                out[layer][row : row + len(batch)] = pooled.numpy()
            row += len(batch)
    for values in out.values():
        values.flush()
    os.sync()
    return out


def _embedkit(network, paths, layers, folder, **options):
    with _threads(CORES), dask.config.set(scheduler="synchronous"):
        store = ek.extract(
            paths,
            network,
            folder / "s.zarr",
            layers=layers,
            batch_size=BATCH,
            **options,
        )
    os.sync()
    return store


def _bare(taps, batches):
    with _threads(CORES):
        for batch in batches:
            taps.forward(batch)


def _run(arms, folder):
    """Run the arms in turn, so that a disturbance meets all of them."""
    results = {}
    for turn in range(REPEATS):
        for arm in arms:
            place = folder / f"{arm.name.replace(' ', '-')}-{turn}"
            place.mkdir()
            began = time.perf_counter()
            found = arm.work(place)
            arm.seconds.append(time.perf_counter() - began)
            results.setdefault(arm.name, found)
    return results


def _same(found, expected, layers):
    """Refuse to compare the times of different numbers."""
    for layer in layers:
        wanted = np.asarray(expected[layer])
        error = np.abs(np.asarray(found[layer]) - wanted).max()
        assert error <= 1e-4 * np.abs(wanted).max(), (layer, error)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(LAYERS))
def test_extraction_against_plain_pytorch(name, jpegs, tmp_path, capsys):
    """JPEG files to pooled layers on disk, and the forward pass alone."""
    network, layers = ek.load_network(name, weights="none"), LAYERS[name]
    taps = network.taps(layers)
    pictures = [network.prepare(Image.open(path)) for path in jpegs]
    batches = [np.stack(pictures[i : i + BATCH]) for i in range(0, N_IMAGES, BATCH)]
    settings = {(1, 1), (CORES, 0), (CORES, 1)}
    plain = [
        Arm(
            f"plain {threads} threads {workers} loaders",
            lambda place, threads=threads, workers=workers: _plain(
                network, jpegs, layers, place, threads=threads, workers=workers
            ),
        )
        for threads, workers in sorted(settings)
    ]
    ours = Arm("embedkit", lambda place: _embedkit(network, jpegs, layers, place))
    bare = Arm("forward alone", lambda _: _bare(taps, batches))

    results = _run([*plain, ours, bare], tmp_path)

    for arm in plain:
        _same(results[ours.name], results[arm.name], layers)
    best = max(arm.rate for arm in plain)
    stages = {
        stage: round(seconds, 2)
        for stage, seconds in results[ours.name].info()["seconds"].items()
    }
    with capsys.disabled():
        print(f"\n{name}, {len(layers)} layers, {N_IMAGES} images, {CORES} cores")
        for arm in (*plain, ours, bare):
            print(
                f"  {arm.name}: {arm.rate:.1f} images/s = {arm.rate / best:.2f} plain"
            )
        print(f"  embedkit: {ours.rate / bare.rate:.2f} of the forward alone; {stages}")
