"""Every backend gives the values of the reference, or says that it cannot."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from embedkit.errors import InputError, MissingDependencyError, NetworkError
from embedkit.networks import backend_choice
from embedkit.networks.backend_choice import choose_backend
from embedkit.networks.backends import BACKENDS, FusedTaps, Taps, largest_error
from embedkit.networks.converted import cache_folder, find_converted, keep_converted
from embedkit.networks.load import load_network

CPU = [name for name in BACKENDS if name not in ("torch", "cuda_amp")]


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    """Keep converted networks out of the user's folders."""
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path_factory.mktemp("cache")))


class Nasty(nn.Module):
    """Works in place on a normalised value, by modules, operators and functions."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.norm(self.conv(x))
        y = self.relu(x)
        y += 1
        return functional.relu(y - 1.2, inplace=True).flatten(1)


class WritesToView(nn.Module):
    """Writes to a map by way of a window on it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)

    def forward(self, x):
        whole = self.conv(x)
        whole[:, :3].mul_(0)
        return whole.flatten(1)


class Views(nn.Module):
    """Takes a map for one long vector."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        x = self.conv(x)
        return x.view(x.shape[0], -1)


class WritesThroughReshape(nn.Module):
    """Clears a map by way of a vector that shares its memory, or does not."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        x = self.conv(x)
        x.reshape(x.shape[0], -1).mul_(0)
        return x + 1


def sized(size):
    """A transform that gives square pictures of some size."""
    return lambda image: torch.zeros(3, size, size)


def little(module):
    """A network of a module for pictures of 8 × 8."""
    torch.manual_seed(0)
    return load_network(module, transform=sized(8))


def assert_agrees(network, batch, backend):
    """Compare all layers, unpooled, with the reference."""
    expected = network.taps("all", pool="none").forward(batch)
    taps = network.taps("all", pool="none", backend=backend)
    found = taps.forward(batch)
    assert taps.backend == backend
    assert list(found) == list(expected)
    for layer, value in expected.items():
        assert found[layer].flags.c_contiguous
        assert found[layer].dtype == np.float32
        assert found[layer].shape == value.shape
        assert largest_error(found[layer], value) <= taps.tolerance, layer


@pytest.mark.parametrize("backend", CPU)
def test_in_place_work_reaches_no_tap(backend, noise):
    """Rectifiers, sums and views in place leave every layer as it was."""
    batch = noise(3, 3, 8, 8)
    before = batch.copy()
    assert_agrees(little(Nasty()), batch, backend)
    np.testing.assert_array_equal(batch, before)


@pytest.mark.parametrize("backend", ["torch_channels_last", "torch_fused"])
def test_writing_to_a_view_reaches_the_whole(backend, noise):
    """PyTorch's backends write through a window; all layers are as they were."""
    assert_agrees(little(WritesToView()), noise(3, 3, 8, 8), backend)


def test_openvino_refuses_writing_to_a_view(noise):
    """What OpenVINO cannot convert is refused, never computed otherwise."""
    taps = little(WritesToView()).taps("all", pool="none", backend="openvino")
    message = "'openvino' cannot convert this network .Conversion is failed for: .*use"
    with pytest.raises(NetworkError, match=re.compile(message)) as caught:
        taps.forward(noise(3, 3, 8, 8))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_networks_agree(name, backend, noise):
    """All layers of residual and dense networks are the reference's."""
    network = load_network(name, weights=None, transform=sized(64))
    assert_agrees(network, noise(2, 3, 64, 64), backend)


@pytest.mark.slow
@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("squeezenet1_0", "squeezenet1_0_imagenet_deepcompression.pt"),
        ("mobilenet_v2", "mobilenet_v2_tf2ptq_torchvision.pt"),
    ],
)
def test_trained_networks_agree(name, file, backend, weights_folder, noise):
    """All layers of trained networks are the reference's."""
    network = load_network(name, weights=weights_folder / file, transform=sized(96))
    assert_agrees(network, noise(2, 3, 96, 96), backend)


