"""What finished runs say of the next plan: by how much the last ones were off."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    """What one finished run took, over what its plan projected.

    Parameters
    ----------
    memory, time : float
        Of the largest worker, and of all tasks together.
    """

    memory: float
    time: float


def correction_of(ratios: Sequence[Ratio]) -> tuple[float, float]:
    """Return by what the projections of the next plan should be multiplied.

    Parameters
    ----------
    ratios : sequence of Ratio
        Of earlier runs, the last one last.

    Returns
    -------
    memory_factor : float
        The largest ratio of the last eight runs: too little memory ends a run, too much
        only makes its batches smaller. It is below 1 only where the last three runs or
        more agree within a tenth, and then it is the largest of all that count.
    time_factor : float
        The median of the last eight.

    Both lie between 0.8 and 2, and are 1 where there is no run.

    Examples
    --------
    >>> correction_of([])
    (1.0, 1.0)
    >>> correction_of([Ratio(0.85, 1.5)])
    (1.0, 1.5)
    >>> correction_of([Ratio(0.85, 1.5), Ratio(0.9, 1.3), Ratio(0.86, 1.1)])
    (0.9, 1.3)
    """
    last = [each for each in ratios if _sound(each)][-LAST:]
    if not last:
        return 1.0, 1.0
    memory = max(each.memory for each in last)
    if memory < 1.0 and not _agree([each.memory for each in last[-AGREEING:]]):
        memory = 1.0
    return _clamped(memory), _clamped(median(each.time for each in last))


def _sound(ratio: Ratio) -> bool:
    return all(math.isfinite(each) and each > 0 for each in (ratio.memory, ratio.time))


def _agree(ratios: Sequence[float]) -> bool:
    return len(ratios) >= AGREEING and max(ratios) <= (1 + _SPREAD) * min(ratios)


def _clamped(factor: float) -> float:
    return min(max(factor, _LEAST), _MOST)
