"""All that embedkit asks of torchvision. No other file imports it.

Import this module inside the function that needs it: torchvision takes a second to load,
and beside a PyTorch from another index it does not load at all.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from PIL import Image
from torch import Tensor, fx, nn

from embedkit.errors import MissingDependencyError, NetworkError, did_you_mean


def _found(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"


try:
    import torchvision
    from torchvision.models.feature_extraction import NodePathTracer
except (ImportError, RuntimeError) as _error:
    if isinstance(_error, RuntimeError) and "torchvision::" not in str(_error):
        raise
    _message = (
        f"torchvision cannot be loaded ({' '.join(str(_error).split())[:200]}): found "
        f"{_found('torch')} and {_found('torchvision')}; install both from the same "
        "index, for instance https://download.pytorch.org/whl/cpu"
    )
    raise MissingDependencyError(_message) from _error

# The official weights of these two expect inputs in another normalisation, which the
# builder switches on only when it downloads the weights itself.
_AS_TRAINED = {
    "googlenet": {"transform_input": True},
    "inception_v3": {"transform_input": True},
}
_OLD_DENSENET_KEY = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.")


def names() -> list[str]:
    """Return the names of all classification networks, sorted."""
    listed: list[str] = torchvision.models.list_models(module=torchvision.models)
    return listed


def find_weights(name: str, variant: str = "DEFAULT") -> Any:
    """Return the entry of torchvision's weights table for a network and a variant.

    Parameters
    ----------
    name : str
        One of `names`.
    variant : str, default "DEFAULT"
        ``"IMAGENET1K_V1"`` and so on.

    Raises
    ------
    NetworkError
        When there is no such network, or no such variant of it.
    """
    known = names()
    if name not in known:
        message = f"there is no network {name!r}. {did_you_mean(name, known)}"
        raise NetworkError(message)
    table = torchvision.models.get_model_weights(name)
    if variant == "DEFAULT":
        return table.DEFAULT
    variants = [each.name for each in table]
    if variant not in variants:
        nearest = did_you_mean(variant, [*variants, "DEFAULT"])
        message = f"network {name!r} has no weights {variant!r}. {nearest}"
        raise NetworkError(message)
    return table[variant]


def transform_of(entry: Any) -> Callable[[Image.Image], Tensor]:
    """Return the transform that the weights `entry` were trained with."""
    transform: Callable[[Image.Image], Tensor] = entry.transforms()
    return transform


def build(name: str) -> nn.Module:
    """Return a network with random weights."""
    with warnings.catch_warnings():
        # Two old networks announce another initialisation, which says nothing here.
        warnings.filterwarnings("ignore", "The default weight init", FutureWarning)
        module: nn.Module = torchvision.models.get_model(
            name, weights=None, **_AS_TRAINED.get(name, {})
        )
    return module


def download(name: str, entry: Any) -> nn.Module:
    """Return a network with the weights `entry`, downloaded or from the local cache.

    Raises
    ------
    NetworkError
        When they cannot be downloaded or arrive damaged.
    """
    try:
        # PyTorch announces a download on stdout, which belongs to the command's result.
        with contextlib.redirect_stdout(sys.stderr):
            module: nn.Module = torchvision.models.get_model(
                name, weights=entry, progress=False
            )
    except (OSError, RuntimeError) as error:
        message = (
            f"the weights {entry} could not be downloaded from {entry.url} "
            f"({' '.join(str(error).split())[:200]}): fetch that file yourself and pass "
            "weights=PATH, or weights=None for random ones"
        )
        raise NetworkError(message) from error
    return module


def modern_keys(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` under the names of today: old files of DenseNets have others."""
    if not name.startswith("densenet"):
        return dict(state)
    return {_OLD_DENSENET_KEY.sub(r"\1\2.", key): value for key, value in state.items()}


class _Tracer(NodePathTracer):  # type: ignore[misc]  # torchvision has no types
    """Remembers what it refused, because a network may catch the refusal."""

    refused: fx.proxy.TraceError | None = None

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Refuse to take a stand-in for true or false."""
        with self._remembered():
            return bool(super().to_bool(obj))

    def iter(self, obj: fx.Proxy) -> Any:
        """Refuse to go through a stand-in."""
        with self._remembered():
            return super().iter(obj)

    @contextlib.contextmanager
    def _remembered(self) -> Iterator[None]:
        try:
            yield
        except fx.proxy.TraceError as error:
            self.refused = error
            raise


def trace(root: nn.Module) -> tuple[fx.Graph, dict[fx.Node, str]]:
    """Trace `root` and name every node by its path, as torchvision's extractors do.

    Parameters
    ----------
    root : Module
        In evaluation mode.

    Returns
    -------
    graph : Graph
        What the forward method does, in order.
    names : dict
        The name of every node but the inputs: the path of a module, or the path of the
        module a function is called in and the function's name; repeated ones numbered.

    Raises
    ------
    TraceError
        When what `root` does depends on values, even if it goes on without them.
    """
    members = inspect.getmembers(torchvision.ops, inspect.isclass)
    leaves = [member for _, member in members if issubclass(member, nn.Module)]
    tracer = _Tracer(autowrap_modules=(math, torchvision.ops), leaf_modules=leaves)
    graph = tracer.trace(root)
    if tracer.refused is not None:
        raise tracer.refused
    return graph, {
        node: path
        for node, path in tracer.node_to_qualname.items()
        if node.op != "placeholder"
    }
