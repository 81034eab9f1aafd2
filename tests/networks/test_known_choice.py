"""Tests of speeds that are measured once, and of agreement that is looked at each time."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import embedkit as ek
from embedkit.networks import known_choice
from embedkit.networks.backend_choice import choose_backend
from embedkit.networks.known_choice import fastest_backend


@pytest.fixture
def network():
    """A small network."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 5)
    )
    return ek.load_network(
        module, transform=lambda image: torch.zeros(3, 12, 12), name="small"
    )


@pytest.fixture
def batch():
    """Pictures."""
    return np.random.default_rng(0).standard_normal((4, 3, 12, 12), np.float32)


@pytest.fixture
def races(monkeypatch, tmp_path):
    """What was measured in this test, with a cache folder of its own."""
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path / "cache"))
    made = []

    def count(*args, **kwargs):
        made.append(choose_backend(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(known_choice, "choose_backend", count)
    return made


def test_the_second_call_takes_the_speeds_of_the_first(network, batch, races):
    """Nothing is raced again; the figures are the same."""
    first = fastest_backend(network, "all", batch=batch)
    again = fastest_backend(network, "all", batch=batch)

    assert len(races) == 1
    assert again.backend == first.backend
    assert again.place == first.place
    speeds = {name: trial.images_per_second for name, trial in first.table.items()}
    assert speeds == {name: t.images_per_second for name, t in again.table.items()}


@pytest.mark.parametrize("change", ["layers", "pool", "batch", "threads"])
def test_another_question_is_measured_anew(change, network, batch, races):
    """Layers, pools, the size of a batch and the threads are part of it."""
    fastest_backend(network, "all", batch=batch)
    before = torch.get_num_threads()
    try:
        if change == "threads":
            torch.set_num_threads(before + 1)
        fastest_backend(
            network,
            "last" if change == "layers" else "all",
            pool="max" if change == "pool" else "avg",
            batch=batch[:2] if change == "batch" else batch,
        )
    finally:
        torch.set_num_threads(before)

    assert len(races) == 2


def test_a_backend_that_is_off_on_other_pictures_is_not_taken(
    network, batch, races, tmp_path
):
    """Whether rows agree is a matter of the pictures, so it is looked at every time."""
    fastest_backend(network, "all", batch=batch)
    (kept,) = (tmp_path / "cache" / "backends").iterdir()
    record = json.loads(kept.read_text())
    wrong = next(n for n in record["table"] if n.startswith("torch_"))
    record["backend"] = wrong
    record["table"][wrong]["images_per_second"] = 1e9
    kept.write_text(json.dumps(record))

    class Off:
        backend, layers, tolerance = wrong, ("0",), 1e-4

        def forward(self, batch):
            return {"0": np.zeros((len(batch), 4), np.float32)}

    true = type(network).taps
    given = lambda net, layers, **kw: (
        Off() if kw.get("backend") == wrong else true(net, layers, **kw)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(network), "taps", given)
        found = fastest_backend(network, "all", batch=batch)

    assert len(races) == 2
    assert found.backend != wrong


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"backend": "none", "table": {}, "place": null}']
)
def test_a_damaged_record_is_measured_again(text, network, batch, races, tmp_path):
    """And replaced."""
    fastest_backend(network, "all", batch=batch)
    (kept,) = (tmp_path / "cache" / "backends").iterdir()
    kept.write_text(text)

    fastest_backend(network, "all", batch=batch)
    fastest_backend(network, "all", batch=batch)

    assert len(races) == 2


def test_a_folder_that_cannot_be_written_is_no_error(
    network, batch, races, tmp_path, monkeypatch
):
    """Then it is measured each time."""
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path / "file"))

    fastest_backend(network, "all", batch=batch)
    fastest_backend(network, "all", batch=batch)

    assert len(races) == 2
