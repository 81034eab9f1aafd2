"""What finished runs say of the next plan: by how much the last ones were off."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

LAST: Final = 8
"""Runs that count: machines, drivers and libraries change (chosen)."""

AGREEING: Final = 3
"""Runs that have to agree before a plan asks for less memory than was projected."""

_SPREAD: Final = 0.1
"""Ratios agree that lie within a tenth of one another."""

_LEAST, _MOST = 0.8, 2.0
"""Beyond these a measurement is wrong, not a little off: it has to be made again."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """What one finished run took, over what was measured for it, not corrected.

    A plan that is corrected projects nearly what its run takes. Were that ratio kept, the
    next plan would be off as the first one was, and the one after it right again.

    Parameters
    ----------
    memory, time : float, optional
        Of the largest worker, and of all tasks together. None where a run says nothing
        of it.
    """

    memory: float | None = None
    time: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """By what the projections of a plan were multiplied.

    Parameters
    ----------
    memory, time : float
        Of a worker, and of every stage.
    runs : int
        Earlier runs that they are from; 0 where there was none.
    """

    memory: float = 1.0
    time: float = 1.0
    runs: int = 0


UNCORRECTED: Final = Factors()


def correction_of(ratios: Sequence[Ratio], *, pace: float = 1.0) -> tuple[float, float]:
    """Return by what the projections of the next plan should be multiplied.

    Parameters
    ----------
    ratios : sequence of Ratio
        Of earlier runs, the last one last.
    pace : float, default 1
        Of blocks that were rehearsed: what runs tell of whole ones is worth more.

    Returns
    -------
    memory_factor : float
        The largest ratio of the last eight runs: too little memory ends a run, too much
        only makes its batches smaller. It is below 1 only where the last three runs or
        more agree within a tenth, and then it is the largest of all that count.
    time_factor : float
        The median of the last eight, and the pace where there is none.

    Both lie between 0.8 and 2.

    Examples
    --------
    >>> correction_of([])
    (1.0, 1.0)
    >>> correction_of([Ratio(0.85, 1.5)])
    (1.0, 1.5)
    >>> correction_of([Ratio(0.85, 1.5), Ratio(0.9, 1.3), Ratio(0.86, 1.1)])
    (0.9, 1.3)
    """
    memories = _sound([each.memory for each in ratios])
    times = _sound([each.time for each in ratios])
    memory = max(memories, default=1.0)
    if memory < 1.0 and not _agree(memories[-AGREEING:]):
        memory = 1.0
    return _clamped(memory), _clamped(median(times) if times else pace)


def factors_of(known: Iterable[Sequence[Ratio]], *, pace: float = 1.0) -> Factors:
    """Return the factors of a plan that is made of several measurements.

    Parameters
    ----------
    known : iterable of sequence of Ratio
        The ratios of each measurement; see `correction_of`.
    pace : float, default 1
        As for `correction_of`.

    Returns
    -------
    Factors
        The largest of each. `runs` are those of the measurement that has the most.
    """
    each = [
        (*correction_of(ratios, pace=pace), len(ratios[-LAST:])) for ratios in known
    ]
    return Factors(
        memory=max((memory for memory, _, _ in each), default=1.0),
        time=max((time for _, time, _ in each), default=_clamped(pace)),
        runs=max((runs for _, _, runs in each), default=0),
    )


def _sound(ratios: Sequence[float | None]) -> list[float]:
    """Return the last ones that count."""
    known = (each for each in ratios if each is not None)
    return [each for each in known if math.isfinite(each) and each > 0][-LAST:]


def _agree(ratios: Sequence[float]) -> bool:
    return len(ratios) >= AGREEING and max(ratios) <= (1 + _SPREAD) * min(ratios)


def _clamped(factor: float) -> float:
    return min(max(factor, _LEAST), _MOST)
