"""Queries go the way that the stored images went: network, pool, backend, dtype."""

import numpy as np
import pytest
import torch
from PIL import Image

import embedkit as ek
from embedkit.errors import IdentityMismatch, InputError, NetworkError
from embedkit.networks.network import Network
from embedkit.retrieval.embed import embedder_of


@pytest.mark.parametrize(
    ("pool", "backend"),
    [
        ("gem", "torch"),
        ("max2x2", "torch"),
        ("random_projection(8)", "torch"),
        ("avg", "torch_channels_last"),
        ("avg", "torch_fused"),
    ],
)
def test_rows_are_within_the_stores_tolerance(images, tmp_path, pool, backend):
    """What is computed for one image alone is what the store holds of it."""
    store = ek.extract(
        images[10:16],
        "embedkit/digits",
        tmp_path / "s.zarr",
        layers="stage2",
        pool=pool,
        backend=backend,
    )
    (name,) = store
    embedder = embedder_of(store, name)
    pictures = [Image.fromarray(images.read(row)) for row in range(10, 16)]

    found = embedder.rows(pictures[2:3], names=["one"])

    stored = store[name].values[2:3]
    scale = np.abs(stored).max()
    assert embedder.taps.backend == backend
    assert np.abs(found - stored).max() <= store.schema.passes[0].tolerance * scale


def test_many_images_go_in_batches_of_the_stores_size(store, images):
    """Ten images in batches of four: every row is that of its image."""
    embedder = embedder_of(store, "stage3.relu_1")
    pictures = [Image.fromarray(images.read(row)) for row in range(10, 20)]

    found = embedder.rows(pictures, names=["x"] * 10)

    np.testing.assert_allclose(
        found, store["stage3"].values[10:20], rtol=1e-4, atol=1e-4
    )
    assert embedder.rows([], names=[]).shape == (0, 64)


def test_the_reference_stands_in_for_a_backend_that_is_not_there(store, monkeypatch):
    """A store of a GPU can be searched without one; other troubles are told."""
    asked = []
    real = Network.taps

    def taps(self, layers, *, pool, backend="torch"):
        asked.append(backend)
        if backend != "torch":
            raise InputError("no GPU")
        return real(self, layers, pool=pool)

    monkeypatch.setattr(Network, "taps", taps)
    one = store.schema.passes[0]
    given = ek.load_network("embedkit/digits")
    object.__setattr__(one, "backend", "cuda_amp")

    embedder = embedder_of(store, "stage3.relu_1", network=given)

    assert asked == ["cuda_amp", "torch"]
    assert embedder.taps.backend == "torch"


def test_a_reference_that_fails_is_told(store, monkeypatch):
    """The reference itself has nothing to stand in for it."""

    def taps(self, layers, *, pool, backend="torch"):
        raise InputError("no such pool")

    monkeypatch.setattr(Network, "taps", taps)

    with pytest.raises(InputError, match="no such pool"):
        embedder_of(store, "stage3.relu_1", network=ek.load_network("embedkit/digits"))


class _AsItIs:
    """A transform that leaves the size alone."""

    def __call__(self, image):
        pixels = np.asarray(image, np.float32).transpose(2, 0, 1)[:1] / 16
        return torch.from_numpy(pixels.copy())

    def __repr__(self):
        return "AsItIs()"


def test_an_image_of_another_size_is_told(store):
    """A transform that does not resize gives queries that the network cannot take."""
    embedder = embedder_of(store, "stage3.relu_1")
    network = Network(embedder.network.module, name="own", transform=_AsItIs())
    odd = type(embedder)(embedder.spec, embedder.one, network, embedder.taps)

    with pytest.raises(NetworkError, match=r"gave shape \(1, 9, 9\) for 'odd' and"):
        odd.rows([Image.new("RGB", (9, 9))], names=["odd"])


def test_each_layer_of_two_networks_has_its_own(images, tmp_path, table):
    """A query goes through the network of the layer; one for the other is refused."""
    first = ek.load_network("embedkit/digits")
    second = ek.load_network("embedkit/digits", weights=None, name="random")
    store = ek.extract(
        images[10:16], [first, second], tmp_path / "two.zarr", layers="stage3"
    )
    plain, other = store

    for layer in (plain, other):
        found = ek.search(store, table["path"][12], layer=layer, n_neighbors=1)
        assert found["id"].tolist() == ["1/12"]
    with pytest.raises(IdentityMismatch, match="was made with other weights"):
        ek.search(store, table["path"][12], layer=other, network=first)
