"""How much memory of a GPU a run needs, and how much there is for each worker."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from embedkit.planning.fit import Line, fit_line
from embedkit.planning.measurement import Measurement, NetworkMeasurement
from embedkit.planning.memory import Part

CONTEXT: Final = 512 * 2**20
"""Bytes of a GPU that a process takes besides its tensors: libraries and their kernels
(chosen; what a process has taken before cannot be told from what others have)."""

DEVICE_TARGET: Final = 0.8
"""The share of what is free on a GPU that may be planned for (chosen: an allocator leaves
gaps, and batches that do not fit are halved and tried again)."""

GRAPHS: Final = 4
"""Jobs that a process keeps open: each has a copy of its network on the GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """The GPUs of a run.

    Parameters
    ----------
    count : int
        GPUs that workers use, at least 1.
    memory : int
        Bytes of the one with the least that its workers may have together.
    """

    count: int
    memory: int

    def allowed(self, workers: int) -> int:
        """Return the bytes for each of so many workers, on the GPU that most of them share."""
        return self.memory // math.ceil(workers / self.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceModel:
    """What a worker needs of its GPU, in coefficients.

    Parameters
    ----------
    context : int
        Bytes of a process that has used it at all; 0 where none was used.
    networks : int
        Bytes of the networks there.
    forward : Line
        Bytes of a forward pass by its batch, its input and its layers among them. Threads
        of a process take turns, so that there is one at a time.
    """

    context: int
    networks: int
    forward: Line

    @classmethod
    def of(cls, measured: Measurement) -> DeviceModel:
        """Return the model of what was measured."""
        used = [each for each in measured.networks if on_device(each)]
        lines = [device_line(each) for each in used]
        return cls(
            context=CONTEXT if used else 0,
            networks=sum(each.device_loaded for each in used),
            forward=Line(
                # networks follow one another, and the allocator keeps what one has left
                fixed=sum(line.fixed for line in lines),
                per_image=sum(line.per_image for line in lines),
            ),
        )

    def parts(self, batch: int) -> tuple[Part, ...]:
        """Return what a worker needs of its GPU, part by part."""
        return (
            Part("CUDA", self.context),
            Part("networks", self.networks),
            Part("forward pass", self.forward.at(batch)),
        )

    def projected(self, batch: int) -> int:
        """Return the bytes that a worker needs of its GPU."""
        return sum(part.nbytes for part in self.parts(batch))


def on_device(network: NetworkMeasurement) -> bool:
    """Whether a network was measured on a GPU."""
    return any(each.device_peak for each in network.forward)


def device_line(network: NetworkMeasurement) -> Line:
    """Return the bytes of a GPU that a forward pass takes, by its batch."""
    return fit_line([(each.batch, each.device_peak) for each in network.forward])


def device_usable(allowed: int) -> int:
    """Return the part of a worker's share of a GPU that may be planned for."""
    return math.floor(DEVICE_TARGET * allowed)


def needed_of_device(projected: int) -> int:
    """Return the least share of a GPU with which so much may be planned for."""
    wanted = math.ceil(projected / DEVICE_TARGET)
    return wanted if device_usable(wanted) >= projected else wanted + 1


def device_needed(models: Sequence[DeviceModel], batch: int) -> int:
    """Return the bytes that the turn needs that needs the most."""
    return max(each.projected(batch) for each in models)
