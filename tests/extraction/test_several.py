"""Several networks over one reading of the images."""

import numpy as np
import pytest
import torch
from torch import nn

import embedkit as ek
from embedkit.errors import InputError
from embedkit.images.source import FileSource
from embedkit.networks.load import load_network


class Wide(nn.Module):
    """Another network, with another transform."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.conv = nn.Conv2d(3, 5, 3)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.conv(x)).flatten(1)


class Small:
    """Resize to 6 by 6."""

    def __call__(self, image):
        pixels = np.asarray(image.resize((6, 6)), np.float32) / 255
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())

    def __repr__(self):
        return "Small(6)"


@pytest.fixture(scope="module")
def wide():
    """The other network."""
    return load_network(Wide(), transform=Small(), name="wide")


@pytest.fixture
def reads(monkeypatch):
    """The uris that were decoded, one entry each time."""
    seen = []
    true = FileSource.load

    def load(self, uri):
        seen.append(uri)
        return true(self, uri)

    monkeypatch.setattr(FileSource, "load", load)
    return seen


def _same(store, layer, alone, own):
    np.testing.assert_array_equal(store[layer].values, alone[own].values)


def test_every_image_is_decoded_once_for_all_networks(
    images, network, wide, tmp_path, reads
):
    """N images, two networks: N decodes, and the numbers of two separate stores."""
    store = ek.extract(images, [network, wide], tmp_path / "both.zarr", layers="all")

    assert sorted(reads) == sorted(images.table["uri"])
    first = ek.extract(images, network, tmp_path / "a.zarr", layers="all")
    second = ek.extract(images, wide, tmp_path / "b.zarr", layers="all")
    assert [*store] == [*first, *(f"wide/{layer}" for layer in second)]
    for layer in first:
        _same(store, layer, first, layer)
    for layer in second:
        _same(store, f"wide/{layer}", second, layer)
    assert store.images["error"].equals(first.images["error"])
    assert ek.verify(store, network=None).ok


def test_each_network_can_have_layers_of_its_own(images, network, wide, tmp_path):
    """A mapping from names; one that is not there is said to be missing."""
    path = tmp_path / "s.zarr"
    layers = {network.name: ["fc"], "wide": "last"}

    store = ek.extract(images, [network, wide], path, layers=layers)

    assert [*store] == ["fc", "wide/flatten"]
    with pytest.raises(InputError, match=r"nothing of network 'wide', only of Tiny"):
        ek.extract(images, [network, wide], path, layers={network.name: ["fc"]})


def test_a_block_that_one_network_has_is_computed_for_the_other_alone(
    images, network, wide, tmp_path, reads
):
    """After losing one record, that pass's rows are read again and nothing else."""
    path = tmp_path / "s.zarr"
    store = ek.extract(images, [network, wide], path, layers="last")
    before = {layer: store[layer].values for layer in store}
    one = store.schema.passes[1]
    (records,) = (path / "_embedkit" / "commits").glob(f"{one.key}*.jsonl")
    records.write_text("".join(records.read_text().splitlines(keepends=True)[1:]))
    rows = store.schema.grid(one).rows(0)
    reads.clear()

    again = ek.extract(images, [network, wide], path, layers="last")

    assert sorted(reads) == sorted(images.table["uri"].iloc[rows])
    for layer, values in before.items():
        np.testing.assert_array_equal(again[layer].values, values)


def test_a_second_network_joins_with_more_layers_of_the_first(
    images, network, wide, tmp_path, reads
):
    """What is missing of both is computed over one reading, in its own batch size."""
    path = tmp_path / "s.zarr"
    ek.extract(images, network, path, layers=["conv1"], batch_size=4)
    reads.clear()

    store = ek.extract(images, [network, wide], path, layers="last", batch_size=16)

    assert sorted(reads) == sorted(images.table["uri"])
    assert [one.batch_size for one in store.schema.passes] == [4, 4, 16]
    fc = ek.extract(images, network, tmp_path / "a.zarr", layers="last", batch_size=4)
    flat = ek.extract(images, wide, tmp_path / "b.zarr", layers="last", batch_size=16)
    _same(store, "fc", fc, "fc")
    _same(store, "wide/flatten", flat, "flatten")


def test_seconds_are_on_account_of_the_pass_that_spent_them(
    images, network, wide, tmp_path
):
    """What both have in common counts once, with the first."""
    store = ek.extract(images, [network, wide], tmp_path / "s.zarr")

    first, second = (
        next(iter(store.commits(one).values())).seconds for one in store.schema.passes
    )
    assert {"decode", "wait"} <= first.keys()
    assert second.keys() == {"transform", "forward", "pool", "write", "total"}
    assert second["total"] == pytest.approx(
        second["forward"] + second["pool"] + second["write"]
    )


@pytest.mark.parametrize("networks", [[], ()])
def test_no_network_is_refused(images, networks, tmp_path):
    """An empty list is no network."""
    with pytest.raises(InputError, match="no network was given"):
        ek.extract(images, networks, tmp_path / "s.zarr")


def test_networks_of_one_name_are_refused(images, network, tmp_path):
    """Nothing is written; the name and the remedy are given."""
    with pytest.raises(InputError, match=r"two networks are called 'Tiny'.*name="):
        ek.extract(images, [network, network], tmp_path / "s.zarr")

    assert not (tmp_path / "s.zarr").exists()
