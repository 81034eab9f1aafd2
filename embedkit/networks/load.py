"""From a name, or a module of one's own, to a `Network`."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import torch
from torch import nn

from embedkit.errors import InputError, NetworkError, did_you_mean
from embedkit.networks.bundled.digits import WEIGHTS, DigitsNetwork, DigitsTransform
from embedkit.networks.network import Network
from embedkit.networks.prepare import Transform
from embedkit.networks.weights import load_strictly, read_weights
from embedkit.networks.wrappers import refuse_scripts, unwrap_inside, unwrapped

Weights = str | os.PathLike[str] | None
Loaded: TypeAlias = tuple[nn.Module, Transform]

_BUNDLED = "embedkit/digits"
_TIMM = "timm/"
_SEED = 0
_NONE = "none"


def load_network(
    network: str | nn.Module,
    *,
    weights: Weights = "default",
    transform: Transform | None = None,
    name: str | None = None,
) -> Network:
    """Load a network to look at images with.

    Parameters
    ----------
    network : str or Module
        ``"embedkit/digits"``, which comes with embedkit; the name of any classification
        network of torchvision, such as ``"resnet50"``, where
        ``"resnet50.IMAGENET1K_V1"`` chooses among its weights; ``"timm/"`` and the name
        of a network of timm, such as ``"timm/vit_tiny_patch16_224"``; or a module of
        your own, of which a copy is made; what wraps it, as `torch.compile` and
        ``DataParallel`` do, is left off.
    weights : "default", "none", path or None, default "default"
        ``"default"``: those of the name (downloaded once), or those a module holds. A
        path: a state dict in a .pt, .pth or .safetensors file, which has to fit exactly.
        None or ``"none"``: random weights, the same ones every time; a module keeps its
        own.
    transform : callable, optional
        From a PIL image to a float tensor (C, H, W). By default the one that the
        network's published weights were trained with. A module of your own needs it.
    name : str, optional
        What to call it, to tell networks apart that are kept in one store. By default
        the name that was asked for, or the class of the module.

    Returns
    -------
    Network
        In evaluation mode. Neither the module given nor the state of any random number
        generator has changed.

    Raises
    ------
    InputError
        When `network` is neither a name nor a module, or a module without `transform`,
        or when `name` cannot be used as one.
    NetworkError
        When the name is unknown, when the weights cannot be downloaded, read or loaded,
        or when a module is TorchScript.
    MissingDependencyError
        When torchvision is missing or does not fit the installed PyTorch, or when a
        network of timm is asked for without the extra ``timm``.

    Examples
    --------
    >>> load_network("embedkit/digits").resolve("stages")
    ('stage1.relu_1', 'stage2.relu_1', 'stage3.relu_1', 'fc')
    """
    called = None if name is None else _checked_name(name)
    file = None if weights == _NONE else weights
    if isinstance(network, nn.Module):
        network = unwrapped(network)
        own, bound = _load_module(network, weights=file, transform=transform)
        return Network(own, name=called or type(network).__name__, transform=bound)
    asked = _asked(network)
    module, bound = _loader(asked)(asked, weights=file, transform=transform)
    return Network(
        module,
        name=called or asked,
        transform=bound,
        asked=asked,
        weights=_source(file),
    )


def _loader(asked: str) -> Callable[..., Loaded]:
    if asked == _BUNDLED:
        return _load_digits
    return _load_timm if asked.startswith(_TIMM) else _load_torchvision


def _checked_name(name: object) -> str:
    """Return a name that can be part of a path in a store, on any system."""
    parts = name.split("/") if isinstance(name, str) else [""]
    fits = isinstance(name, str) and name.isprintable() and "\\" not in name
    if fits and all(part and part[0] not in "._" for part in parts):
        return str(name)
    message = (
        f"name={name!r} was given: a network's name has to be printable text such as "
        "'resnet50/mine', whose parts between slashes are not empty and begin with "
        "neither '.' nor '_', without backslashes"
    )
    raise InputError(message)


def _source(weights: Weights) -> str:
    """Return weights in a form that can be passed to `load_network` later."""
    if weights is None or weights == "default":
        return _NONE if weights is None else "default"
    return str(Path(weights).absolute())


def _asked(network: object) -> str:
    if isinstance(network, str):
        return network
    message = (
        f"a network of type {type(network).__name__} was given: pass a name such as "
        "'resnet50' or a torch.nn.Module"
    )
    raise InputError(message)


def _load_module(
    module: nn.Module, *, weights: Weights, transform: Transform | None
) -> Loaded:
    name = type(module).__name__
    if transform is None:
        message = (
            f"the module {name} was given without a transform: pass what turns a PIL "
            "image into its input, for instance transform=torchvision.transforms.Compose("
            "[Resize((224, 224)), ToTensor()])"
        )
        raise InputError(message)
    refuse_scripts(module, name=name)
    own = copy.deepcopy(module)
    unwrap_inside(own)
    if weights is not None and weights != "default":
        load_strictly(own, read_weights(weights), name=name, source=weights)
    return own, transform


def _load_digits(name: str, *, weights: Weights, transform: Transform | None) -> Loaded:
    module = _random(DigitsNetwork)
    if weights is not None:
        path = WEIGHTS if weights == "default" else weights
        load_strictly(module, read_weights(path), name=name, source=path)
    return module, transform or DigitsTransform()


def _load_torchvision(
    asked: str, *, weights: Weights, transform: Transform | None
) -> Loaded:
    from embedkit.networks import torchvision_adapter as adapter

    name, dot, variant = asked.partition(".")
    known = adapter.names()
    if name not in known:
        nearest = did_you_mean(asked, [*known, _BUNDLED])
        message = (
            f"there is no network {asked!r} in torchvision or embedkit. {nearest} "
            "Those of timm begin with 'timm/'. Any other can be passed as a torch.nn.Module with transform="
        )
        raise NetworkError(message)
    entry = adapter.find_weights(name, variant if dot else "DEFAULT")
    if weights == "default":
        module = _random(lambda: adapter.download(name, entry))
    else:
        module = _random(lambda: adapter.build(name))
        if weights is not None:
            state = adapter.modern_keys(name, read_weights(weights))
            load_strictly(module, state, name=asked, source=weights)
    return module, transform or adapter.transform_of(entry)


def _load_timm(asked: str, *, weights: Weights, transform: Transform | None) -> Loaded:
    from embedkit.networks import timm_adapter as adapter

    name = adapter.check_name(asked)
    make = adapter.download if weights == "default" else adapter.build
    module = _random(lambda: make(name))
    if weights is not None and weights != "default":
        load_strictly(module, read_weights(weights), name=asked, source=weights)
    return module, transform or adapter.transform_of(module)


def _random(make: Callable[[], nn.Module]) -> nn.Module:
    """Return what `make` makes, its weights drawn from a generator of their own."""
    with _own_generator():
        return make()


@contextmanager
def _own_generator() -> Iterator[None]:
    # Only the CPU's: torch.manual_seed would reach the GPUs' as well.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_SEED)
        yield
