"""The plan that a run follows: one that is given, or one that is made where it matters."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from embedkit.config import settings
from embedkit.errors import InputError, PlanError
from embedkit.extraction.asked import Asked
from embedkit.extraction.measure.measuring import measure
from embedkit.extraction.measure.rough import rough
from embedkit.extraction.plans.codec_choice import planned_codecs
from embedkit.extraction.plans.learned import corrected
from embedkit.extraction.plans.limits import Limits, in_bytes, question_of
from embedkit.extraction.strategy.links import as_begun, impossible
from embedkit.extraction.strategy.ways import planned_way
from embedkit.extraction.todo import ToDo, to_do
from embedkit.files.files import Files
from embedkit.planning.costs import Layout, cost
from embedkit.planning.memory import MemoryModel
from embedkit.planning.plan import Plan, make_plan
from embedkit.planning.question import Question
from embedkit.planning.solve import comfortable, usual_block
from embedkit.planning.strategies import AskedStrategy
from embedkit.planning.units import told_bytes
from embedkit.store.plans import write_plan
from embedkit.store.store import Store
from embedkit.workers import active_cluster

PlanChoice: TypeAlias = Plan | Literal["auto"] | None

LONG = 120.0
"""Seconds from which measuring for about half a minute is worth it (chosen)."""

_ROUGH_SECONDS = 4.0
"""How many times too many seconds the rough numbers are (measured: ResNet-18 and -50)."""

_ROUGH_BYTES = 2.0
"""How many times too few bytes they may be, besides Python and libraries (measured)."""


def followed(
    looks: Sequence[Asked],
    store: Store | None,
    plan: PlanChoice,
    *,
    where: Files,
    strategy: AskedStrategy = "auto",
    memory_limit: int | str | None = None,
    batch_size: int | None = None,
) -> tuple[Sequence[Asked], Plan | None]:
    """Return what is asked as it is planned, and the plan. Nothing is written.

    Parameters
    ----------
    looks : sequence of Asked
        What is asked of each network.
    store : Store, optional
        The store, where there is one already.
    plan : Plan, "auto" or None
        See `extract`.
    where : Files
        Where the store is, or will be.
    strategy : {"auto", "fused", "staged", "lazy"}
        As it was asked for.
    memory_limit : int or str, optional
        Bytes that a worker may have.
    batch_size : int, optional
        The one that was given.

    Raises
    ------
    PlanError
        When what is asked cannot fit.
    InputError
        When a plan is none, or one for something else.
    """
    limit = in_bytes("memory_limit", memory_limit)
    if not (plan in (None, "auto") or isinstance(plan, Plan)):
        message = f"plan is {plan!r}: give what embedkit.plan returns, 'auto' or None"
        raise InputError(message)
    if limit is not None and plan != "auto":
        message = (
            "memory_limit is for plan='auto': give it to embedkit.plan, whose plan is "
            "followed then"
        )
        raise InputError(message)
    if plan is None:
        return looks, None
    todo = to_do(store, looks)
    if not todo.looks:
        return looks, None
    limits = Limits(memory_limit=limit, batch_size=batch_size)
    if isinstance(plan, Plan):
        _check_strategy(plan, strategy)
        _check(plan, todo, looks, limits)
        found: Plan | None = plan
    else:
        found = _made(todo, limits, where, strategy)
    if found is None:
        return looks, None
    asked = isinstance(plan, Plan) or strategy != "auto"
    codecs = planned_codecs(found, looks, todo.looks)
    return [
        replace(
            _as_planned(each, found, asked=asked),
            codecs=codecs.get(each.network.name, {}),
        )
        for each in looks
    ], found


def _as_planned(asked_of: Asked, plan: Plan, *, asked: bool) -> Asked:
    """Return what is asked of a network with what a plan says of it."""
    return replace(
        asked_of,
        batch_size=plan.batch_size,
        block=plan.block,
        way=planned_way(asked_of.network, plan, backend=asked_of.backend, asked=asked),
    )


def keep_plan(store: Store, networks: Container[str], plan: Plan) -> None:
    """Keep a plan in a store for each pass that is about to follow it."""
    for one in store.schema.passes:
        begun = len(store.commits(one)) < len(store.schema.grid(one))
        if one.network in networks and begun:
            write_plan(store.files, one.key, plan.to_json())


def _made(
    todo: ToDo, limits: Limits, where: Files, strategy: AskedStrategy
) -> Plan | None:
    """Make a plan where the run is long or memory is tight."""
    cluster = active_cluster()
    if not cluster.n_workers:  # they will come, and nobody knows what they will be
        return None
    guessed = question_of(todo, rough(todo.looks), limits, cluster)
    if not _matters(guessed):
        return None
    measured = measure(todo.looks, n_images=todo.n_images, where=where)
    # What was begun in one pass is finished so, whatever is asked for new layers.
    chosen = (
        as_begun(todo.begun) if strategy in impossible(todo.looks, todo.begun) else None
    )
    question = question_of(
        todo, corrected(measured), limits, cluster, strategy=chosen or strategy
    )
    return make_plan(question)


def _matters(question: Question) -> bool:
    """Whether the usual layout would take long, or most of a worker's memory."""
    block = usual_block(question)
    workers, threads = question.n_workers or 1, question.threads or 1
    layout = Layout(
        workers=workers,
        threads=threads,
        batch=min(question.batch_size or settings().batch_size, block),
        block=block,
        decode_threads=question.decode_threads,
    )
    measured = question.measured
    needed = MemoryModel.of(measured).projected_mem(
        batch=layout.batch,
        block=block,
        threads=threads,
        decode_threads=layout.decode_threads,
    )
    surely = measured.reserved + _ROUGH_BYTES * (needed - measured.reserved)
    if not comfortable(surely, question.allowed_mem(workers)):
        return True
    found = cost(measured, layout, n_images=question.n_images, cores=question.cores)
    return found.seconds > _ROUGH_SECONDS * LONG


