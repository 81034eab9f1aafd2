"""Which of the ways to compute several layers is cheapest, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, get_args

from embedkit.errors import InputError, PlanError, did_you_mean
from embedkit.planning.measurement import LayerSize
from embedkit.planning.strategies import (
    Rates,
    Strategy,
    StrategyCost,
    strategy_costs,
)
from embedkit.planning.units import told_bytes, told_seconds

AskedStrategy: TypeAlias = Strategy | Literal["auto"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The way chosen, and why.

    Parameters
    ----------
    strategy : Strategy
        Which.
    costs : tuple of StrategyCost
        Of all ways, for one image.
    explanation : str
        One line a way, for people.
    """

    strategy: Strategy
    costs: tuple[StrategyCost, ...]
    explanation: str


def check_strategy(strategy: str) -> AskedStrategy:
    """Return what was asked for, if there is such a way.

    Raises
    ------
    InputError
        With the nearest one.
    """
    if strategy == "auto" or strategy in get_args(Strategy):
        return cast(AskedStrategy, strategy)
    nearest = did_you_mean(str(strategy), [*get_args(Strategy), "auto"])
    raise InputError(f"layers cannot be computed {strategy!r}. {nearest}")


def choose_strategy(
    layers: Sequence[LayerSize],
    rates: Rates,
    *,
    n_images: int,
    strategy: AskedStrategy = "auto",
    scratch_limit: int | None = None,
    buffer_limit: int | None = None,
    impossible: Mapping[Strategy, str] | None = None,
) -> Choice:
    """Return the cheapest way that fits, or the one asked for, with its reasons.

    Parameters
    ----------
    layers : sequence of LayerSize
        Of one network, at least one.
    rates : Rates
        How fast things are.
    n_images : int
        Images.
    strategy : {"auto", "fused", "staged", "lazy"}, default "auto"
        Which way; the cheapest by default, and of equally cheap ones the first of these.
    scratch_limit : int, optional
        Bytes of disk that maps nobody asked for may take.
    buffer_limit : int, optional
        Bytes that the rows of one image may take in a task.
    impossible : mapping of str to str, optional
        Ways that cannot be taken whatever they cost, and why.

    Raises
    ------
    InputError
        When there is no such way, or no layer.
    PlanError
        When no way fits, or the one asked for does not.
    """
    check_strategy(strategy)
    costs = strategy_costs(layers, rates)
    why = {
        each.strategy: (impossible or {}).get(each.strategy)
        or _unfit(each, n_images, scratch_limit, buffer_limit)
        for each in costs
    }
    asked = [each for each in costs if strategy in ("auto", each.strategy)]
    fitting = [each for each in asked if not why[each.strategy]]
    if not fitting:
        raise PlanError(_refused(asked, why))
    best = min(fitting, key=lambda each: each.seconds)
    lines = [_line(each, n_images, why[each.strategy], best) for each in costs]
    return Choice(strategy=best.strategy, costs=costs, explanation="\n".join(lines))


def _unfit(
    found: StrategyCost,
    n_images: int,
    scratch_limit: int | None,
    buffer_limit: int | None,
) -> str:
    """Say why a way does not fit; nothing where it does."""
    scratch = found.scratch_bytes * n_images
    if scratch_limit is not None and scratch > scratch_limit:
        return f"needs {told_bytes(scratch)} of disk besides, {told_bytes(scratch_limit)} allowed"
    if buffer_limit is not None and found.buffer_bytes > buffer_limit:
        return (
            f"holds {told_bytes(found.buffer_bytes)} of rows an image, "
            f"{told_bytes(buffer_limit)} allowed"
        )
    return ""


def _line(found: StrategyCost, n_images: int, why: str, best: StrategyCost) -> str:
    parts = {
        "images": found.images,
        "forward": found.forward,
        "read": found.read,
        "write": found.write,
    }
    told = ", ".join(
        f"{name} {told_seconds(n_images * each)}"
        for name, each in parts.items()
        if each
    )
    total = told_seconds(n_images * found.seconds)
    verdict = "chosen" if found is best else why or "slower"
    if found is not best and not why and found.seconds <= best.seconds:
        verdict = "no faster"
    return f"{found.strategy}: {total} on one thread ({told}); {verdict}"


def _refused(asked: Sequence[StrategyCost], why: dict[Strategy, str]) -> str:
    told = "; ".join(f"{each.strategy} {why[each.strategy]}" for each in asked)
    return (
        f"no way to compute these layers fits: {told}: allow more, pool the maps, or ask "
        "for fewer layers"
    )
