"""Networks to try, and the truth about their layers."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.utils._pytree import tree_map_only

from embedkit.networks.backends import Backend
from embedkit.networks.load import load_network
from embedkit.networks.network import Network
from embedkit.networks.row_errors import largest_error

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def digits() -> Network:
    """The bundled network with its weights."""
    return load_network("embedkit/digits")


@pytest.fixture(scope="session")
def resnet18() -> Network:
    """A network that overwrites a quarter of its values."""
    return load_network("resnet18", weights=None)


@pytest.fixture(scope="session")
def weights_folder() -> Path:
    """Real weights files, which are not part of the repository."""
    default = ROOT.parent / "shared" / "data"
    folder = Path(os.environ.get("EMBEDKIT_SHARED_DATA", default)) / "weights"
    if not folder.is_dir():
        pytest.skip(f"no shared weights in {folder}: set EMBEDKIT_SHARED_DATA")
    return folder


class _Recorder(fx.Interpreter):
    """Runs a graph and clones every value before the next node runs."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.values[n.name] = value.clone()
        return value


@pytest.fixture(scope="session")
def truth() -> Callable[[nn.Module, np.ndarray], dict[str, Tensor]]:
    """The value of every node of a module, cloned the moment it is computed."""
    from torchvision.models import feature_extraction as extraction

    def values(module: nn.Module, batch: np.ndarray) -> dict[str, Tensor]:
        options = extraction._set_default_tracer_kwargs(None)
        tracer = extraction.NodePathTracer(**options)
        graph = tracer.trace(module)
        recorder = _Recorder(fx.GraphModule(module, graph))
        with torch.inference_mode():
            recorder.run(torch.tensor(batch))
        return {
            path: recorder.values[node.name]
            for node, path in tracer.node_to_qualname.items()
            if node.op != "placeholder" and node.name in recorder.values
        }

    return values


@pytest.fixture(scope="session")
def called() -> Callable[[nn.Module, np.ndarray], dict[str, Any]]:
    """What every call of every module returned, cloned the moment it returned."""

    def values(module: nn.Module, batch: np.ndarray) -> dict[str, Any]:
        module, found = copy.deepcopy(module), {}

        def watch(path: str) -> Callable[..., None]:
            def keep(part: nn.Module, given: object, value: object) -> None:
                number = sum(name.startswith(f"{path}#") for name in found)
                found[f"{path}#{number}"] = tree_map_only(Tensor, Tensor.clone, value)

            return keep

        for path, part in module.named_modules():
            part.register_forward_hook(watch(path or "forward"))
        with torch.inference_mode():
            module(torch.tensor(batch))
        return found

    return values


@pytest.fixture(scope="session")
def noise() -> Callable[..., np.ndarray]:
    """Batches of float32 noise."""

    def make(*shape: int, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return rng.standard_normal(shape, dtype=np.float32)

    return make


@pytest.fixture(scope="session")
def run_python() -> Callable[..., str]:
    """Run a script in a new interpreter and return what it printed."""

    def run(script: str, *arguments: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


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


_MODULES = {
    kind.__name__: kind for kind in (Nasty, WritesToView, Views, WritesThroughReshape)
}


@pytest.fixture
def own_cache(tmp_path_factory, monkeypatch) -> None:
    """Keep converted networks out of the user's folders."""
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def sized() -> Callable[[int], Callable[..., Tensor]]:
    """Transforms that give square pictures of some size."""
    return lambda size: lambda image: torch.zeros(3, size, size)


@pytest.fixture(scope="session")
def little(sized) -> Callable[[str | nn.Module], Network]:
    """Networks for pictures of 8 × 8, of a module or of a class in this file."""

    def make(module: str | nn.Module) -> Network:
        torch.manual_seed(0)
        own = _MODULES[module]() if isinstance(module, str) else module
        return load_network(own, transform=sized(8))

    return make


@pytest.fixture(scope="session")
def assert_agrees() -> Callable[[Network, np.ndarray, Backend], None]:
    """Compare all layers, unpooled, with the reference."""

    def check(network: Network, batch: np.ndarray, backend: Backend) -> None:
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

    return check
