"""The fastest backend of those that are right, with the figures of all."""

from __future__ import annotations

import json
import os

import pytest

from embedkit.networks import backend_choice
from embedkit.networks.backend_choice import choose_backend
from embedkit.networks.backends import BACKENDS

CPU = [name for name in BACKENDS if name not in ("torch", "cuda_amp")]

pytestmark = pytest.mark.usefixtures("own_cache")


def test_choice_drops_what_disagrees_or_fails(noise, little):
    """Other values, and none at all, are kept out of the race with the reason."""
    batch = noise(2, 3, 8, 8)
    wrong = choose_backend(little("WritesThroughReshape"), "all", batch=batch)
    failed = choose_backend(little("Views"), "all", batch=batch)
    trial = wrong.table["torch_channels_last"]
    assert trial.images_per_second is None
    assert trial.max_error > 0.1
    assert "its rows of layer 'add' differ" in trial.reason
    assert "cannot run this network" in failed.table["torch_channels_last"].reason
    assert "torch_channels_last" not in (wrong.backend, failed.backend)


def test_choice_takes_the_fastest(digits, noise, monkeypatch):
    """The table has a number or a reason for every backend; the largest wins."""
    speeds = {"torch": 1.0, "torch_channels_last": 2.0, "torch_fused": 4.0}
    monkeypatch.setattr(
        backend_choice,
        "_race",
        lambda racing, batch: {name: speeds.get(name, 3.0) for name in racing},
    )
    found = choose_backend(digits, "stages", batch=noise(4, 1, 16, 16))
    assert found.backend == "torch_fused"
    assert tuple(found.table) == BACKENDS
    assert all(
        (trial.reason is None) == (trial.images_per_second is not None)
        for trial in found.table.values()
    )
    text = found.describe()
    assert text.startswith("backend 'torch_fused' for batches of 4 images:")
    assert "torch_fused: 4.0 images/s, largest relative error" in text
    plain = json.loads(json.dumps(found.to_json()))
    assert plain["images"] == 4
    assert plain["place"]["pid"] == os.getpid()
    assert text.endswith(f"\n  measured in {found.place}")


def test_every_backend_races(digits, noise):
    """Whatever can run here has a speed."""
    found = choose_backend(digits, "stages", batch=noise(4, 1, 16, 16))
    assert all(found.table[name].images_per_second > 0 for name in ("torch", *CPU))
