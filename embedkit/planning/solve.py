"""The fastest layout within all limits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from embedkit.planning.costs import Cost, Layout, Work, batches
from embedkit.planning.device import device_needed
from embedkit.planning.grid import choose_block
from embedkit.planning.memory import MOST, TARGET
from embedkit.planning.question import Question
from embedkit.planning.turns import (
    Turn,
    cost_of_turns,
    n_passes,
    scratch_bytes,
    scratch_files,
    turns_of,
)
from embedkit.planning.written import most_files

Limit: TypeAlias = Literal[
    "memory", "device_memory", "disk_budget", "max_files", "time_budget"
]

_MANY = 16
"""Cores up to which every number of workers and threads is tried; beyond, only those that
divide the cores nearly evenly."""


NEAR = 1.05
"""Layouts within five hundredths of the fastest count as fast as that (chosen: machines
vary by more from run to run)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """A layout within all limits, with what it takes."""

    layout: Layout
    cost: Cost
    projected_mem: int
    allowed_mem: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """A limit that no layout keeps.

    Parameters
    ----------
    limit : str
        Which.
    needed : float
        What the least demanding layout needs of it, bytes, files or seconds.
    given : float
        What there is: for memory, of a GPU too, what may be planned for in one worker.
    """

    limit: Limit
    needed: float
    given: float


def usable(allowed_mem: int) -> int:
    """Return the part of a worker's memory that may be planned for."""
    return math.floor(MOST * allowed_mem)


def comfortable(projected_mem: float, allowed_mem: int) -> bool:
    """Return whether so much leaves a worker the room that it should have."""
    return projected_mem / allowed_mem <= TARGET


def needed_limit(projected_mem: int) -> int:
    """Return the least memory of a worker with which so much may be planned for."""
    wanted = math.ceil(projected_mem / MOST)
    return wanted if usable(wanted) >= projected_mem else wanted + 1


def good_limit(projected_mem: int) -> int:
    """Return the memory of a worker in which so much leaves enough room."""
    return math.ceil(projected_mem / TARGET) + 1  # one more for what rounding took


def solve(question: Question) -> Solution | Shortfall:
    """Return the fastest layout within all limits, or the limit that none keeps.

    Parameters
    ----------
    question : Question
        What is to be run, and within which limits.

    Returns
    -------
    Solution or Shortfall
        Of the layouts within `NEAR` of the fastest the one with the largest blocks, which
        makes the fewest files; of those, the fastest.
        Where none fits into `TARGET` of a worker's memory, one that needs the least share
        of it. The same question has the same answer everywhere.

    Notes
    -----
    Every candidate is looked at: batches and blocks are powers of two, so there are
    thousands at most. None of them depends on memory, so beyond what is just enough more
    memory never gives a plan that is slower by more than `NEAR`.
    """
    short = _disk(question) or _files(question) or _memory(question)
    if short:
        return short
    fitting = _with_room(list(_fitting(question)))
    fastest = min(each.cost.seconds for each in fitting)
    budget = math.inf if question.time_budget is None else question.time_budget
    if fastest > budget:
        return Shortfall(limit="time_budget", needed=fastest, given=budget)
    enough = min(NEAR * fastest, budget)
    return min((each for each in fitting if each.cost.seconds <= enough), key=_rank)


def _with_room(fitting: Sequence[Solution]) -> Sequence[Solution]:
    """Return those that leave a worker enough room, or else those that leave most."""
    shares = [each.projected_mem / each.allowed_mem for each in fitting]
    enough = max(min(shares), TARGET)
    return [
        each for each, share in zip(fitting, shares, strict=True) if share <= enough
    ]


def _rank(found: Solution) -> tuple[float, ...]:
    layout = found.layout
    return (
        -layout.block,
        found.cost.seconds,
        found.projected_mem * layout.workers,
        layout.workers,
        layout.batch,
    )


def _fitting(question: Question) -> Iterator[Solution]:
    turns, works = turns_of(question), dict[tuple[int, int], Work]()
    devices = [each.device for each in turns]
    for layout in layouts(question):
        needed = _projected(turns, layout, question)
        allowed = question.allowed_mem(layout.workers)
        on_device = device_needed(devices, layout.batch)
        if needed > usable(allowed) or on_device > question.allowed_device(
            layout.workers
        ):
            continue
        yield Solution(
            layout=layout,
            cost=cost_of_turns(turns, layout, question, works=works),
            projected_mem=needed,
            allowed_mem=allowed,
        )