@pytest.mark.parametrize("backend", CPU)
def test_rows_do_not_depend_on_other_rows(backend, digits, noise):
    """A row is the same bit by bit among others and in a batch filled with zeros."""
    taps = digits.taps("all", backend=backend)
    one, two = noise(4, 1, 16, 16), noise(4, 1, 16, 16, seed=1)
    two[1], two[2:] = one[1], 0
    first, second = taps.forward(one), taps.forward(two)
    for layer in taps.layers:
        np.testing.assert_array_equal(first[layer][1], second[layer][1])


def test_channels_last_starts_with_the_same_bits(digits, noise):
    """From a stored map, channels last gives what the whole run gives."""
    batch, backend = noise(3, 1, 16, 16), "torch_channels_last"
    start, rest = "stage1.relu_1", ["stage2.add", "stage3", "fc"]
    raw = digits.taps([start], pool="none", backend=backend).forward(batch)[start]
    whole = digits.taps(rest, backend=backend).forward(batch)
    found = digits.taps(rest, start=start, backend=backend).forward(raw)
    for layer, value in whole.items():
        np.testing.assert_array_equal(found[layer], value)


def test_openvino_starts_within_its_tolerance(digits, noise):
    """From a stored map, OpenVINO gives what the reference gives."""
    start, rest = "stage1.relu_1", ["stage2.add", "fc"]
    raw = digits.taps([start], pool="none").forward(noise(3, 1, 16, 16))[start]
    expected = digits.taps(rest, start=start).forward(raw)
    taps = digits.taps(rest, start=start, backend="openvino")
    for layer, value in taps.forward(raw).items():
        assert largest_error(value, expected[layer]) <= taps.tolerance


def test_views_of_maps_fail_with_channels_last(noise):
    """Why channels last is no reference: a view may fail, and says so."""
    batch = noise(2, 3, 8, 8)
    taps = little(Views()).taps("all", backend="torch_channels_last")
    message = r"'torch_channels_last' cannot run this network \(.*use backend='torch'"
    with pytest.raises(NetworkError, match=message) as caught:
        taps.forward(batch)
    assert "\n" not in str(caught.value)


def test_choice_drops_what_disagrees_or_fails(noise):
    """Other values, and none at all, are kept out of the race with the reason."""
    batch = noise(2, 3, 8, 8)
    wrong = choose_backend(little(WritesThroughReshape()), "all", batch=batch)
    failed = choose_backend(little(Views()), "all", batch=batch)
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
    assert json.loads(json.dumps(found.to_json()))["images"] == 4


def test_every_backend_races(digits, noise):
    """Whatever can run here has a speed."""
    found = choose_backend(digits, "stages", batch=noise(4, 1, 16, 16))
    assert all(found.table[name].images_per_second > 0 for name in ("torch", *CPU))


def test_fusing_keeps_tapped_pairs(noise):
    """A pair is folded only where neither of its values is tapped."""
    network = little(Nasty())
    fused = {
        layer: [
            str(node.target)
            for node in network.taps([layer], backend="torch_fused")._module.graph.nodes
            if node.op == "call_module"
        ]
        for layer in ("conv", "norm", "relu")
    }
    assert fused == {
        "conv": ["conv"],
        "norm": ["conv", "norm"],
        "relu": ["_fused_0", "relu"],
    }
    assert isinstance(network.taps("all", backend="torch_fused"), FusedTaps)


def test_backends_leave_the_module_alone(noise):
    """Neither the module given nor the network's own is laid out anew."""
    module = Nasty()
    network = little(module)
    for backend in CPU:
        network.taps("relu", backend=backend).forward(noise(2, 3, 8, 8))
    for one in (module, network.module):
        assert one.conv.weight.is_contiguous()
        assert list(dict(one.named_modules())) == ["", "conv", "norm", "relu"]


def test_unknown_backends_are_named(digits):
    """A typing error gets the nearest backend."""
    with pytest.raises(
        InputError, match=r"no backend 'openvin'\. Did you mean 'openvino"
    ):
        digits.taps("fc", backend="openvin")


def test_missing_openvino_is_named(digits, monkeypatch):
    """Without the extra, the message says which it is."""
    monkeypatch.delitem(
        sys.modules, "embedkit.networks.openvino_adapter", raising=False
    )
    monkeypatch.delattr(
        sys.modules["embedkit.networks"], "openvino_adapter", raising=False
    )
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependencyError, match=r"embedkit\[openvino\]"):
        digits.taps("fc", backend="openvino")


