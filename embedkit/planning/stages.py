"""Where the time of an extraction goes, by stage, and which stage the others wait for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

AHEAD: Final = ("decode", "transform")
"""Stages of the threads that prepare images: seconds of all these threads together."""

IN_TURN: Final = ("wait", "forward", "pool", "write")
"""Stages of the task itself, one after the other, wall-clock: waiting for prepared images,
the network's forward pass, pooling its layers, writing shards. They add up to ``total``.
Where a backend pools inside of what cannot be looked into, ``forward`` holds both."""


def bottleneck(seconds: Mapping[str, float]) -> str:
    """Return the stage that a faster run has to begin with.

    Parameters
    ----------
    seconds : mapping of str to float
        By stage, of one block or of many together.

    Returns
    -------
    str
        ``"forward"``, ``"pool"`` or ``"write"`` where the task spent most of its time there; where it
        waited for images most of all, the longer one of ``"decode"`` and ``"transform"``,
        or ``"wait"`` where neither took any time. Empty where no time was spent.

    Examples
    --------
    >>> bottleneck({"decode": 3.0, "transform": 1.0, "wait": 2.0, "forward": 1.5})
    'decode'
    """
    longest = max(IN_TURN, key=lambda stage: seconds.get(stage, 0.0))
    if seconds.get(longest, 0.0) <= 0.0:
        return ""
    if longest != "wait":
        return longest
    ahead = max(AHEAD, key=lambda stage: seconds.get(stage, 0.0))
    return ahead if seconds.get(ahead, 0.0) > 0.0 else longest
