"""The bundled network does what its record says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from embedkit.networks.bundled import train_digits
from embedkit.networks.bundled.digits import (
    RECORD,
    WEIGHTS,
    DigitsNetwork,
    DigitsTransform,
)
from embedkit.networks.bundled.digits_data import SEED, digits_split


@pytest.fixture(scope="module")
def split():
    """The digits, divided."""
    return digits_split()


def test_split_is_disjoint_stratified_and_fixed(split):
    """Every digit has its share in both parts, and no picture is in both."""
    shares = [
        np.bincount(labels) / len(labels)
        for labels in (split.train_labels, split.test_labels)
    ]
    np.testing.assert_allclose(*shares, atol=0.002)
    assert len(split.train_images) + len(split.test_images) == 1797
    again = digits_split()
    np.testing.assert_array_equal(again.test_images, split.test_images)
    np.testing.assert_array_equal(again.train_labels, split.train_labels)


def test_pictures_are_grey_bytes(split):
    """Ink is white, from 0 to 255, and its scale loses nothing."""
    for images in (split.train_images, split.test_images):
        assert images.dtype == np.uint8
        assert images.shape[1:] == (8, 8)
    assert set(np.unique(split.train_images)) == {
        round(255 * i / 16) for i in range(17)
    }
    assert split.test_labels.dtype == np.int64


def test_transform_agrees_with_training(digits, split):
    """An image seen as colour or as grey is what training saw."""
    grey = Image.fromarray(split.test_images[0])
    expected = train_digits._inputs(split.test_images[:1])[0].numpy()
    np.testing.assert_array_equal(digits.prepare(grey), expected)
    np.testing.assert_array_equal(digits.prepare(grey.convert("RGB")), expected)


def test_transform_maps_black_and_white():
    """The darkest and the brightest are minus one and one, at any size."""
    transform = DigitsTransform(size=4)
    assert transform(Image.new("L", (9, 5), 0)).tolist() == [[[-1.0] * 4] * 4]
    assert transform(Image.new("RGB", (1, 1), "white")).eq(1).all()


def test_bundled_files_are_small_and_recorded():
    """The weights fit into the package and their making is on record."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert WEIGHTS.stat().st_size < 600_000
    assert record["accuracy"] >= 0.98
    assert record["seed"] == SEED
    assert (record["train"], record["test"]) == (1347, 450)
    assert record["epochs"] == train_digits.EPOCHS
    assert {"python", "torch", "numpy"} <= set(record["versions"])


def test_recorded_accuracy_is_reached(digits, split):
    """Through the public way, from picture to score, it is as good as recorded."""
    batch = np.stack(
        [digits.prepare(Image.fromarray(image)) for image in split.test_images]
    )
    scores = digits.taps("fc").forward(batch)["fc"]
    reached = float((scores.argmax(1) == split.test_labels).mean())
    assert train_digits.agrees(reached)
    assert reached >= 0.98


def test_jitter_moves_and_keeps_the_background():
    """Pictures are moved a little and no frame appears around them."""
    torch.manual_seed(0)
    batch = torch.full((8, 1, 16, 16), -1.0)
    batch[:, :, 6:10, 6:10] = 1
    moved = train_digits._jitter(batch)
    assert moved.shape == batch.shape
    assert not moved.equal(batch)
    assert moved[:, :, 0, 0].eq(-1).all()
    assert moved.sum() == pytest.approx(float(batch.sum()), rel=0.05)


def test_agreement_is_half_a_point():
    """Two pictures more or less are the processor's, three are not."""
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))["accuracy"]
    assert train_digits.agrees(recorded - 2 / 450)
    assert not train_digits.agrees(recorded - 3 / 450)


@pytest.mark.slow
def test_command_writes_and_checks(tmp_path, monkeypatch, capsys):
    """One epoch is written with its record, and does not pass for thirty."""
    genuine = RECORD.read_text(encoding="utf-8")
    monkeypatch.setattr(train_digits, "WEIGHTS", tmp_path / "w.safetensors")
    monkeypatch.setattr(train_digits, "RECORD", tmp_path / "r.json")
    before = torch.get_rng_state()
    assert train_digits.main(["--epochs", "1"]) == 0
    assert torch.get_rng_state().equal(before)
    assert not torch.are_deterministic_algorithms_enabled()
    assert json.loads((tmp_path / "r.json").read_text())["epochs"] == 1
    assert (tmp_path / "w.safetensors").stat().st_size == WEIGHTS.stat().st_size
    assert capsys.readouterr().out.startswith("held-out accuracy 0.")
    (tmp_path / "r.json").write_text(genuine)
    assert train_digits.main(["--epochs", "1", "--check"]) == 1
    assert (tmp_path / "r.json").read_text() == genuine


@pytest.mark.slow
def test_training_again_gives_the_record():
    """The script makes what is bundled."""
    assert train_digits.main(["--check"]) == 0


@pytest.mark.slow
def test_training_is_reproducible(monkeypatch):
    """The same seed gives the same weights, whatever was drawn before."""
    monkeypatch.setattr(train_digits, "BATCH", 512)
    one = train_digits.train(epochs=1).network.state_dict()
    torch.rand(3)
    other = train_digits.train(epochs=1).network.state_dict()
    assert all(one[name].equal(other[name]) for name in one)
    assert one.keys() == DigitsNetwork().state_dict().keys()
