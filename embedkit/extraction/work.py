"""The blocks that a run has to compute, in which order, and which it leaves alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress

from embedkit.extraction.block.task import BlockLoss
from embedkit.extraction.dispatch import Turn
from embedkit.extraction.jobs import Jobs
from embedkit.extraction.losses import left_alone
from embedkit.store.attempts import DEATHS, deaths
from embedkit.store.schema import Pass
from embedkit.store.store import Store


@dataclass(slots=True, kw_only=True)
class Work:
    """What is to be done, and what has become of it."""

    turns: list[Turn] = field(default_factory=list)
    lost: list[BlockLoss] = field(default_factory=list)
    done: int = 0
    total: int = 0
    failed: int = 0


def work_of(store: Store, passes: Sequence[Pass], jobs: Jobs) -> Work:
    """List the blocks to compute; those that processes have died in come last.

    Parameters
    ----------
    store : Store
        The store.
    passes : sequence of Pass
        Of it: those that are to be completed.
    jobs : Jobs
        What workers are told.

    Returns
    -------
    Work
    """
    work = Work()
    todo: dict[str, set[int]] = {}
    for one in passes:
        grid, commits = store.schema.grid(one), store.commits(one)
        work.total += store.schema.n_images
        work.done += sum(each.stop - each.start for each in commits.values())
        work.failed += sum(len(each.failures) for each in commits.values())
        lacking = jobs.wanted(range(len(grid))) - commits.keys()
        if lacking:
            todo[one.key] = lacking
    for group, blocks in _shared(passes, todo, jobs):
        fallen = deaths(store.files, group[0])
        work.lost += left_alone(store.files, group[0], fallen)
        given = jobs.of(*group)
        work.turns += [Turn(given, block) for block in _in_order(blocks, fallen)]
    return work


def _shared(
    passes: Sequence[Pass], todo: Mapping[str, Collection[int]], jobs: Jobs
) -> Iterator[tuple[list[Pass], list[int]]]:
    """Yield passes that can share the reading of images, and the blocks they all lack."""
    groups: dict[object, list[Pass]] = {}
    for one in (one for one in passes if one.key in todo):
        alike = (one.block, one.parts["decode"])
        groups.setdefault(one.key if jobs.origin(one) else alike, []).append(one)
    for group in groups.values():
        together: dict[tuple[bool, ...], list[int]] = {}
        for block in sorted(set().union(*(todo[one.key] for one in group))):
            lacking = tuple(block in todo[one.key] for one in group)
            together.setdefault(lacking, []).append(block)
        for lacking, blocks in together.items():
            yield list(compress(group, lacking)), blocks


def _in_order(todo: Sequence[int], fallen: Mapping[int, int]) -> list[int]:
    """Return the blocks to try, those without a death first."""
    tried = [block for block in todo if fallen.get(block, 0) < DEATHS]
    return sorted(tried, key=lambda block: fallen.get(block, 0))
