"""Images a second, against plain PyTorch with its best settings. Printed, never judged.

``make bench`` times it in full; among the tests it runs once over a few images. Outputs
are compared before a time is shown. Every arm has the same weights, transform, batch size
and cores, and writes to disk; importing and loading are not timed, nor is the first run of
``auto``, which measures the backends and converts the network once for this machine.
"""

import dask
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.models.feature_extraction import create_feature_extractor

import embedkit as ek

BATCH = 16

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
BACKENDS = ("torch", "torch_channels_last", "torch_fused", "auto")


class Photos(Dataset):
    """What anyone would write for a DataLoader."""

    def __init__(self, paths, transform):
        self.paths, self.transform = paths, transform

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, row):
        with Image.open(self.paths[row]) as image:
            return self.transform(image.convert("RGB"))


def _plain(network, paths, layers, folder, *, workers):
    """PyTorch's DataLoader and torchvision's extractor, averaged, into memory maps."""
    extractor = create_feature_extractor(network.module, layers).eval()
    photos = Photos(paths, network.transform)
    out, row = {}, 0
    with torch.inference_mode():
        for batch in DataLoader(photos, batch_size=BATCH, num_workers=workers):
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
    return out


def _same(found, expected, layers):
    """Refuse to compare the times of different numbers."""
    for layer in layers:
        wanted = np.asarray(expected[layer])
        error = np.abs(np.asarray(found[layer]) - wanted).max()
        assert error <= 1e-4 * np.abs(wanted).max(), (layer, error)


@pytest.fixture
def arms(arm, threads, cores, tmp_path):
    """Return the arms for a network, layers and photos: plain, ours, forward alone."""

    def plain(network, layers, photos, count, workers):
        def work(place):
            with threads(count):
                return _plain(network, photos, layers, place, workers=workers)

        return arm(f"plain, {count} threads, {workers} loaders", work)

    def ours(network, layers, photos, backend):
        def work(place):
            with threads(cores), dask.config.set(scheduler="synchronous"):
                return ek.extract(
                    photos,
                    network,
                    place / "s.zarr",
                    layers=layers,
                    batch_size=BATCH,
                    backend=backend,
                )

        return arm(f"embedkit, {backend}", work)

    def bare(network, layers, backend, batches):
        taps = network.taps(layers, backend=backend)

        def work(_):
            with threads(cores):
                for batch in batches:
                    taps.forward(batch)

        return arm(f"forward alone, {backend}", work)

    def make(network, layers, photos):
        pictures = [network.prepare(Image.open(path)) for path in photos]
        starts = range(0, len(pictures), BATCH)
        batches = [np.stack(pictures[first : first + BATCH]) for first in starts]
        # Once, untimed: it measures the backends and keeps the converted network.
        first = ours(network, layers, photos, "auto").work(tmp_path / "first")
        chosen = first.schema.passes[0].backend
        settings = sorted({(1, 1), (cores, 0), (cores, 1)})
        return (
            [plain(network, layers, photos, *setting) for setting in settings],
            [ours(network, layers, photos, backend) for backend in BACKENDS],
            [
                bare(network, layers, each, batches)
                for each in dict.fromkeys(["torch", chosen])
            ],
        )

    return make


@pytest.mark.slow
@pytest.mark.parametrize("name", list(LAYERS))
def test_extraction_against_plain_pytorch(name, arms, race, jpegs, cores, capsys):
    """JPEG files to pooled layers on disk, and the forward pass alone."""
    network, layers = ek.load_network(name, weights="none"), LAYERS[name]
    photos = jpegs if name == "resnet18" else jpegs[: max(16, len(jpegs) // 2)]
    plain, ours, bare = arms(network, layers, photos)

    results = race([*plain, *ours, *bare])

    for each in [*plain[1:], *ours]:
        _same(results[each.name], results[plain[0].name], layers)
    best = min(each.best for each in plain)
    auto = ours[-1]
    info = results[auto.name].info()
    stages = {stage: round(took, 2) for stage, took in info["seconds"].items()}
    with capsys.disabled():
        print(f"\n{name}, {len(layers)} layers, {len(photos)} images, {cores} cores")
        for each in (*plain, *ours, *bare):
            rate = len(photos) / each.best
            print(f"  {each.name}: {rate:.1f} images/s = {best / each.best:.2f} plain")
        ratio = bare[-1].best / auto.best
        print(f"  auto: {ratio:.2f} of {bare[-1].name}; seconds {stages}")
