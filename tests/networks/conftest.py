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
from torch.utils._pytree import tree_map_only

from embedkit.networks.load import load_network
from embedkit.networks.network import Network

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
