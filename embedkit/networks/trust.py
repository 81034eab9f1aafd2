"""Whether a traced graph may stand for the network it was traced from.

Tracing runs a network with stand-ins instead of tensors. A network that catches errors of
its own may catch the one by which a stand-in refuses to be looked at, go another way than
it goes with pictures, and leave a graph of that way. So the graph is run beside the
network once, and where they do not give the same bits the network is run as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from embedkit.networks.graph_program import GraphProgram
from embedkit.networks.hooks import HookProgram
from embedkit.networks.measure import Measured, visible_attention
from embedkit.networks.program import Program
from embedkit.networks.tracing import ONE_AT_A_TIME, one_line

Run = Callable[[Tensor], object]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """How a network is run, and what measuring it so has shown."""

    program: Program
    measured: Measured


def see(
    program: Program,
    module: nn.Module,
    *,
    name: str,
    probe: NDArray[np.float32],
    sample: NDArray[np.float32],
) -> Seen:
    """Measure a network, by its graph only where that does what the network does.

    Parameters
    ----------
    program : Program
        How it is to be run.
    module : Module
        The network itself.
    name : str
        For messages.
    probe, sample : ndarray of float32, shape (C, H, W)
        Prepared pictures: one to measure with, and one whose values tell ways apart.

    Returns
    -------
    Seen
        With a `HookProgram` where the graph is not to be trusted.

    Raises
    ------
    NetworkError
        When the network does not take such pictures, or has no layer.
    """
    if isinstance(program, GraphProgram):
        doubt = disagreement(program.traced.module, module, sample)
        if doubt is not None:
            program = HookProgram(module=module, reason=doubt)
    return Seen(program=program, measured=program.measure(probe, name=name))


def disagreement(graph: Run, network: Run, image: NDArray[np.float32]) -> str | None:
    """Return how a graph differs from its network on a picture; None where it does not.

    Parameters
    ----------
    graph, network : callable
        From a batch to what the network returns.
    image : ndarray of float32, shape (C, H, W)
        A prepared picture.

    Returns
    -------
    str or None
        In one line. None also where the network itself fails: that is not the graph's
        fault, and measuring tells it.

    Notes
    -----
    Equal means bit by bit: both run the same kernels in the same order on the CPU. What
    draws random numbers as it runs is never equal, not even to itself.
    """
    batch = torch.tensor(image)[None]  # 1 C H W
    with (
        ONE_AT_A_TIME,
        torch.inference_mode(),
        visible_attention(),
        torch.random.fork_rng(devices=[]),
    ):
        try:
            expected = _values(network, batch)
        except Exception:  # noqa: BLE001 - a network is anyone's code
            return None
        try:
            found = _values(graph, batch)
        except Exception as error:  # noqa: BLE001 - as above
            return f"its traced graph fails where it does not ({one_line(error)})"
        if _same(found, expected):
            return None
        if not _same(_values(network, batch), expected):
            return "it gives other values each time it runs"
    return "its traced graph gives other values than it gives itself"


def _values(run: Run, batch: Tensor) -> list[Any]:
    """Return the tensors in what a run gives, copied before anything can change them."""
    leaves = tree_leaves(run(batch.clone()))  # clone: it may work in place
    return [leaf.clone() for leaf in leaves if isinstance(leaf, Tensor)]


def _same(found: list[Tensor], expected: list[Tensor]) -> bool:
    return len(found) == len(expected) and all(map(_equal, found, expected))


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())  # noqa: PLR0124 - NaN
