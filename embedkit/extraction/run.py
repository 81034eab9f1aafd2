"""One run: the blocks that a store lacks, computed, followed and finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass

from embedkit.errors import EmbedkitError, IncompleteStore, InputError, StoreError
from embedkit.extraction.block.task import BlockLoss
from embedkit.extraction.dispatch import Outcome, run_blocks
from embedkit.extraction.jobs import SPOOL, Jobs, spool_of
from embedkit.extraction.losses import told
from embedkit.extraction.strategy.maps import MAPS
from embedkit.extraction.strategy.selection import Selection, SelectionIncomplete
from embedkit.extraction.work import Work, work_of
from embedkit.files.files import Files
from embedkit.files.reasons import said
from embedkit.images.source import Source
from embedkit.networks.network import Network
from embedkit.planning.plan import Plan
from embedkit.store.arrays import read, read_text
from embedkit.store.attempts import forget
from embedkit.store.blocks import content_array
from embedkit.store.commits import PRIVATE, compact
from embedkit.store.lock import Lock
from embedkit.store.manifest import unseal
from embedkit.store.schema import Pass
from embedkit.store.store import Store
from embedkit.store.table import REMOVED
from embedkit.workers import active_client, in_this_process

_HOPELESS = 3
"""Blocks given up, with none written, after which the others are not tried (chosen: a
transform that always fails should say so in minutes, not after a million images)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an extraction is, as given to ``on_progress``.

    Parameters
    ----------
    images_done, n_images : int
        Images written, those of an earlier run included, and images in all; of several
        passes, when layers were added, each counts.
    images_before : int
        Images that an earlier run had written.
    n_failed : int
        Images that could not be read, so far.
    n_lost : int
        Blocks that were given up, so far.
    seconds : float
        Wall-clock seconds since this run began.
    """

    images_done: int
    n_images: int
    images_before: int
    n_failed: int
    n_lost: int
    seconds: float


@contextmanager
def writing(files: Files) -> Iterator[None]:
    """Say what to do when the store cannot be written."""
    try:
        yield
    except EmbedkitError:
        raise
    except files.failures as error:
        message = (
            f"cannot write to the store {files.url}: {said(error)}: "
            "check the place, make room or get permission, then run the same call again"
        )
        raise StoreError(message) from error


def fill(
    store: Store,
    networks: Mapping[str, Network],
    source: Source,
    *,
    lock: Lock,
    plan: Plan | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    only: Selection | None = None,
) -> Store:
    """Compute the blocks that a store lacks of some networks, then tidy up.

    Parameters
    ----------
    store : Store
        Locked, and in line with what is asked.
    networks : mapping of str to Network
        By what the store calls them.
    source : Source
        Of the store's images. Each is read once for all passes with the same blocks.
    lock : Lock
        Of the store.
    plan : Plan, optional
        How many blocks are computed at a time, and how many images are read ahead.
    on_progress : callable, optional
        See `extract`.
    only : Selection, optional
        Which of the passes, where others are left for later; the store is then not
        finished, even if it is complete.

    Returns
    -------
    Store
        The same.

    Raises
    ------
    IncompleteStore
        When blocks had to be given up.
    """
    files = store.files
    mine = [
        one
        for one in store.schema.passes
        if one.network in networks and (only is None or one.key in only.keys)
    ]
    if any(len(store.commits(one)) < len(store.schema.grid(one)) for one in mine):
        _check_reach(store)
        store.reopen()
        _clean(files)
        jobs = Jobs(store, networks, source, lock, plan=plan, only=only)
        work = work_of(store, mine, jobs)
        planned = {} if plan is None else _turns(plan)
        _follow(run_blocks(work.turns, **planned), work, lock, on_progress)
        for one in mine:
            forget(files, one)
        if only is None:
            spool_of(store).delete_tree("")
        _clean(files)
        if work.lost:
            kind = IncompleteStore if only is None else SelectionIncomplete
            raise kind(told(store, work.lost))
    for one in mine:
        compact(files, one, store.commits(one))
        if _unread(store, one):
            unseal(files)  # the next call looks whether they can be read by then
    if only is None and store.complete and not store.finished:
        for left in (SPOOL, MAPS):  # also after a death just before this
            files.delete_tree(left)
        store.finish()
    return store


def _turns(plan: Plan) -> dict[str, int]:
    """Return how a plan wants blocks to take turns.

    Workers may join a cluster after the plan was made, so that the window follows them.
    """
    if active_client() is not None:
        return {"slots": plan.threads}
    return {"slots": plan.threads, "window": plan.window}


def _unread(store: Store, one: Pass) -> bool:
    """Whether files of a pass could not even be opened: a disk may have been away."""
    for commit in store.commits(one).values():
        failures = [why for why in commit.failures.values() if why != REMOVED]
        if not failures:
            continue
        rows = slice(commit.start, commit.stop)
        content = read(store.files, content_array(one), rows=rows)
        if (content == 0).sum() > len(commit.failures) - len(failures):
            return True
    return False


def _clean(files: Files) -> None:
    """Delete what killed workers left half-written; results may be saved meanwhile."""
    for folder in ("layers", PRIVATE):
        files.clean(folder)


def _check_reach(store: Store) -> None:
    """Refuse a store or images in this process's memory that tasks elsewhere cannot see."""
    if in_this_process():
        return
    try:
        first = read_text(store.files, "uri", rows=slice(1))
    except (
        OSError,
        ValueError,
        RuntimeError,
    ):  # damaged: the task that needs it says so
        first = []
    hidden = [url for url in (store.url, *first) if url.startswith("memory://")]
    if hidden:
        message = (
            f"{hidden[0]} lies in the memory of this process, which worker processes "
            "cannot reach: give a path or s3://…, or run without a cluster"
        )
        raise InputError(message)


def _follow(
    outcomes: Generator[Outcome, None, None],
    work: Work,
    lock: Lock,
    on_progress: Callable[[Progress], None] | None,
) -> None:
    """Drain the outcomes of a run, and tell how far it is."""
    began, before, written = time.perf_counter(), work.done, 0
    with closing(outcomes):
        for outcome in outcomes:
            lock.check()
            if isinstance(outcome, BlockLoss):
                work.lost.append(outcome)
                if written == 0 and len(work.lost) >= _HOPELESS:
                    return
            else:
                written += 1
                work.done += outcome.n_images
                work.failed += outcome.n_failed
            if on_progress is not None:
                on_progress(
                    Progress(
                        images_done=work.done,
                        n_images=work.total,
                        images_before=before,
                        n_failed=work.failed,
                        n_lost=len(work.lost),
                        seconds=time.perf_counter() - began,
                    )
                )
