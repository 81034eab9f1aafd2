"""All that embedkit asks of timm. No other file imports it.

Import this module inside the function that needs it: timm takes seconds to load, and
comes only with the extra ``timm``.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

from PIL import Image
from torch import Tensor, nn

from embedkit.errors import MissingDependencyError, NetworkError, did_you_mean

PREFIX = "timm/"
"""What the names of timm's networks begin with here."""

try:
    import timm
    import timm.models
    from timm.data.config import resolve_model_data_config
    from timm.data.transforms_factory import create_transform
except (ImportError, RuntimeError) as _error:
    _message = (
        "a network of timm was asked for, and timm cannot be loaded "
        f"({' '.join(str(_error).split())[:200]}): install it with pip install "
        "'embedkit[timm]'"
    )
    raise MissingDependencyError(_message) from _error


def check_name(asked: str) -> str:
    """Return timm's own name of a network.

    Parameters
    ----------
    asked : str
        ``"timm/vit_tiny_patch16_224"``; ``"timm/vit_tiny_patch16_224.augreg_in21k"``
        chooses among its weights.

    Raises
    ------
    NetworkError
        When timm has no such network, or no such weights of it.
    """
    name = asked.removeprefix(PREFIX)
    architecture, dot, _ = name.partition(".")
    known = timm.list_models()
    if architecture not in known:
        nearest = did_you_mean(asked, [f"{PREFIX}{each}" for each in known])
        raise NetworkError(f"there is no network {asked!r} in timm. {nearest}")
    if dot:
        _check_variant(asked, architecture)
    return name


def _check_variant(asked: str, architecture: str) -> None:
    variants = [
        f"{PREFIX}{each}" for each in timm.models.get_arch_pretrained_cfgs(architecture)
    ]
    if asked not in variants:
        nearest = did_you_mean(asked, [*variants, f"{PREFIX}{architecture}"])
        raise NetworkError(f"timm has no weights {asked!r}. {nearest}")


def build(name: str) -> nn.Module:
    """Return a network with random weights."""
    module: nn.Module = timm.create_model(name, pretrained=False)
    return module


def download(name: str) -> nn.Module:
    """Return a network with its weights, downloaded or from the local cache.

    Raises
    ------
    NetworkError
        When it has none, or when they cannot be downloaded or arrive damaged.
    """
    try:
        # What is said on the way does not belong to the command's result.
        with contextlib.redirect_stdout(sys.stderr):
            module: nn.Module = timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:
        message = (
            f"the weights of {PREFIX}{name} could not be downloaded "
            f"({' '.join(str(error).split())[:200]}): fetch the file of its weights "
            "yourself and pass weights=PATH, or weights=None for random ones"
        )
        raise NetworkError(message) from error
    return module


def transform_of(module: nn.Module) -> Callable[[Image.Image], Tensor]:
    """Return the transform that timm evaluates a network with."""
    settings: dict[str, Any] = resolve_model_data_config(module)
    transform: Callable[[Image.Image], Tensor] = create_transform(
        **settings, is_training=False
    )
    return transform
