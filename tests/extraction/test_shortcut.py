"""Deeper layers from a stored map."""

import numpy as np
import pytest
import torch
from torch import nn

import embedkit as ek
from embedkit.extraction import jobs
from embedkit.extraction.strategy import shortcut


class Slow(nn.Module):
    """A stem that costs, then a cheap head."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.stem = nn.Sequential(
                nn.Conv2d(3, 64, 5, padding=2),
                nn.ReLU(inplace=True),
                nn.Conv2d(64, 64, 5, padding=2),
                nn.ReLU(inplace=True),
                nn.Conv2d(64, 4, 3, stride=4),
            )
            self.head = nn.Conv2d(4, 6, 1)
            self.fc = nn.Linear(6, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.head(self.relu(self.stem(x)))
        return self.fc(x.mean((2, 3)))


class _Bigger:
    def __call__(self, image):
        pixels = np.asarray(image.resize((48, 48)), np.float32) / 255
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())

    def __repr__(self):
        return "Bigger(48)"


@pytest.fixture(scope="module")
def slow():
    """The network."""
    return ek.load_network(Slow(), transform=_Bigger())


@pytest.fixture
def jobs_made(monkeypatch):
    """Where every pass started from."""
    seen = []
    true_start = jobs.cheaper_start

    def cheaper_start(*args):
        seen.append(true_start(*args))
        return seen[-1]

    monkeypatch.setattr(jobs, "cheaper_start", cheaper_start)
    return seen


@pytest.mark.slow
def test_deeper_layers_come_from_the_stored_map(photos, slow, tmp_path, jobs_made):
    """With the same bits, statuses and content hashes as from the images."""
    path = tmp_path / "s.zarr"
    ek.extract(photos, slow, path, layers=["stem.4"], pool="none")

    store = ek.extract(photos, slow, path, layers=["head", "fc"])

    whole = ek.extract(photos, slow, tmp_path / "w.zarr", layers=["head", "fc"])
    assert jobs_made == [None, "stem.4", None]
    for layer in ("head", "fc"):
        assert store[layer].values.tobytes() == whole[layer].values.tobytes()
        assert (
            store[layer]["status"].values.tolist()
            == whole[layer]["status"].values.tolist()
        )
        assert (
            store[layer]["error"].values.tolist()
            == whole[layer]["error"].values.tolist()
        )
    assert ek.verify(store, network=slow, sample=12).ok
    assert ek.extract(photos, slow, path, layers=["head"]).finished


def test_a_pooled_layer_is_no_place_to_start_from(photos, slow, tmp_path, jobs_made):
    """What was averaged is lost."""
    path = tmp_path / "s.zarr"
    ek.extract(photos, slow, path, layers=["stem.4"])

    ek.extract(photos, slow, path, layers=["fc"])

    assert jobs_made == [None, None]


def test_an_earlier_layer_does_not_follow_from_a_later_one(
    photos, slow, tmp_path, jobs_made
):
    """The map has to lie before every layer asked for."""
    path = tmp_path / "s.zarr"
    ek.extract(photos, slow, path, layers=["stem.4"], pool="none")

    ek.extract(photos, slow, path, layers=["stem.0", "fc"])

    assert jobs_made == [None, None]


def test_what_is_not_cheaper_is_not_done(
    photos, slow, tmp_path, jobs_made, monkeypatch
):
    """Either way is timed on the store's own images."""
    path = tmp_path / "s.zarr"
    ek.extract(photos, slow, path, layers=["stem.4"], pool="none")
    true_timed, order = shortcut._timed, []

    def timed(work):
        order.append(work.__name__)
        return true_timed(work)[0], {"from_images": 1.0, "from_maps": 2.0}[
            work.__name__
        ]

    monkeypatch.setattr(shortcut, "_timed", timed)

    ek.extract(photos, slow, path, layers=["fc"])

    assert order == ["from_images", "from_maps"]
    assert jobs_made == [None, None]


def test_other_bits_are_not_taken(photos, slow, tmp_path, jobs_made, monkeypatch):
    """A map that leads elsewhere (here: damaged) is not started from."""
    path = tmp_path / "s.zarr"
    store = ek.extract(photos, slow, path, layers=["stem.4"], pool="none")
    import zarr

    array = zarr.open_array(store.path, path="layers/stem.4/activation", mode="r+")
    array[0] = array[0] + 1e-3

    ek.extract(photos, slow, path, layers=["fc"])

    assert jobs_made == [None, None]


def test_a_map_of_a_store_without_a_readable_image_in_front_is_left_alone(
    photos, slow, tmp_path, jobs_made
):
    """Nothing could be compared."""
    for picture in sorted(photos.rglob("*.png"))[:32]:
        picture.write_bytes(b"no picture")
    path = tmp_path / "s.zarr"
    ek.extract(photos, slow, path, layers=["stem.4"], pool="none")

    ek.extract(photos, slow, path, layers=["fc"])

    assert jobs_made == [None, None]
