"""What a user allows a run: numbers, or text such as ``"2 GiB"`` and ``"2h"``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, get_args

from dask.utils import parse_bytes, parse_timedelta

from embedkit.config import settings
from embedkit.errors import InputError
from embedkit.extraction.measure.devices import device_of
from embedkit.extraction.plans.codec_choice import stored_codecs
from embedkit.extraction.strategy.links import Chains, as_begun, impossible
from embedkit.extraction.todo import ToDo
from embedkit.planning.measurement import Measurement
from embedkit.planning.question import CHOICES, MOST_FILES, Question
from embedkit.planning.solve import Shortfall, solve
from embedkit.planning.strategies import AskedStrategy, Strategy
from embedkit.store.table import to_dataset
from embedkit.workers import Cluster, active_cluster, alike, machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a run is given, understood. None where nothing was said.

    Parameters
    ----------
    batch_size, block, n_workers, threads : int, optional
        Choices that are fixed.
    memory_limit, disk_budget : int, optional
        Bytes.
    time_budget : float, optional
        Seconds.
    max_files : int, optional
        Files.

    Raises
    ------
    InputError
        When a number is too small.
    """

    batch_size: int | None = None
    block: int | None = None
    n_workers: int | None = None
    threads: int | None = None
    memory_limit: int | None = None
    disk_budget: int | None = None
    time_budget: float | None = None
    max_files: int | None = None

    def __post_init__(self) -> None:
        for name in (*CHOICES, "memory_limit", "max_files"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}: give 1 or more")


def in_bytes(name: str, given: int | str | None) -> int | None:
    """Return bytes that were given as a number or as text such as ``"2 GiB"``.

    Raises
    ------
    InputError
        When they are no bytes.
    """
    if given is None:
        return None
    try:
        return int(parse_bytes(given))
    except (ValueError, TypeError) as error:
        message = f"{name} is {given!r}: give bytes, as a number or like '2 GiB'"
        raise InputError(message) from error


def in_seconds(name: str, given: float | str | None) -> float | None:
    """Return seconds that were given as a number or as text such as ``"2h"``.

    Raises
    ------
    InputError
        When they are no time.
    """
    if given is None:
        return None
    try:
        return float(parse_timedelta(given))
    except (ValueError, TypeError, KeyError) as error:
        message = f"{name} is {given!r}: give seconds, or a time like '2h' or '30 min'"
        raise InputError(message) from error


def cluster_for(limits: Limits) -> Cluster:
    """Return what a run would have: what is there, but for what is given.

    Parameters
    ----------
    limits : Limits
        Where both `n_workers` and `memory_limit` are given, workers are planned for that
        need not be there.

    Raises
    ------
    InputError
        When the active client has no workers, and nothing says what they will be.
    """
    workers, threads = limits.n_workers, limits.threads
    if workers is not None and limits.memory_limit is not None:
        each = threads or 1
        return alike(
            workers,
            threads=each,
            cores=workers * each,
            memory_limit=limits.memory_limit,
        )
    found = active_cluster()
    if not found.n_workers and workers is None:
        message = (
            "the active Dask client has no workers yet, and a plan is made for some: wait "
            "with client.wait_for_workers(1), or give n_workers and memory_limit"
        )
        raise InputError(message)
    if workers is None or workers == found.n_workers:
        return found
    here = machine()
    each = threads or max(1, here.cores // workers)
    return alike(
        workers,
        threads=each,
        cores=min(here.cores, workers * each),
        memory_limit=here.memory_limit // workers,
    )


def question_of(
    todo: ToDo,
    measured: Measurement,
    limits: Limits,
    cluster: Cluster,
    *,
    strategy: AskedStrategy = "fused",
) -> Question:
    """Return what the planner is asked.

    Parameters
    ----------
    todo : ToDo
        What is computed. The block, the batch size and the codecs that a store has are
        kept.
    measured : Measurement
        What that needs.
    limits : Limits
        What is given.
    cluster : Cluster
        What there is to run on.
    strategy : {"fused", "staged", "lazy", "auto"}, default "fused"
        How several layers are computed. ``"auto"`` goes on as a store was begun.

    Returns
    -------
    Question
        With the workers' threads, or with fewer of them at a time where so many tasks do
        not fit into a worker's memory.
    """
    given: dict[str, Any] = {
        "batch_size": todo.batch_size or limits.batch_size,
        "block": todo.block or limits.block,
        "max_files": MOST_FILES if limits.max_files is None else limits.max_files,
        "memory_limit": limits.memory_limit,
        "disk_budget": limits.disk_budget,
        "time_budget": limits.time_budget,
        "device": device_of(measured),
        "strategy": (as_begun(todo.begun) or "auto")
        if strategy == "auto"
        else strategy,
        "impossible": impossible(todo.looks, todo.begun),
        "chain": Chains(todo.looks),
    }
    asked = Question(
        measured=measured,
        n_images=todo.n_images,
        cores=cluster.cores,
        memory=cluster.memory,
        n_workers=cluster.n_workers,
        threads=limits.threads or cluster.threads,
        decode_threads=settings().decode_threads,
        columns=len(to_dataset(todo.looks[0].images.table[:1]).variables),
        codecs=stored_codecs(todo.looks, todo.codecs),
        **given,
    )
    return asked if limits.threads else _with_fewer_threads(asked)


def _with_fewer_threads(question: Question) -> Question:
    """Leave threads open where the workers' own number of them needs too much memory."""
    strategies = _strategies(question)
    found = map(solve, strategies)
    if any(not isinstance(each, Shortfall) or each.limit != "memory" for each in found):
        return question
    fewer = [each.with_choice("threads", None) for each in strategies]
    if all(isinstance(solve(each), Shortfall) for each in fewer):
        return question
    return question.with_choice("threads", None)


def _strategies(question: Question) -> list[Question]:
    """Return a question of each strategy that may be taken."""
    if question.strategy != "auto":
        return [question]
    return [
        replace(question, strategy=name)
        for name in get_args(Strategy)
        if name not in question.impossible
    ]
