"""The way in which a network's layers are computed: what was asked for, or the cheapest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from embedkit.errors import InputError
from embedkit.networks.network import Network
from embedkit.networks.taps import BACKEND
from embedkit.planning.plan import Plan
from embedkit.planning.strategies import AskedStrategy, Strategy, check_strategy


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
    """

    strategy: Strategy = "fused"
    why: str = "one pass over the images repeats nothing, and nothing was measured"
    asked: bool = False

    @property
    def about(self) -> dict[str, str]:
        """What a store says of it; nothing where it is fused."""
        if self.strategy == "fused":
            return {}
        return {"strategy": self.strategy, "strategy_why": self.why}


FUSED: Final = Way()
"""What is done where nothing is known and nothing was asked for."""


def way_of(network: Network, strategy: AskedStrategy, *, backend: str = BACKEND) -> Way:
    """Return the way to compute a network's layers, before anything is planned.

    Parameters
    ----------
    network : Network
        The network.
    strategy : {"auto", "fused", "staged", "lazy"}
        What was asked for; ``"auto"`` is ``"fused"`` as long as no plan says otherwise.
    backend : str, default "torch"
        What executes the network.

    Raises
    ------
    InputError
        When there is no such way, or ``"staged"`` was asked for and is impossible.
    """
    asked = check_strategy(strategy)
    reason = obstacle(network, backend)
    if asked == "staged" and reason:
        message = (
            f"strategy='staged' was asked for, and {reason}: use strategy='fused', or "
            "'lazy' where layers have to be computed one by one"
        )
        raise InputError(message)
    if asked == "auto":
        return FUSED
    return Way(strategy=asked, why="asked for", asked=True)


def planned_way(network: Network, plan: Plan, *, backend: str, asked: bool) -> Way:
    """Return the way that a plan has chosen.

    Parameters
    ----------
    network : Network
        The network.
    plan : Plan
        The plan.
    backend : str
        What executes the network.
    asked : bool
        See `Way`.

    Raises
    ------
    InputError
        When it is ``"staged"`` and that is impossible.
    """
    way = way_of(network, plan.strategy, backend=backend)
    why = next((str(each) for each in plan.alternatives if each.chosen), way.why)
    return replace(way, why=f"planned: {why}", asked=asked)


def obstacle(network: Network, backend: str) -> str:
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
