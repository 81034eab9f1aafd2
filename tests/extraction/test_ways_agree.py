"""The three ways give the same bits of every layer, the last one included."""

import dask
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import embedkit as ek

WEIGHTS = {
    "squeezenet1_0": "squeezenet1_0_imagenet_deepcompression.pt",
    "mobilenet_v2": "mobilenet_v2_tf2ptq_torchvision.pt",
}


class Sized:
    """Resize to a square and scale to -1..1."""

    def __init__(self, size):
        self.size = size

    def __call__(self, image):
        pixels = np.asarray(image.resize((self.size, self.size)), np.float32)
        return torch.from_numpy((pixels / 127.5 - 1).transpose(2, 0, 1).copy())

    def __repr__(self):
        return f"Sized({self.size})"


class Nasty(nn.Module):
    """Everything that makes a value hard to go on from."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(11)
            self.stem = nn.Conv2d(3, 12, 3, stride=2, padding=1)
            self.norm = nn.LayerNorm(12)
            self.left, self.right = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 1)
            self.deep = nn.Conv2d(12, 12, 3, padding=1)
            self.skip = nn.Conv2d(3, 12, 1, stride=2)
            self.fc = nn.Linear(12, 5)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.relu(self.stem(x))
        y = self.norm(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # strides stay behind
        a, b = y.chunk(2, 1)  # views of one memory
        a = self.left(a)
        a += b
        b = self.right(b).relu_()
        y = torch.cat([a, b], 1)
        z = self.deep(y)
        z[:, ::2].mul_(0.5)  # part of a value, in place
        z = z.double().tanh()  # more bits than a stored map has
        z = z.float() + self.skip(x)  # and the image once more
        return self.fc(self.relu(z).mean((2, 3)))


def _agree(photos, network, folder, **asked):
    """Extract each way; compare every layer, bit by bit."""
    stores = {}
    with dask.config.set(scheduler="sync"):
        for way in ("fused", "staged", "lazy"):
            stores[way] = ek.extract(
                photos, network, folder / f"{way}.zarr", strategy=way, **asked
            )
    for layer in stores["fused"]:
        expected = stores["fused"][layer].values
        assert np.isfinite(expected).all()
        assert expected.std() > 0
        for way in ("staged", "lazy"):
            assert stores[way][layer].values.tobytes() == expected.tobytes(), layer
    return stores["staged"]


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Seven pictures: blocks and batches are not full."""
    folder = tmp_path_factory.mktemp("few")
    rng = np.random.default_rng(3)
    for row in range(7):
        pixels = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{row}.png")
    return folder


@pytest.mark.parametrize(
    "pool", [pytest.param("avg", marks=pytest.mark.slow), "none", "max2x2"]
)
def test_a_nasty_network(pool, few, tmp_path):
    """Views, strides, writes in place, skips and double precision: any layer of it."""
    network = ek.load_network(Nasty(), transform=Sized(20))
    shapes = network.layers["shape"]
    maps = [layer for layer, shape in shapes.items() if len(shape) == 3]
    layers = {"avg": "all", "none": [*maps[1::3], "fc"], "max2x2": maps[::3]}[pool]

    store = _agree(few, network, tmp_path, layers=layers, pool=pool, batch_size=3)

    assert len(store) == len(shapes if pool == "avg" else layers)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "layers"),
    [
        ("squeezenet1_0", 64, ["stages", "features.3.expand1x1", "features.7.cat"]),
        ("resnet18", 64, ["stages", "layer1.0.conv1", "layer2.0.downsample.1"]),
        ("mobilenet_v2", 64, ["stages", "features.4.conv.1", "features.5.conv.3"]),
        ("vit_b_16", 224, ["encoder.layers.encoder_layer_1", "heads"]),
    ],
)
def test_networks_of_every_kind(name, size, layers, few, shared_data, tmp_path):
    """Fire modules, shortcuts, inverted bottlenecks and tokens; real weights if there."""
    weights = shared_data / "weights" / WEIGHTS[name] if name in WEIGHTS else None
    network = ek.load_network(name, weights=weights, transform=Sized(size))
    if name == "vit_b_16":  # whose last weights are zeros
        nn.init.normal_(network.module.heads.head.weight)

    _agree(few, network, tmp_path, layers=layers, batch_size=4)