def _disk(question: Question) -> Shortfall | None:
    row_bytes = question.measured.row_bytes + scratch_bytes(question)
    needed = question.n_images * row_bytes
    budget = question.disk_budget
    if budget is None or needed <= budget:
        return None
    return Shortfall(limit="disk_budget", needed=needed, given=budget)


def _files(question: Question) -> Shortfall | None:
    needed = min(n_files(question, block) for block in _blocks(question))
    if needed <= question.max_files:
        return None
    return Shortfall(limit="max_files", needed=needed, given=question.max_files)


def _memory(question: Question) -> Shortfall | None:
    """Return what the layout that comes nearest to fitting lacks."""
    turns = turns_of(question)
    pairs = [
        (
            _projected(turns, layout, question),
            usable(question.allowed_mem(layout.workers)),
        )
        for layout in layouts(question)
    ]
    if not any(needed <= given for needed, given in pairs):
        return _nearest("memory", pairs)
    devices = [each.device for each in turns]
    wanted = [
        (device_needed(devices, layout.batch), question.allowed_device(layout.workers))
        for layout, (needed, given) in zip(layouts(question), pairs, strict=True)
        if needed <= given
    ]
    if any(needed <= given for needed, given in wanted):
        return None
    return _nearest("device_memory", wanted)


def _nearest(limit: Limit, pairs: Sequence[tuple[int, int]]) -> Shortfall:
    needed, given = min(pairs, key=lambda pair: (pair[0] / max(pair[1], 1), pair))
    return Shortfall(limit=limit, needed=needed, given=given)


def _projected(turns: Sequence[Turn], layout: Layout, question: Question) -> int:
    return max(each.projected_mem(layout, question.n_images) for each in turns)


def layouts(question: Question) -> Iterator[Layout]:
    """Yield every layout that is worth a look, whatever memory there is."""
    blocks = _blocks(question)
    sizes = _batches(question)
    for workers, threads in _slots(question):
        for block in blocks:
            for batch in dict.fromkeys(min(size, block) for size in sizes):
                yield Layout(
                    workers=workers,
                    threads=threads,
                    batch=batch,
                    block=block,
                    decode_threads=question.decode_threads,
                )


def _batches(question: Question) -> tuple[int, ...]:
    if question.batch_size is not None:
        return (question.batch_size,)
    return batches(question.measured)


def _blocks(question: Question) -> tuple[int, ...]:
    """Return the block that suits images and layers, and smaller ones, within the files.

    Larger ones are for when there would be too many files otherwise.
    """
    if question.block is not None:
        return (question.block,)
    wanted = usual_block(question)
    least = min(question.batch_size or 1, wanted)  # a batch that is given stays whole
    sizes = [2**power for power in range(wanted.bit_length()) if 2**power >= least]
    fitting = [s for s in sizes if n_files(question, s) <= question.max_files]
    return tuple(fitting) or (_block_for_files(question, wanted),)


def _block_for_files(question: Question, block: int) -> int:
    while block < question.n_images and n_files(question, block) > question.max_files:
        block *= 2
    return block


def usual_block(question: Question) -> int:
    """Return the block that suits images and layers, or the one that was given."""
    if question.block is not None:
        return question.block
    return choose_block(question.n_images, question.measured.row_bytes)


def n_files(question: Question, block: int) -> int:
    """Return the most files that lie there during a run with such blocks."""
    n_images, measured = question.n_images, question.measured
    files = most_files(
        measured,
        n_images=n_images,
        block=block,
        columns=question.columns,
        passes=n_passes(question),
    )
    return files + scratch_files(question, block)


def _slots(question: Question) -> list[tuple[int, int]]:
    """Return pairs of workers and threads that do not outnumber the cores by choice."""
    cores = question.cores
    given = question.n_workers
    pairs = []
    for workers in _divided(cores) if given is None else [given]:
        most = max(1, cores // workers)
        chosen = question.threads
        pairs += [
            (workers, threads)
            for threads in (_divided(most) if chosen is None else [chosen])
        ]
    return pairs


def _divided(count: int) -> list[int]:
    if count <= _MANY:
        return list(range(1, count + 1))
    return sorted({count // part for part in range(1, count + 1)})
