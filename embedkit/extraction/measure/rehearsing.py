"""How much longer whole blocks take than their parts, computed by all workers at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Final

from embedkit.config import settings
from embedkit.extraction.asked import Asked
from embedkit.extraction.measure.devices import device_of
from embedkit.extraction.measure.errands import place_for, rehearsal_errand
from embedkit.extraction.measure.machines import Machine, at_once
from embedkit.extraction.measure.probing import rehearse_errand
from embedkit.files.files import Files
from embedkit.planning.costs import Cost, Layout, Work, cost
from embedkit.planning.grid import power_of_two_below
from embedkit.planning.measurement import Measurement
from embedkit.planning.question import Question
from embedkit.planning.solve import Shortfall, Solution, solve
from embedkit.store.schema import LayerSpec
from embedkit.workers import Cluster, active_cluster, cluster_of

_WORTH: Final = 30.0
"""Seconds that a run takes at least for which it is worth the while (chosen: it takes some
twelve, once for each network and kind of worker)."""

_BLOCK: Final = 2.0
"""Seconds that a rehearsed block takes at most, as far as its batch allows (chosen)."""

_SECONDS: Final = 5.0
"""During which blocks are computed besides the first ones (chosen: a pace then differs by
0.09 at most from one time to the next)."""


def rehearsed(
    asked: Asked,
    specs: Sequence[LayerSpec],
    machine: Machine,
    measured: Measurement,
    *,
    n_images: int,
    where: Files | None,
) -> Measurement:
    """Return a measurement with its pace, if the run is long enough to be rehearsed.

    Workers that are alike on one machine compute blocks at once, each in a process of its
    own, as the fastest plan for them would have it.

    Parameters
    ----------
    asked, specs
        The network, and its layers as they are to be stored.
    machine : Machine
        The kind of worker. This process rehearses nothing.
    measured : Measurement
        What was measured on one of them.
    n_images : int
        Of the run.
    where : Files, optional
        The store, as for `embedkit.extraction.measure.measuring.measure`.

    Returns
    -------
    Measurement
        As given where nobody has told a pace.
    """
    there = cluster_of(machine.beside)
    if measured.rehearsed >= there.n_workers:
        return measured
    share = there.tasks / active_cluster().tasks
    question = _question(measured, there, n_images=max(1, int(share * n_images)))
    found = solve(question)
    if isinstance(found, Shortfall) or found.cost.seconds < _WORTH:
        return measured
    layout = _short(found, question)
    with place_for(where) as place, TemporaryDirectory() as folder:
        errand = rehearsal_errand(
            asked,
            specs,
            machine,
            folder,
            layout=layout,
            memory=there.n_workers * found.projected_mem,
            place=place,
            seconds=_SECONDS,
        )
        told = at_once(machine.beside, rehearse_errand, errand)
    threads = [thread for worker in told for thread in worker]
    if not threads:
        return measured
    pace = _pace(question, layout, threads)
    return replace(measured, pace=pace, rehearsed=there.n_workers)


def _question(measured: Measurement, there: Cluster, *, n_images: int) -> Question:
    """Return what is asked of the planner for the workers of one machine."""
    return Question(
        measured=measured,
        n_images=n_images,
        cores=there.cores,
        memory=there.memory,
        n_workers=there.n_workers,
        threads=there.threads,
        decode_threads=settings().decode_threads,
        device=device_of(measured),
    )


def _short(found: Solution, question: Question) -> Layout:
    """Return a layout with blocks so small that some of them can be waited for."""
    layout = found.layout
    one = _running(found.cost, question, layout) * layout.slots / question.n_images
    rows = power_of_two_below(_BLOCK / one)
    return replace(layout, block=min(layout.block, max(layout.batch, rows)))


def _pace(
    question: Question, layout: Layout, threads: Sequence[Sequence[float]]
) -> float:
    """Return how many times as long blocks took as planned, at least 1.

    The images of a rehearsal come again and again, so that they are read faster than those
    of a run may be: blocks cannot show that a run is faster than its parts.
    """
    n_images = layout.slots * layout.block  # a block for each thread
    planned = cost(question.measured, layout, n_images=n_images, cores=question.cores)
    took = sum(seconds / images for images, seconds in threads) / len(threads)
    return max(1.0, took * layout.block / _running(planned, question, layout))


def _running(cost: Cost, question: Question, layout: Layout) -> float:
    """Return the seconds of a run without those of loading the network."""
    return cost.seconds - Work.of(question.measured, batch=layout.batch).load