def test_openvino_refuses_what_it_computes_otherwise(digits, noise, monkeypatch):
    """A converted graph that disagrees with PyTorch is never used or kept."""
    from embedkit.networks import openvino_adapter

    monkeypatch.setattr(openvino_adapter, "_compiled", {})
    monkeypatch.setattr(openvino_adapter, "largest_error", lambda found, true: 0.5)
    message = "'openvino' gives other values of layer 'fc' .by 5.0e-01.: use backend="
    with pytest.raises(NetworkError, match=message):
        digits.taps("fc", backend="openvino").forward(noise(2, 1, 16, 16))
    assert not cache_folder().exists() or not list(cache_folder().iterdir())


def test_openvino_converts_once(digits, noise, monkeypatch):
    """The next process reads what this one kept; damage is converted again."""
    from embedkit.networks import openvino_adapter

    batch = noise(2, 1, 16, 16)
    monkeypatch.setattr(openvino_adapter, "_compiled", {})
    first = digits.taps("all", backend="openvino").forward(batch)
    (kept,) = cache_folder().iterdir()
    converted = []
    true_convert = openvino_adapter.convert_model

    def convert(*args, **kwargs):
        converted.append(1)
        return true_convert(*args, **kwargs)

    monkeypatch.setattr(openvino_adapter, "convert_model", convert)
    openvino_adapter._compiled.clear()
    again = digits.taps("all", backend="openvino").forward(batch)
    assert not converted
    for layer, value in first.items():
        np.testing.assert_array_equal(again[layer], value)
    again.clear()
    openvino_adapter._compiled.clear()
    (kept / "sha256").write_text("damaged")
    digits.taps("all", backend="openvino").forward(batch)
    assert converted == [1]


def test_openvino_reports_nothing(run_python):
    """The package that would send reports is never loaded."""
    script = (
        "import sys\n"
        "from embedkit.networks import openvino_adapter\n"
        "print([name for name in sys.modules if 'openvino_telemetry' in name])"
    )
    assert run_python(script) == "[]"


def test_cache_keeps_whole_entries_and_few(tmp_path):
    """What is written is found; more than eight are not kept; failures leave nothing."""
    for number in range(10):
        keep_converted(
            tmp_path, f"key{number}", write=lambda path: path.write_text("model")
        )
    found = [number for number in range(10) if find_converted(tmp_path, f"key{number}")]
    assert len(found) == 8

    def fail(path):
        raise RuntimeError

    keep_converted(tmp_path, "failed", write=fail)
    assert find_converted(tmp_path, "failed") is None
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("platform", ["win32", "darwin", "linux"])
def test_cache_is_where_the_system_has_caches(platform, monkeypatch, tmp_path):
    """Every system has its own folder for them."""
    for name in ("EMBEDKIT_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", platform)
    expected = {
        "win32": "AppData/Local/embedkit",
        "darwin": "Library/Caches/embedkit",
        "linux": ".cache/embedkit",
    }
    assert cache_folder() == tmp_path / expected[platform]


def test_errors_are_relative_to_rows():
    """NaN in one place alone, and numbers where zeros should be, are infinitely wrong."""
    true = np.float32([[1, np.nan], [0, 0]])
    assert largest_error(true.copy(), true) == 0
    assert largest_error(np.float32([[np.nan, 1], [0, 0]]), true) == np.inf
    assert largest_error(np.float32([[1, np.nan], [0, 1]]), true) == np.inf


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_said(digits):
    """Half precision on a GPU needs one."""
    with pytest.raises(InputError, match=r"'cuda_amp' was asked for .* finds no GPU"):
        digits.taps("fc", backend="cuda_amp")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_half_precision_agrees(digits, noise):
    """On a GPU, half precision is within its tolerance."""
    assert_agrees(digits, noise(4, 1, 16, 16), "cuda_amp")


def test_tap_graphs_are_taps(digits):
    """Every backend has what the protocol names."""
    names = [name for name in vars(Taps)["__annotations__"] if not name.startswith("_")]
    for backend in ("torch", *CPU):
        taps = digits.taps("fc", backend=backend)
        assert all(hasattr(taps, name) for name in names)
