"""How far the plans of finished runs were off, kept for the next one.

Beside the measurements, under the same keys: what a measurement depends on is what its
error depends on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

from embedkit.errors import EmbedkitError
from embedkit.extraction.asked import Asked
from embedkit.extraction.measure.measuring import keys_of
from embedkit.files.files import files_at
from embedkit.networks.converted import cache_folder
from embedkit.planning import joined
from embedkit.planning.correction import LAST, Ratio, factors_of
from embedkit.planning.measurement import Measurement
from embedkit.planning.plan import Plan
from embedkit.store.commits import Commit
from embedkit.store.report import Followed, followed
from embedkit.store.schema import Pass
from embedkit.store.store import Store
from embedkit.workers import active_workers

_LEAST_IMAGES = 256
"""Images from which a run says anything: opening and warming up are most of a short one."""

_LEAST_SECONDS = 10.0
"""Seconds of all its tasks together from which it does (chosen)."""

_LOST = 0.1
"""The share of images from which those that could not be read make a run another one."""

_USED = 1.1
"""By so much a worker may be larger than one that has done nothing (chosen: what other
runs and analyses have left in it is no part of a plan)."""

_TRIES = 20
"""Other runs that may end at the very same time (chosen)."""


def corrected(measured: Measurement) -> Measurement:
    """Return a measurement as earlier runs of its networks, or its pace, correct it."""
    known = [ratios(key) for key in measured.keys]
    return joined.corrected(measured, factors_of(known, pace=measured.pace))


@contextmanager
def learning(
    store: Store, networks: Iterable[str], plan: Plan | None, looks: Sequence[Asked]
) -> Iterator[None]:
    """Remember what a run takes, for the plans that are made from now on.

    Parameters
    ----------
    store : Store
        In line with what is asked; the run has not begun.
    networks : iterable of str
        That it computes, by what the store calls them.
    plan : Plan, optional
        That it follows. Without one nothing is learned.
    looks : sequence of Asked
        What is asked of each network, as it was planned.

    Notes
    -----
    A run teaches where it is the first that computes these networks in the store, in one
    pass over the images, in worker processes like those that were measured, and not a
    short one. Where workers were lost, or batches halved, it teaches that more memory is
    needed than was measured, if it is, and no more. One that fails teaches nothing.
    """
    names = set(networks)
    mine = [one for one in store.schema.passes if one.network in names]
    memory = _held_by_workers()
    new = plan is not None and memory > 0 and not any(map(store.commits, mine))
    yield
    if plan is not None and new:
        ratio = ratio_of(store, mine, plan, used=memory)
        with suppress(EmbedkitError, OSError):  # the run is done, whatever follows
            if ratio is not None and set(plan.keys) == set(
                keys_of(looks, where=store.files)
            ):
                for key in plan.keys:
                    remember(key, ratio)


def ratio_of(
    store: Store, passes: Sequence[Pass], plan: Plan, *, used: int = 0
) -> Ratio | None:
    """Return what a finished run took over what was measured for it.

    Parameters
    ----------
    store : Store
        The store.
    passes : sequence of Pass
        All of the networks that the run has computed, and no other run.
    plan : Plan
        That it has followed.
    used : int, default 0
        Bytes of the largest worker before the run.

    Returns
    -------
    Ratio or None
        None where it says nothing.
    """
    commits = {one.key: store.commits(one) for one in passes}
    found = _of_plan(store, passes, commits)
    if found is None or not found.memory_ratio or not found.time_ratio:
        return None
    if found.images < _LEAST_IMAGES or found.seconds < _LEAST_SECONDS:
        return None
    if any(one.about.get("strategy", "fused") != "fused" for one in passes):
        return None
    memory: float | None = found.memory_ratio * plan.factors.memory
    time: float | None = found.time_ratio * plan.factors.time
    if used > _USED * _of_new_worker(plan):
        memory = None
    if not _undisturbed([each for one in commits.values() for each in one.values()]):
        time = None
        memory = memory if memory and memory > 1.0 else None
    return None if memory is None and time is None else Ratio(memory, time)


def _of_plan(
    store: Store, passes: Sequence[Pass], commits: Mapping[str, Mapping[int, Commit]]
) -> Followed | None:
    names = {one.network for one in passes}
    known = {one.key: commits.get(one.key, {}) for one in store.schema.passes}
    for each in followed(store.files, store.schema, known):
        if set(each.networks) == names:
            return each
    return None


def _of_new_worker(plan: Plan) -> float:
    """Return the bytes that were measured of a worker that has done nothing."""
    return plan.parts[0].nbytes / plan.factors.memory


def _undisturbed(commits: Sequence[Commit]) -> bool:
    """Whether every block came out at its first attempt, with its images and batches."""
    images = sum(each.stop - each.start for each in commits)
    lost = sum(len(each.failures) for each in commits)
    return lost <= _LOST * images and not any(
        each.halvings or each.attempt > 1 for each in commits
    )


def ratios(key: str) -> list[Ratio]:
    """Return what was kept of the runs of a measurement, the last one last.

    Nothing where the file is damaged or of another form.
    """
    return _understood(_read(key))


def remember(key: str, ratio: Ratio) -> None:
    """Keep one run's ratio; where the folder cannot be written it is forgotten.

    Runs that end at once wait for each other, so that none is lost.
    """
    files = files_at(cache_folder())
    for _ in range(_TRIES):
        old = _read(key)
        kept = [*_understood(old), ratio][-LAST:]
        new = json.dumps([asdict(each) for each in kept]).encode()
        with suppress(OSError):
            if old is None and files.create(_name(key), new):
                return
            if old is not None and files.replace(_name(key), old, new):
                return


def _read(key: str) -> bytes | None:
    try:
        return files_at(cache_folder()).read(_name(key))
    except OSError:
        return None


def _understood(data: bytes | None) -> list[Ratio]:
    try:
        found: Any = json.loads(data or b"[]")
        return [Ratio(_number(each["memory"]), _number(each["time"])) for each in found]
    except (ValueError, LookupError, TypeError):
        return []


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _held_by_workers() -> int:
    """Return the bytes of the largest worker, 0 where blocks run in other processes, too.

    This process may hold what its user has put there, which is no part of a plan.
    """
    workers = active_workers() or {}
    if any(address.startswith("inproc://") for address in workers):
        return 0
    return max((_held(each) for each in workers.values()), default=0)


def _held(worker: Mapping[str, Any]) -> int:
    """Return the bytes that a worker told last, at least 1: a new one has not yet."""
    return max(1, int(worker.get("metrics", {}).get("memory", 0)))


def _name(key: str) -> str:
    return f"learned/{key}.json"
