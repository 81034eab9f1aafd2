"""Measure which backend runs a network fastest here, among those that compute it right."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from embedkit.errors import InputError, MissingDependencyError, NetworkError
from embedkit.networks.backends import BACKENDS, Backend, Taps
from embedkit.networks.choice import LayerChoice
from embedkit.networks.network import Network
from embedkit.networks.pools import Pool
from embedkit.networks.row_errors import largest_error
from embedkit.networks.taps import BACKEND

_REPEATS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one backend did.

    Attributes
    ----------
    images_per_second : float or None
        The median over the repeats; None where it was not raced.
    max_error : float or None
        The largest difference from the reference, relative to the largest magnitude in
        the row; None where it did not run.
    reason : str or None
        Why it was not raced.
    """

    images_per_second: float | None = None
    max_error: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where backends were measured.

    Attributes
    ----------
    host : str
        The machine.
    pid : int
        The process.
    threads : int
        Threads of it that share one operator, in PyTorch.
    """

    host: str
    pid: int
    threads: int

    @classmethod
    def here(cls) -> Place:
        """Return this process."""
        return cls(platform.node(), os.getpid(), torch.get_num_threads())

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, threads: {self.threads}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The backend that was fastest on a batch, and how all of them did.

    Attributes
    ----------
    backend : str
        The fastest of those that agree with the reference.
    images : int
        How many images the batch had.
    table : mapping of str to Trial
        One for every backend.
    place : Place, optional
        Where they ran.
    """

    backend: Backend
    images: int
    table: Mapping[Backend, Trial]
    place: Place | None = None

    def describe(self) -> str:
        """Return the numbers in one line per backend, and the choice in front."""
        lines = [f"backend {self.backend!r} for batches of {self.images} images:"]
        for backend, trial in self.table.items():
            said = trial.reason
            if trial.images_per_second is not None:
                speed = f"{trial.images_per_second:.1f} images/s"
                said = f"{speed}, largest relative error {trial.max_error:.1e}"
            lines.append(f"  {backend}: {said}")
        if self.place is not None:
            lines.append(f"  measured in {self.place}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        table = {
            backend: {
                "images_per_second": trial.images_per_second,
                "max_error": trial.max_error,
                "reason": trial.reason,
            }
            for backend, trial in self.table.items()
        }
        return {
            "backend": self.backend,
            "images": self.images,
            "table": table,
            "place": None if self.place is None else asdict(self.place),
        }


def choose_backend(
    network: Network,
    layers: LayerChoice,
    *,
    pool: Pool | Mapping[str, Pool] = "avg",
    batch: NDArray[np.float32],
) -> Choice:
    """Run a batch through every backend there is here, and return the fastest.

    Every backend runs it once to get ready; its rows are then compared with the
    reference's. Those within their tolerance race: they take turns, so that what else
    the machine does slows all of them alike.

    Parameters
    ----------
    network : Network
        What to run.
    layers : str, sequence of str or callable
        As for `Network.taps`.
    pool : str or mapping of str to str, default "avg"
        As for `Network.taps`.
    batch : ndarray of float32, shape (B, C, H, W)
        Prepared pictures, as many as batches will have.

    Returns
    -------
    Choice
        The fastest backend, with the numbers or the reason of every one.

    Raises
    ------
    NetworkError
        When there is no such layer, or the reference cannot run the batch.
    InputError
        When there is no such pool, or `batch` is not such an array.
    """
    reference = network.taps(layers, pool=pool)
    expected = reference.forward(batch)
    racing: dict[Backend, Taps] = {BACKEND: reference}
    table: dict[Backend, Trial] = {BACKEND: Trial(max_error=0.0)}
    for backend in BACKENDS:
        if backend != BACKEND:
            try:
                taps = network.taps(layers, pool=pool, backend=backend)
                table[backend] = compare(taps, batch, expected)
            except (InputError, MissingDependencyError, NetworkError) as error:
                table[backend] = Trial(reason=str(error))
            else:
                if table[backend].reason is None:
                    racing[backend] = taps
    speeds = _race(racing, batch)
    for backend, speed in speeds.items():
        worst = table[backend].max_error
        table[backend] = Trial(images_per_second=speed, max_error=worst)
    best = max(speeds, key=speeds.__getitem__)
    return Choice(backend=best, images=len(batch), table=table, place=Place.here())


def compare(
    taps: Taps,
    batch: NDArray[np.float32],
    expected: Mapping[str, NDArray[np.float32]],
) -> Trial:
    """Run a batch and compare it with what the reference gave.

    Parameters
    ----------
    taps : Taps
        A backend's.
    batch : ndarray of float32, shape (B, C, H, W)
        Prepared pictures.
    expected : mapping of str to ndarray of float32
        What the reference gave for as many of the first pictures, by layer.

    Returns
    -------
    Trial
        With the largest error, and a reason where that is above the tolerance.
    """
    found = taps.forward(batch)
    errors = {
        one: largest_error(found[one][: len(expected[one])], expected[one])
        for one in taps.layers
    }
    layer = max(errors, key=errors.__getitem__)
    worst, reason = errors[layer], None
    if worst > taps.tolerance:
        reason = (
            f"its rows of layer {layer!r} differ from the reference's by {worst:.1e}, "
            f"more than {taps.tolerance:.0e} of the largest magnitude"
        )
    return Trial(max_error=worst, reason=reason)


def _race(
    racing: Mapping[Backend, Taps], batch: NDArray[np.float32]
) -> dict[Backend, float]:
    """Return images per second."""
    seconds: dict[Backend, list[float]] = {backend: [] for backend in racing}
    for _ in range(_REPEATS):
        for backend, taps in racing.items():
            begin = time.perf_counter()
            taps.forward(batch)
            seconds[backend].append(time.perf_counter() - begin)
    return {
        backend: len(batch) / statistics.median(taken)
        for backend, taken in seconds.items()
    }
