"""How long a run takes on a layout of processes and threads, stage by stage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from embedkit.planning.grid import power_of_two_below
from embedkit.planning.measurement import GAIN, Measurement
from embedkit.planning.stages import bottleneck

CORES = "cores"
PYTHON = "python"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How work lies on machines.

    Parameters
    ----------
    workers : int
        Processes.
    threads : int
        Tasks at a time in each.
    batch : int
        Images per forward pass.
    block : int
        Images per task.
    decode_threads : int
        Threads of a task that read ahead.
    """

    workers: int
    threads: int
    batch: int
    block: int
    decode_threads: int

    @property
    def slots(self) -> int:
        """Tasks at a time in all."""
        return self.workers * self.threads

    def chosen(self, name: str) -> int:
        """Return what was chosen for ``n_workers``, ``threads``, ``batch_size`` or ``block``."""
        choices = {
            "n_workers": self.workers,
            "threads": self.threads,
            "batch_size": self.batch,
            "block": self.block,
        }
        return choices[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a run takes.

    Parameters
    ----------
    seconds : float
        Wall-clock, from its first task to its last, with the loading of networks.
    stages : mapping of str to float
        Seconds of all tasks together, by the stages that commit records have too;
        see `embedkit.planning.stages`.
    waits_for : str
        What a faster run has to begin with: a stage, ``"cores"`` where all of them are
        busy, ``"python"`` where threads of a process wait for one another.
    """

    seconds: float
    stages: Mapping[str, float]
    waits_for: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Seconds of one image on one thread, and of a task besides its images.

    Parameters
    ----------
    decode, transform, forward, write : float
        By stage, for all networks.
    keep : float
        To put its rows into the memory of the block.
    held : float
        During which no other thread of the process can run Python.
    block : float
        Of a task, whatever the number of its images.
    load : float
        Of a process, once.
    """

    decode: float
    transform: float
    forward: float
    keep: float
    write: float
    held: float
    block: float
    load: float

    @classmethod
    def of(cls, measured: Measurement, *, batch: int) -> Work:
        """Return the work of an image in batches of that size."""
        return cls(
            decode=measured.decode_seconds,
            transform=measured.transform_seconds,
            forward=measured.forward_seconds(batch),
            keep=measured.keep_seconds * measured.buffer_bytes,
            write=measured.row_bytes / measured.write_rate,
            held=measured.held_seconds,
            block=measured.block_seconds,
            load=sum(each.load_seconds for each in measured.networks),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Walls:
    """Seconds that a task needs for one image, by what bounds it."""

    forward: float
    pipeline: float
    cores: float
    python: float

    @property
    def longest(self) -> float:
        return max(self.pipeline, self.cores, self.python)


def cost(
    measured: Measurement,
    layout: Layout,
    *,
    n_images: int,
    cores: int,
    work: Work | None = None,
) -> Cost:
    """Return what a run takes on a layout.

    Parameters
    ----------
    measured : Measurement
        What was measured.
    layout : Layout
        The layout.
    n_images : int
        Images.
    cores : int
        Of all workers together.
    work : Work, optional
        That of the layout's batch, where it is known already.

    Returns
    -------
    Cost
        A task takes the longer of reading ahead and of its forward passes, then writes;
        but never less than the work of its images on its share of the cores, nor than
        threads of one process take that run Python, or forward passes, in turn. Tasks come in rounds of as
        many as there are slots.
    """
    one = work or Work.of(measured, batch=layout.batch)
    walls = _walls(measured, one, layout, cores)
    blocks = -(-n_images // layout.block)
    waiting = walls.longest - walls.forward - one.write
    stages = {
        "decode": one.decode * n_images,
        "transform": one.transform * n_images,
        "wait": max(0.0, waiting) * n_images,
        "forward": walls.forward * n_images,
        "write": one.write * n_images + one.block * blocks,
    }
    return Cost(
        seconds=_makespan(walls.longest, one, layout, n_images) + one.load,
        stages=stages,
        waits_for=_waits_for(walls, stages),
    )


def _walls(measured: Measurement, one: Work, layout: Layout, cores: int) -> _Walls:
    share = cores / layout.slots
    inside = max(1, math.floor(share))  # threads inside a forward pass
    forward = one.forward / measured.faster(inside) + one.keep
    ahead = (one.decode + one.transform) / layout.decode_threads
    busy = one.decode + one.transform + forward * inside + one.write
    return _Walls(
        forward=forward,
        pipeline=max(ahead, forward) + one.write,
        cores=busy / share,
        python=max(one.held * layout.threads, _turns(forward, layout)),
    )


def _turns(forward: float, layout: Layout) -> float:
    """Return how long threads wait for their turns: one runs a forward pass at a time."""
    return forward * layout.threads if layout.threads > 1 else 0.0


def _makespan(wall: float, one: Work, layout: Layout, n_images: int) -> float:
    """Return the seconds until the last task ends.

    Blocks come in rounds. What is left over takes a round too, a shorter one where a
    single block that is not full is left; its batches are filled up.
    """
    whole, rest = divmod(n_images, layout.block)
    rounds, over = divmod(whole, layout.slots)
    full = layout.block * wall + one.block
    if over:
        return (rounds + 1) * full
    filled = -(-rest // layout.batch) * layout.batch
    return rounds * full + (filled * wall + one.block if rest else 0.0)


def _waits_for(walls: _Walls, stages: Mapping[str, float]) -> str:
    if walls.python >= walls.longest:
        return PYTHON
    return (
        CORES if walls.cores >= walls.longest > walls.pipeline else bottleneck(stages)
    )


def batches(measured: Measurement) -> tuple[int, ...]:
    """Return the batch sizes that are worth their memory.

    Returns
    -------
    tuple of int
        Powers of two, up to the smallest one that is within 5 % of the fastest measured.
        Memory has no say in it, so that more of it never makes a plan slower.
    """
    most = max(each.batch for net in measured.networks for each in net.forward)
    sizes = [2**power for power in range(power_of_two_below(most).bit_length())]
    best = min(measured.forward_seconds(size) for size in sizes)
    enough = next(s for s in sizes if measured.forward_seconds(s) <= GAIN * best)
    return tuple(size for size in sizes if size <= enough)
