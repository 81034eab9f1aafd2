"""What would make a run fit, or make it faster: each tried before it is named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from embedkit.errors import PlanError
from embedkit.planning.changes import changes_for, lifted, relaxed
from embedkit.planning.memory import MOST
from embedkit.planning.question import Question
from embedkit.planning.solve import Shortfall, Solution, solve
from embedkit.planning.turns import scratch_bytes
from embedkit.planning.units import told_bytes, told_seconds

_NAMED = 3
WORTH = 0.92
"""A change has to save eight hundredths of the time to be named (chosen: five are within
what counts as equally fast)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """One change that was tried.

    Parameters
    ----------
    text : str
        What to change, for people.
    question : Question
        The question after the change.
    seconds : float
        Of its plan.
    """

    text: str
    question: Question
    seconds: float


def solved(question: Question) -> Solution:
    """Return the fastest layout within all limits.

    Raises
    ------
    PlanError
        When there is none, naming the limit, the numbers and up to three changes with
        each of which there would be one.
    """
    found = solve(question)
    if isinstance(found, Solution):
        return found
    raise PlanError(refusal(question, found))


def refusal(question: Question, short: Shortfall, *, also: str = "") -> str:
    """Return why nothing fits, and up to three changes with each of which it would.

    Parameters
    ----------
    question : Question
        What was asked.
    short : Shortfall
        Why it does not fit.
    also : str, optional
        More to say of it.
    """
    named = remedies(question, short)
    ways = "; ".join(
        f"({at}) {each.text}, {told_seconds(each.seconds)}"
        for at, each in enumerate(named, 1)
    )
    return f"{_told(question, short)}{also}: what would fit is {ways}"


def remedies(question: Question, short: Shortfall) -> tuple[Remedy, ...]:
    """Return the first three changes that would make a run fit.

    Parameters
    ----------
    question : Question
        What was asked.
    short : Shortfall
        Why it does not fit.
    """
    changes = changes_for(question, short)
    return tuple(islice(_working(changes, limit=short.limit), _NAMED))


def faster(question: Question, found: Solution) -> tuple[Remedy, ...]:
    """Return what would make a run faster, the greatest gain first, three at most."""
    worth = found.cost.seconds * WORTH
    tried = [
        each for each in _working(relaxed(question, found)) if each.seconds <= worth
    ]
    return tuple(sorted(tried, key=lambda each: each.seconds)[:_NAMED])


def _working(
    changes: Iterator[tuple[str, Question]], *, limit: str = ""
) -> Iterator[Remedy]:
    """Yield the changes that make a run fit.

    Where one mends `limit` and another limit is in the way, that one is raised too.
    """
    seen: list[Question] = []
    for given, asked in changes:
        text, changed, found = given, asked, solve(asked)
        while isinstance(found, Shortfall) and limit and found.limit != limit:
            changed, more = lifted(changed, found)
            text, found = f"{text} and {more}", solve(changed)
        if isinstance(found, Solution) and changed not in seen:
            seen.append(changed)
            yield Remedy(text=text, question=changed, seconds=found.cost.seconds)


def _told(question: Question, short: Shortfall) -> str:
    layers = f"{len(question.measured.layers)} layers of {question.n_images:,} images"
    match short.limit:
        case "memory":
            return (
                f"{layers} need {told_bytes(short.needed)} in a worker even in the "
                f"smallest steps, and {told_bytes(short.given)} may be planned for "
                f"({MOST} of its memory)"
            )
        case "device_memory":
            return (
                f"{layers} need {told_bytes(short.needed)} of a GPU for a worker even in "
                f"the smallest batches, and {told_bytes(short.given)} may be planned for "
                f"(0.8 of its share of what is free)"
            )
        case "disk_budget":
            scratch = question.n_images * scratch_bytes(question)
            maps = f" with {told_bytes(scratch)} of raw maps" if scratch else ""
            return (
                f"{layers}{maps} are {told_bytes(short.needed)}, uncompressed, and disk_budget "
                f"is {told_bytes(short.given)}"
            )
        case "max_files":
            return (
                f"{layers} are {short.needed:,.0f} files at least and max_files is "
                f"{short.given:,.0f}"
            )
        case _:
            return (
                f"{layers} take {told_seconds(short.needed)} at best and time_budget is "
                f"{told_seconds(short.given)}"
            )