def _check_strategy(plan: Plan, strategy: AskedStrategy) -> None:
    """Refuse a plan for another strategy than was asked for."""
    if strategy not in ("auto", plan.strategy):
        message = (
            f"the plan is for strategy={plan.strategy!r} and {strategy!r} was asked for: "
            f"leave strategy out, or plan again with strategy={strategy!r}"
        )
        raise InputError(message)


def _check(plan: Plan, todo: ToDo, looks: Sequence[Asked], limits: Limits) -> None:
    """Refuse a plan for other images, layers or workers, or not as a store was begun."""
    images = len(looks[0].images)
    if plan.n_images not in (images, todo.n_images):
        message = f"the plan is for {plan.n_images:,} images and these are {images:,}: plan again"
        raise InputError(message)
    _check_layers(plan, todo, looks)
    for name, value in (
        ("batch_size", todo.batch_size or limits.batch_size),
        ("block", todo.block),
    ):
        if value is not None and value != getattr(plan, name):
            message = (
                f"the plan has {name} {getattr(plan, name)} and this run has {value}, as "
                "it was asked for or begun: plan again, with path= where a store exists"
            )
            raise InputError(message)
    there = active_cluster()
    if there.n_workers and there.memory_limit < plan.needed_mem:
        message = (
            f"the plan needs {told_bytes(plan.needed_mem)} in a worker and the smallest "
            f"one has {told_bytes(there.memory_limit)}: plan again on these workers, or "
            "start them with more memory"
        )
        raise PlanError(message)


def _check_layers(plan: Plan, todo: ToDo, looks: Sequence[Asked]) -> None:
    planned = plan.nbytes
    asked = [
        {layer.name: plan.n_images * layer.row_bytes for layer in rough(each).layers}
        for each in (looks, todo.looks)
    ]
    if planned in asked:
        return
    differ = sorted({name for name, _ in planned.items() ^ asked[-1].items()})
    listed = ", ".join(map(repr, differ[:3])) + ", …" * (len(differ) > 3)
    message = (
        f"the plan is for other layers, pools or numbers than these ({listed}): plan "
        "again with the arguments of this call"
    )
    raise InputError(message)
