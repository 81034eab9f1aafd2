"""How an analysis is cut into tasks that fit, or which changes would make it fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from embedkit.errors import PlanError
from embedkit.planning.analysis_costs import AnalysisModel, AnalysisSize
from embedkit.planning.analysis_plan import AnalysisPlan
from embedkit.planning.grid import power_of_two_below
from embedkit.planning.neighbors import Machine
from embedkit.planning.units import rounded_up, told_bytes, told_count

TASK_ENTRIES = 2**20
"""Entries of a task that takes some of the rows: larger ones are no faster (chosen)."""

_LEAST_ROWS = 256
"""Rows of a task, unless there are fewer: smaller tasks cost more than they do (chosen)."""

_NAMED = 3


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change that would make an analysis fit: in words, and what it asks for then."""

    text: str
    size: AnalysisSize
    machine: Machine


@dataclass(frozen=True, slots=True)
class _Cut:
    rows: int
    at_once: int
    projected: int

    @classmethod
    def of(
        cls, model: AnalysisModel, size: AnalysisSize, rows: int, at_once: int
    ) -> _Cut:
        parts = model.parts(size, rows=rows, at_once=at_once)
        return cls(rows, at_once, sum(part.nbytes for part in parts))


def plan_analysis(
    model: AnalysisModel,
    size: AnalysisSize,
    *,
    machine: Machine,
    rows: int | None = None,
    rate: int | None = None,
) -> AnalysisPlan:
    """Cut an analysis into tasks that fit.

    Parameters
    ----------
    model : AnalysisModel
        What it takes.
    size : AnalysisSize
        Of the analysis.
    machine : Machine
        Where it runs.
    rows : int, optional
        Rows of a task, where something else decides them, such as chunks of a store.
    rate : int, optional
        Entries per second of one task, where it is known.

    Returns
    -------
    AnalysisPlan
        With the largest tasks, and then as many at once, as fit.

    Raises
    ------
    PlanError
        When the smallest do not fit, naming the limit, the numbers, and up to three
        changes with each of which they would.
    """
    cut = _best(model, size, machine, rows)
    if cut.projected > machine.memory_limit:
        raise PlanError(_refusal(model, size, machine, rows, cut))
    pieces = size.studies * -(-size.n_images // cut.rows)
    seconds = None
    if rate is not None:
        turns = -(-pieces // min(pieces, machine.workers))
        seconds = turns * cut.rows * size.width / rate
    return AnalysisPlan(
        asked=model.asked,
        n_images=size.n_images,
        width=size.width,
        entries=model.entries,
        studies=size.studies,
        whole=model.whole,
        rows_per_task=cut.rows,
        n_tasks=pieces,
        at_once=cut.at_once,
        threads=machine.threads,
        parts=model.parts(size, rows=cut.rows, at_once=cut.at_once),
        allowed_mem=machine.memory_limit,
        result_bytes=_grown(model.result_image, model.result_entry, size),
        scratch_bytes=_grown(
            model.scratch_image,
            model.scratch_entry + model.scratch_copies * size.itemsize,
            size,
        ),
        seconds=seconds,
    )


def _grown(image: int, entry: int, size: AnalysisSize) -> int:
    return size.n_images * (image + entry * size.width)


def _best(
    model: AnalysisModel, size: AnalysisSize, machine: Machine, rows: int | None
) -> _Cut:
    """Return the first cut that fits, beginning with what is fastest; else the last."""
    for cut in _cuts(model, size, machine, rows):
        if cut.projected <= machine.memory_limit:
            break
    return cut


def _cuts(
    model: AnalysisModel, size: AnalysisSize, machine: Machine, rows: int | None
) -> Iterator[_Cut]:
    """Yield the ways to cut, one at least: what is fastest first."""
    if rows is not None or not model.whole:
        for height in _heights(size) if rows is None else (min(rows, size.n_images),):
            pieces = size.studies * -(-size.n_images // height)
            yield _Cut.of(model, size, height, min(machine.slots, pieces))
        return
    for at_once in range(min(machine.slots, size.studies), 0, -1):
        yield _Cut.of(model, size, size.n_images, at_once)


def _heights(size: AnalysisSize) -> Iterator[int]:
    """Yield rows of a task, most first: all, else a power of two."""
    most = max(_LEAST_ROWS, TASK_ENTRIES // size.width)
    if size.n_images <= most:
        yield size.n_images
    height = power_of_two_below(min(most, size.n_images - 1))
    while height >= _LEAST_ROWS:
        yield height
        height //= 2


def remedies(
    model: AnalysisModel,
    size: AnalysisSize,
    *,
    machine: Machine,
    rows: int | None = None,
) -> Iterator[Remedy]:
    """Yield changes with each of which an analysis would fit, what keeps it whole first.

    Parameters
    ----------
    model, size, machine, rows
        As for `plan_analysis`, which refused them.

    Yields
    ------
    Remedy
    """

    def fits(changed: AnalysisSize, on: Machine = machine) -> bool:
        return _best(model, changed, on, rows).projected <= on.memory_limit

    needed, told = rounded_up(_best(model, size, machine, rows).projected)
    roomy = replace(machine, memory_limit=needed)
    yield Remedy(f"memory_limit={told!r}", size, roomy)
    alone = replace(machine, slots=1)
    if machine.slots > 1 and fits(size, alone):
        yield Remedy("one thread in a worker", size, alone)
    width = _most(lambda n: fits(replace(size, width=n)), below=size.width)
    if width:
        narrow = model.narrower.format(width)
        yield Remedy(narrow, replace(size, width=width), machine)
    count = _most(lambda n: fits(replace(size, n_images=n)), below=size.n_images)
    if count:
        sample = f"a sample of {told_count(count, 'image')} or fewer"
        yield Remedy(sample, replace(size, n_images=count), machine)


def _most(fits: Callable[[int], bool], *, below: int) -> int:
    """Return a number below another that fits, about the largest; 0 for none."""
    low, high = 0, below
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _refusal(
    model: AnalysisModel,
    size: AnalysisSize,
    machine: Machine,
    rows: int | None,
    cut: _Cut,
) -> str:
    ways = "; ".join(
        f"({at}) {each.text}"
        for at, each in enumerate(
            islice(remedies(model, size, machine=machine, rows=rows), _NAMED), 1
        )
    )
    at_once = f"{told_count(cut.at_once, 'task')} of {told_count(cut.rows, 'row')}"
    return (
        f"{model.asked} of {told_count(size.n_images, 'image')} with "
        f"{told_count(size.width, model.entries)} takes {told_bytes(cut.projected)} in a "
        f"process, with {at_once} at once, and memory_limit is "
        f"{told_bytes(machine.memory_limit)}: what would fit is {ways}"
    )
