"""From a network's module to its graph, and from the graph to its layers."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from embedkit.errors import NetworkError
from embedkit.networks.measure import LayerMeter, Measured

ONE_AT_A_TIME = threading.RLock()
"""Held while a network is traced, measured or run. PyTorch already spreads a forward pass
over all cores, and tracing replaces ``nn.Module.__call__`` for the whole process."""

# What foreign code may raise when it is called with stand-ins instead of tensors, or
# with a picture of a size it does not expect.
FOREIGN_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Traced:
    """A network's forward pass as a graph.

    Attributes
    ----------
    module : GraphModule
        The graph, with the network's own submodules and weights.
    names : dict of str to str
        Canonical names by the node's name in the graph, in execution order, inputs
        left out.
    memory_format : torch.memory_format, default torch.contiguous_format
        How its weights of four axes lie in memory, and how pictures have to.
    """

    module: fx.GraphModule
    names: dict[str, str]
    memory_format: torch.memory_format = torch.contiguous_format


def one_line(error: BaseException) -> str:
    """Return the type of an error and the first line of what it says."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def trace(module: nn.Module, *, name: str) -> Traced:
    """Trace a network.

    Parameters
    ----------
    module : Module
        In evaluation mode. It is not changed.
    name : str
        For messages.

    Returns
    -------
    Traced
        The graph and the names of its nodes.

    Raises
    ------
    NetworkError
        When what the network does depends on the values it is given, or when it calls
        what cannot be traced.
    MissingDependencyError
        When torchvision, which names the nodes, cannot be loaded.
    """
    from embedkit.networks import torchvision_adapter

    # Tracing leaves constants on the module it is given: let that be a shallow copy.
    root = copy.copy(module)
    try:
        with ONE_AT_A_TIME:
            graph, names = torchvision_adapter.trace(root)
            traced = fx.GraphModule(root, graph).eval()
    except Exception as error:  # a network is anyone's code
        message = (
            f"network {name} cannot be traced ({one_line(error)}): move what depends "
            "on values into a function marked with torch.fx.wrap, or split the network "
            "before it"
        )
        raise NetworkError(message) from error
    return Traced(
        module=traced, names={node.name: path for node, path in names.items()}
    )


def channels_last(traced: Traced) -> Traced:
    """Return a copy of a traced network with the channels of its kernels last."""
    module = copy.deepcopy(traced.module).to(memory_format=torch.channels_last)
    return replace(traced, module=module, memory_format=torch.channels_last)


def measure(traced: Traced, image: NDArray[np.float32], *, name: str) -> Measured:
    """Run a traced network on one picture, as `measured_by` has it."""
    meter = LayerMeter(traced.module, traced.names)
    run = partial(meter.measure, layout=traced.memory_format)
    return measured_by(run, image, name=name)


def measured_by(
    run: Callable[[Tensor], Measured], image: NDArray[np.float32], *, name: str
) -> Measured:
    """Run a network on one picture and return its layers, and how they come about.

    Parameters
    ----------
    run : callable
        Measures the network on a picture (C, H, W).
    image : ndarray of float32, shape (C, H, W)
        A prepared picture. Its values do not matter, its size does.
    name : str
        For messages.

    Raises
    ------
    NetworkError
        When the network does not take such a picture, or has no layer that gives
        floating numbers for every image.
    """
    try:
        with ONE_AT_A_TIME:
            measured = run(torch.tensor(image))
    except Exception as error:  # a network is anyone's code
        message = (
            f"network {name} does not take the {image.shape} float32 picture that its "
            f"transform gives ({one_line(error)}): pass transform= that fits it"
        )
        raise NetworkError(message) from error
    if not measured.layers:
        message = (
            f"network {name} has no layer: no floating tensor with the batch in front "
            "depends on its input"
        )
        raise NetworkError(message)
    return measured
