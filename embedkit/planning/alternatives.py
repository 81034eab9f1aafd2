"""The strategies that a run could have, each solved: which one is taken, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, get_args

from embedkit.errors import PlanError
from embedkit.planning.question import Question
from embedkit.planning.remedies import WORTH, refusal
from embedkit.planning.solve import Shortfall, Solution, solve
from embedkit.planning.strategies import Strategy
from embedkit.planning.turns import scratch_bytes
from embedkit.planning.units import told_bytes, told_seconds

_ALL: Final[tuple[Strategy, ...]] = get_args(Strategy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One strategy, at its best within the limits.

    Parameters
    ----------
    strategy : Strategy
        Which.
    chosen : bool
        Whether the plan has it.
    why : str
        Why it was chosen, or was not.
    seconds : float, optional
        Wall-clock; None where it does not fit or cannot be taken.
    memory : int, optional
        Bytes that a worker needs; of what does not fit the memory, those of its smallest
        steps. None where that was not looked at.
    scratch_bytes : int
        Of raw maps that lie beside the store meanwhile, at most.
    """

    strategy: Strategy
    chosen: bool
    why: str
    seconds: float | None = None
    memory: int | None = None
    scratch_bytes: int = 0

    def __str__(self) -> str:
        """Return it in a line."""
        parts = []
        if self.seconds is not None:
            parts.append(told_seconds(self.seconds))
        if self.memory is not None:
            parts.append(f"{told_bytes(self.memory)} in a worker")
        if self.scratch_bytes:
            parts.append(f"{told_bytes(self.scratch_bytes)} of raw maps meanwhile")
        told = f"{', '.join(parts)}; " if parts else ""
        verdict = "chosen" if self.chosen else "not taken"
        return f"{self.strategy}: {told}{verdict}{f', {self.why}' * bool(self.why)}"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The strategy that a plan has.

    Parameters
    ----------
    strategy : Strategy
        Which.
    question : Question
        With that strategy.
    solution : Solution
        Its best layout.
    alternatives : tuple of Alternative
        All strategies in the order fused, staged, lazy; none where a single layer makes
        them the same.
    """

    strategy: Strategy
    question: Question
    solution: Solution
    alternatives: tuple[Alternative, ...]


def choose(question: Question) -> Chosen:
    """Return the strategy asked for, or the fastest one that fits.

    Parameters
    ----------
    question : Question
        With any strategy, ``"auto"`` among them: ``"fused"`` then, unless it does not fit
        or another one saves eight hundredths of its time.

    Raises
    ------
    PlanError
        When the one asked for does not fit, or none does, naming the limit, the numbers
        and up to three changes with each of which one would.
    """
    several = len(question.measured.layers) > 1
    wanted = _ALL if question.strategy == "auto" else (question.strategy,)
    _check_possible(question, wanted)
    tried = _ALL if several else wanted[:1]
    asked = {
        name: replace(question, strategy=name)
        for name in tried
        if name not in question.impossible
    }
    found = {name: solve(each) for name, each in asked.items()}
    best = _best({name: found[name] for name in wanted if name in found})
    if best is None:
        raise PlanError(_refused(asked, found, wanted))
    solution = found[best]
    assert isinstance(solution, Solution)
    named = question.strategy != "auto"
    why = {
        **question.impossible,
        best: "asked for" if named else "the fastest that fits",
    }
    told = [
        _alternative(name, asked.get(name), found.get(name), why.get(name, ""))
        for name in tried
    ]
    return Chosen(best, asked[best], solution, tuple(told) if several else ())


def _check_possible(question: Question, wanted: tuple[Strategy, ...]) -> None:
    if all(name in question.impossible for name in wanted):
        why = "; ".join(f"{name}: {question.impossible[name]}" for name in wanted)
        others = [name for name in _ALL if name not in question.impossible]
        raise PlanError(
            f"layers cannot be computed so ({why}): plan with strategy="
            f"{' or '.join(map(repr, others))}"
        )


def _best(found: Mapping[Strategy, Solution | Shortfall]) -> Strategy | None:
    """Return the fastest strategy that fits, of nearly equal ones the first."""
    seconds = {
        name: each.cost.seconds
        for name, each in found.items()
        if isinstance(each, Solution)
    }
    if not seconds:
        return None
    first = next(iter(seconds))
    fastest = min(seconds, key=lambda name: seconds[name])
    return fastest if seconds[fastest] <= WORTH * seconds[first] else first


def _alternative(
    name: Strategy,
    asked: Question | None,
    found: Solution | Shortfall | None,
    why: str,
) -> Alternative:
    if asked is None or found is None:
        return Alternative(strategy=name, chosen=False, why=why)
    scratch = asked.n_images * scratch_bytes(asked)
    if isinstance(found, Shortfall):
        return Alternative(
            strategy=name,
            chosen=False,
            why=_lacks(found),
            memory=int(found.needed) if found.limit == "memory" else None,
            scratch_bytes=scratch,
        )
    return Alternative(
        strategy=name,
        chosen=bool(why),
        why=why,
        seconds=found.cost.seconds,
        memory=found.projected_mem,
        scratch_bytes=scratch,
    )


def _lacks(short: Shortfall) -> str:
    """Say what a strategy lacks."""
    match short.limit:
        case "memory":
            return f"{told_bytes(short.given)} may be planned for"
        case "device_memory":
            return (
                f"{told_bytes(short.given)} of a GPU may be planned for and it needs "
                f"{told_bytes(short.needed)}"
            )
        case "disk_budget":
            return f"disk_budget is {told_bytes(short.given)} and it takes {told_bytes(short.needed)}"
        case "max_files":
            return f"max_files is {short.given:,.0f} and it makes {short.needed:,.0f}"
        case _:
            return (
                f"time_budget is {told_seconds(short.given)} and it takes "
                f"{told_seconds(short.needed)}"
            )


def _refused(
    asked: Mapping[Strategy, Question],
    found: Mapping[Strategy, Solution | Shortfall],
    wanted: tuple[Strategy, ...],
) -> str:
    """Say why none of the strategies fits, and what would: for the one that lacks least."""
    short = {
        name: each
        for name, each in found.items()
        if name in wanted and isinstance(each, Shortfall)
    }
    lack = {name: each.needed / max(1, each.given) for name, each in short.items()}
    first, least = next(iter(lack)), min(lack, key=lambda name: lack[name])
    nearest = least if lack[least] <= WORTH * lack[first] else first
    others = [name for name in short if name != nearest]
    also = f" as {nearest}; {' and '.join(others)} cannot fit either" if others else ""
    return refusal(asked[nearest], short[nearest], also=also)
