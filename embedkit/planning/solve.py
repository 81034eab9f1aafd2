"""The fastest layout within all limits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from embedkit.planning.costs import Cost, Layout, Work, cost
from embedkit.planning.grid import choose_block
from embedkit.planning.measurement import batches
from embedkit.planning.memory import TARGET, MemoryModel
from embedkit.planning.question import Question
from embedkit.planning.written import most_files

Limit: TypeAlias = Literal["memory", "disk_budget", "max_files", "time_budget"]

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
        What there is: for memory, what may be planned for in one worker.
    """

    limit: Limit
    needed: float
    given: float


def usable(allowed_mem: int) -> int:
    """Return the part of a worker's memory that may be planned for."""
    return math.floor(TARGET * allowed_mem)


def needed_limit(projected_mem: int) -> int:
    """Return the least memory of a worker with which so much may be planned for."""
    wanted = math.ceil(projected_mem / TARGET)
    return wanted if usable(wanted) >= projected_mem else wanted + 1


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
        makes the fewest files; of those, the one that needs the least memory in all. The
        same question has the same answer everywhere.

    Notes
    -----
    Every candidate is looked at: batches and blocks are powers of two, so there are
    thousands at most. None of them depends on memory, which makes more memory never
    give a plan that is slower by more than `NEAR`.
    """
    short = _disk(question) or _files(question) or _memory(question)
    if short:
        return short
    fitting = list(_fitting(question))
    fastest = min(each.cost.seconds for each in fitting)
    budget = math.inf if question.time_budget is None else question.time_budget
    if fastest > budget:
        return Shortfall(limit="time_budget", needed=fastest, given=budget)
    enough = min(NEAR * fastest, budget)
    return min((each for each in fitting if each.cost.seconds <= enough), key=_rank)


def _rank(found: Solution) -> tuple[float, ...]:
    layout = found.layout
    return (
        -layout.block,
        found.projected_mem * layout.workers,
        found.cost.seconds,
        layout.workers,
        layout.batch,
    )


def _fitting(question: Question) -> Iterator[Solution]:
    measured, model = question.measured, MemoryModel.of(question.measured)
    works: dict[int, Work] = {}
    for layout in layouts(question):
        needed = _projected(model, layout)
        allowed = question.allowed_mem(layout.workers)
        if needed > usable(allowed):
            continue
        if layout.batch not in works:
            works[layout.batch] = Work.of(measured, batch=layout.batch)
        found = cost(
            measured,
            layout,
            n_images=question.n_images,
            cores=question.cores,
            work=works[layout.batch],
        )
        yield Solution(
            layout=layout, cost=found, projected_mem=needed, allowed_mem=allowed
        )


def _disk(question: Question) -> Shortfall | None:
    needed = question.n_images * question.measured.row_bytes
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
    model = MemoryModel.of(question.measured)
    pairs = [
        (_projected(model, layout), usable(question.allowed_mem(layout.workers)))
        for layout in layouts(question)
    ]
    if any(needed <= given for needed, given in pairs):
        return None
    needed, given = min(pairs, key=lambda pair: (pair[0] / max(pair[1], 1), pair))
    return Shortfall(limit="memory", needed=needed, given=given)


def _projected(model: MemoryModel, layout: Layout) -> int:
    return model.projected_mem(
        batch=layout.batch,
        block=layout.block,
        threads=layout.threads,
        decode_threads=layout.decode_threads,
    )


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
    return most_files(
        question.measured,
        n_images=question.n_images,
        block=block,
        columns=question.columns,
    )


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
