"""What a plan is asked to do, and within which limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from embedkit.errors import InputError
from embedkit.planning.chains import Chain
from embedkit.planning.codecs import Codec
from embedkit.planning.device import Device, device_usable
from embedkit.planning.measurement import Measurement
from embedkit.planning.strategies import AskedStrategy, Strategy

MOST_FILES = 1_000_000
"""Files that a store may have unless told otherwise: quotas of clusters are near it."""

CHOICES = ("n_workers", "threads", "batch_size", "block")
"""What is chosen unless it is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A run to be planned.

    Parameters
    ----------
    measured : Measurement
        What it needs.
    n_images : int
        Images, at least 1.
    cores : int
        Processor cores for all workers together.
    memory : int
        Bytes for all workers together.
    memory_limit : int, optional
        Bytes that one worker may have; a share of `memory` by default.
    n_workers : int, optional
        Worker processes; chosen by default.
    threads : int, optional
        Tasks at a time in a worker; chosen by default.
    batch_size : int, optional
        Images per forward pass; chosen by default.
    block : int, optional
        Images per task; chosen by default. A store keeps the one that it has.
    decode_threads : int, default 2
        Threads of a task that read ahead.
    columns : int, default 4
        Columns of the image table, counted among the files.
    time_budget : float, optional
        Seconds that the run may take.
    disk_budget : int, optional
        Bytes that the layers may take, uncompressed.
    max_files : int, default 1,000,000
        Files that may lie there at a time.
    codecs : mapping of str to str, optional
        Of the layers that the store has begun, by name; those of others are chosen.
    device : Device, optional
        The GPUs that networks run on.
    strategy : {"fused", "staged", "lazy", "auto"}, default "fused"
        How several layers are computed; `embedkit.planning.alternatives` chooses.
    impossible : mapping of str to str
        Strategies that cannot be taken whatever they need, and why.
    chain : callable, optional
        How the layers of a network follow from maps; by default each from the one before.

    Raises
    ------
    InputError
        When a number is too small.
    """

    measured: Measurement
    n_images: int
    cores: int
    memory: int
    memory_limit: int | None = None
    n_workers: int | None = None
    threads: int | None = None
    batch_size: int | None = None
    block: int | None = None
    decode_threads: int = 2
    columns: int = 4
    time_budget: float | None = None
    disk_budget: int | None = None
    max_files: int = MOST_FILES
    codecs: Mapping[str, Codec] = field(default_factory=dict)
    device: Device | None = None
    strategy: AskedStrategy = "fused"
    impossible: Mapping[Strategy, str] = field(default_factory=dict)
    chain: Chain | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name in ("n_images", "cores", "memory", "decode_threads", "max_files"):
            _check(name, getattr(self, name), least=1)
        for name in ("memory_limit", *CHOICES):
            _check(name, getattr(self, name), least=1)
        for name in ("time_budget", "disk_budget"):
            _check(name, getattr(self, name), least=0)
        if not self.measured.layers:
            raise InputError("no layer is to be written: ask for one or more")

    def allowed_mem(self, workers: int) -> int:
        """Return the bytes that each of so many workers may have."""
        share = self.memory // workers
        return share if self.memory_limit is None else min(share, self.memory_limit)

    def allowed_device(self, workers: int) -> int:
        """Return the bytes of a GPU that each of so many workers may plan with."""
        return (
            2**62
            if self.device is None
            else device_usable(self.device.allowed(workers))
        )

    def with_choice(self, name: str, value: int | None) -> Question:
        """Return the question with one of its choices changed, None to leave it open."""
        changed: dict[str, Any] = {name: value}
        return replace(self, **changed)


def _check(name: str, value: float | None, *, least: int) -> None:
    if value is not None and not value >= least:  # NaN too
        raise InputError(f"{name} is {value}: give {least} or more")
