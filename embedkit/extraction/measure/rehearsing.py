"""How much longer whole blocks take than their parts, computed by all workers at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from embedkit.config import settings
from embedkit.errors import PlanError
from embedkit.extraction.asked import Asked
from embedkit.extraction.measure.errands import rehearsal_errand
from embedkit.extraction.measure.machines import Machine, on_workers
from embedkit.extraction.measure.probing import rehearse_errand
from embedkit.planning.correction import clamped
from embedkit.planning.costs import Layout, Work, cost
from embedkit.planning.grid import power_of_two_below
from embedkit.planning.measurement import Measurement
from embedkit.planning.question import Question
from embedkit.planning.solve import Shortfall, Solution, solve
from embedkit.store.schema import LayerSpec

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
    folder: str,
    *,
    place: str,
) -> Measurement:
    """Return a measurement with its pace, if the run is long enough to be rehearsed.

    All workers of a kind that are on one machine compute blocks at once, each in a process
    of its own, as the fastest plan for them would have it.

    Parameters
    ----------
    asked, specs
        The network, and its layers as they are to be stored.
    machine : Machine
        The kind of worker.
    measured : Measurement
        What was measured on one of them.
    folder, place
        As for `embedkit.extraction.measure.errands.probe_errand`.
    """
    if measured.rehearsed >= len(machine.beside):
        return measured
    plain = replace(measured, pace=1.0)
    found = _solved(asked, plain, machine, workers=len(machine.beside))
    if isinstance(found, Shortfall) or found.cost.seconds < _WORTH:
        return measured
    layout = _short(found, plain, n_images=len(asked.images))
    errand = rehearsal_errand(
        asked, specs, machine, folder, layout=layout, place=place, seconds=_SECONDS
    )
    told: list[list[float]] = []
    # A worker that is gone meanwhile says nothing of the pace.
    with suppress(PlanError):
        told = on_workers(machine.beside, rehearse_errand, errand)
    pace = _pace(plain, layout, machine, [each for each in told if each])
    return replace(measured, pace=pace, rehearsed=len(machine.beside))


def _solved(
    asked: Asked, measured: Measurement, machine: Machine, *, workers: int
) -> Solution | Shortfall:
    """Return the fastest layout for so many workers of a kind."""
    return solve(
        Question(
            measured=measured,
            n_images=len(asked.images),
            cores=machine.cores,
            memory=workers * machine.limit,
            n_workers=workers,
            threads=machine.threads or None,
            block=asked.block,
            decode_threads=settings().decode_threads,
        )
    )


def _short(found: Solution, measured: Measurement, *, n_images: int) -> Layout:
    """Return a layout with blocks so small that some of them can be waited for."""
    layout = found.layout
    running = found.cost.seconds - Work.of(measured, batch=layout.batch).load
    rows = power_of_two_below(_BLOCK * n_images / (running * layout.slots))
    return replace(layout, block=min(layout.block, max(layout.batch, rows)))


def _pace(
    measured: Measurement,
    layout: Layout,
    machine: Machine,
    told: Sequence[Sequence[float]],
) -> float:
    """Return how many times as long blocks took as was planned; 1 where nobody told."""
    if not told:
        return 1.0
    took = sum(seconds / images for images, seconds in told) / len(told)
    planned = cost(
        measured,
        layout,
        n_images=layout.slots * layout.block,
        cores=machine.cores,
    )
    load = Work.of(measured, batch=layout.batch).load
    return clamped(took * layout.threads * layout.block / (planned.seconds - load))
