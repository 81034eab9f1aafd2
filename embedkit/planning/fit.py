"""Lines through measured points: bytes and seconds as they grow with the batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from embedkit.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What a batch takes: `fixed` bytes, and `per_image` more for each of its images."""

    fixed: int
    per_image: int

    def at(self, batch: int) -> int:
        """Return the bytes of a batch of that many images."""
        return self.fixed + self.per_image * batch


def fit_line(points: Sequence[tuple[int, int]]) -> Line:
    """Fit a line to measured peaks that is nowhere below a measured one.

    Parameters
    ----------
    points : sequence of (int, int)
        Images of a batch, at least 1, and the bytes that it took at its peak.

    Returns
    -------
    Line
        The least-squares line with neither part negative, raised to the point that lies
        farthest above it. Of a single batch size both parts could be either: larger
        batches are then taken to grow in proportion, smaller ones to need as much.

    Raises
    ------
    InputError
        When there is no point, or one that is no measurement.

    Notes
    -----
    Peaks are noisy upwards only (an allocator keeps what it has, never less than what is
    used), so that raising the line is safe and lowering it would not be.
    """
    if not points or any(batch < 1 or peak < 0 for batch, peak in points):
        message = (
            f"peaks of {len(points)} batches were measured, or some of fewer than 1 image "
            "or 0 bytes: measure one batch or more"
        )
        raise InputError(message)
    if len({batch for batch, _ in points}) == 1:
        peak = max(peak for _, peak in points)
        return Line(fixed=peak, per_image=math.ceil(peak / points[0][0]))
    slope = max(0, _slope(points))
    return Line(fixed=max(0, *(p - slope * b for b, p in points)), per_image=slope)


def _slope(points: Sequence[tuple[int, int]]) -> int:
    """Return the least-squares slope, rounded up; in whole numbers, so exactly."""
    n = len(points)
    batches, peaks = sum(batch for batch, _ in points), sum(peak for _, peak in points)
    together = n * sum(batch * peak for batch, peak in points) - batches * peaks
    spread = n * sum(batch**2 for batch, _ in points) - batches**2
    return -(-together // spread)


def between(points: Sequence[tuple[int, float]], at: float) -> float:
    """Return a measured quantity between its points, straight over the logarithm of x.

    Parameters
    ----------
    points : sequence of (int, float)
        At least one; x at least 1, each once.
    at : float
        Where. Outside the points it is that of the nearest one.

    Examples
    --------
    >>> between([(1, 8.0), (4, 4.0)], 2), between([(1, 8.0), (4, 4.0)], 64)
    (6.0, 4.0)
    """
    known = sorted(points)
    below = max((each for each in known if each[0] <= at), default=known[0])
    above = min((each for each in known if each[0] >= at), default=known[-1])
    if below[0] == above[0] or not below[0] < at < above[0]:
        return below[1] if below[0] <= at else above[1]
    share = math.log(at / below[0]) / math.log(above[0] / below[0])
    return below[1] + share * (above[1] - below[1])
