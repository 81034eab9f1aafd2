"""The way in which a network's layers are computed: what was asked for, or the cheapest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from embedkit.errors import InputError
from embedkit.networks.network import Network
from embedkit.networks.taps import BACKEND
from embedkit.planning.measurement import Measurement, NetworkMeasurement
from embedkit.planning.strategies import Rates, Strategy
from embedkit.planning.strategy_choice import (
    AskedStrategy,
    check_strategy,
    choose_strategy,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How the layers of a network are computed.

    Parameters
    ----------
    strategy : Strategy
        ``"fused"``, ``"staged"`` or ``"lazy"``; see `embedkit.planning.strategies`.
    why : str
        In a line, for people.
    asked : bool
        Whether the user asked for it by name: what an earlier call began otherwise is
        then finished this way, too.
    costs : tuple of str
        What every way would take, a line each; empty where nothing was measured.
    """

    strategy: Strategy = "fused"
    why: str = "one pass over the images repeats nothing, and nothing was measured"
    asked: bool = False
    costs: tuple[str, ...] = ()

    @property
    def about(self) -> dict[str, str]:
        """What a store says of it; nothing where it is fused."""
        if self.strategy == "fused":
            return {}
        return {"strategy": self.strategy, "strategy_why": self.why}


FUSED: Final = Way()
"""What is done where nothing is known and nothing was asked for."""


def way_of(
    network: Network,
    strategy: AskedStrategy,
    *,
    backend: str = BACKEND,
    measured: Measurement | None = None,
    n_images: int = 1,
    batch: int = 1,
    scratch_limit: int | None = None,
    buffer_limit: int | None = None,
) -> Way:
    """Return the way to compute a network's layers, and why.

    Parameters
    ----------
    network : Network
        The network.
    strategy : {"auto", "fused", "staged", "lazy"}
        What was asked for. ``"auto"`` is the cheapest way that can be taken where the
        network was measured, else ``"fused"``.
    backend : str, default "torch"
        What executes the network.
    measured : Measurement, optional
        A measurement with a network of that name, and the layers asked for.
    n_images, batch : int
        Images in all, and of a forward pass.
    scratch_limit, buffer_limit : int, optional
        See `embedkit.planning.strategy_choice.choose_strategy`.

    Raises
    ------
    InputError
        When there is no such way, or ``"staged"`` was asked for and is impossible.
    PlanError
        When no way fits the limits, or the one asked for does not.
    """
    check_strategy(strategy)
    obstacle = _obstacle(network, backend)
    if strategy == "staged" and obstacle:
        message = (
            f"strategy='staged' was asked for, and {obstacle}: use strategy='fused', or "
            "'lazy' where layers have to be computed one by one"
        )
        raise InputError(message)
    sizes = _sizes(network, measured)
    if measured is None or sizes is None:
        if strategy == "auto":
            return FUSED
        return Way(strategy=strategy, why="asked for", asked=True)
    found = choose_strategy(
        sizes.layers,
        Rates.of(measured, sizes, batch=batch),
        n_images=n_images,
        strategy=strategy,
        scratch_limit=scratch_limit,
        buffer_limit=buffer_limit,
        impossible={"staged": obstacle} if obstacle else {},
    )
    lines = tuple(found.explanation.splitlines())
    asked = strategy != "auto"
    why = "asked for" if asked else "; ".join(lines)
    return Way(strategy=found.strategy, why=why, asked=asked, costs=lines)


def _sizes(network: Network, measured: Measurement | None) -> NetworkMeasurement | None:
    known = () if measured is None else measured.networks
    return next((each for each in known if each.name == network.name), None)


def _obstacle(network: Network, backend: str) -> str:
    """Say why a network's layers cannot be computed from stored maps, if so."""
    if not network.traced:
        return (
            f"{network.name} cannot be traced, so that nothing tells which of its layers "
            "follow from which"
        )
    if backend != BACKEND:
        return (
            f"backend {backend!r} does not give a stored map the bits it had on its way; "
            f"{BACKEND!r} does"
        )
    return ""
