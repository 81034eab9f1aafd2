"""`embedkit.plan`: what a call of `extract` would write, need and take."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from embedkit.errors import InputError
from embedkit.extraction.decoding import Decode, as_stored
from embedkit.extraction.measure.measuring import measure
from embedkit.extraction.plans.learned import corrected
from embedkit.extraction.plans.limits import (
    Limits,
    cluster_for,
    in_bytes,
    in_seconds,
    question_of,
)
from embedkit.extraction.rounding import Dtype
from embedkit.extraction.todo import existing, to_do
from embedkit.extraction.understood import understood
from embedkit.files.files import files_at
from embedkit.images.imageset import ImageSet
from embedkit.networks.backends import Backend
from embedkit.networks.choice import LayerChoice
from embedkit.networks.network import Network
from embedkit.networks.pools import Pool
from embedkit.planning.plan import Plan, make_plan
from embedkit.planning.strategies import AskedStrategy

if TYPE_CHECKING:
    from torch import nn


class NothingToPlan(InputError):
    """A store has everything that was asked for."""


def plan(  # noqa: PLR0913 - every one of them is a decision of the user
    images: ImageSet | Any,
    network: Network | str | nn.Module | Sequence[Network | str | nn.Module],
    *,
    layers: LayerChoice | Mapping[str, LayerChoice] = "stages",
    pool: Pool | Mapping[str, Pool] = "avg",
    dtype: Dtype = "float32",
    backend: Backend | Literal["auto"] = "torch",
    decode: Decode = "exact",
    batch_size: int | None = None,
    block: int | None = None,
    memory_limit: int | str | None = None,
    n_workers: int | None = None,
    threads: int | None = None,
    time_budget: float | str | None = None,
    disk_budget: int | str | None = None,
    max_files: int | None = None,
    strategy: AskedStrategy = "auto",
    path: str | os.PathLike[str] | None = None,
    refresh: bool = False,
) -> Plan:
    """Plan an extraction: what it writes, needs and takes. Nothing is written.

    What a network takes on this machine is measured once, for about half a minute, and
    kept: its parts one by one and, for a run that is not short, whole blocks on all workers
    of a machine at once. The plan is the fastest layout within all limits; give it to
    `extract` as ``plan=``, print `Plan.describe`, or show it in a notebook.

    Parameters
    ----------
    images, network, layers, pool, dtype, backend, decode
        As for `extract`.
    batch_size : int, optional
        Images per forward pass; chosen by default.
    block : int, optional
        Images per task, which is also the rows of a file; chosen by default.
    memory_limit : int or str, optional
        Bytes that one worker may have, or text such as ``"2 GiB"``; by default what the
        workers of the active client have, or this process.
    n_workers : int, optional
        Worker processes, by default those of the active client, or this process alone.
        Given together with `memory_limit`, they need not be there yet.
    threads : int, optional
        Tasks at a time in a worker, by default as many as it has threads, or fewer where
        so many do not fit into its memory.
    time_budget : float or str, optional
        Seconds that the run may take, or text such as ``"2h"``.
    disk_budget : int or str, optional
        Bytes that the layers may take, uncompressed, and raw maps that lie beside them
        meanwhile where they are ``"staged"``; or text such as ``"1 TiB"``.
    max_files : int, optional
        Files that the store may have at a time, default 1,000,000.
    strategy : {"auto", "fused", "staged", "lazy"}, default "auto"
        How several layers are computed, as for `extract`. ``"auto"`` is ``"fused"``, one
        pass over the images, unless that does not fit, or another one saves time: of those
        that fit the fastest. The plan says what each of them would take.
    path : path or URL, optional
        The store that will be written. Where it exists already, what is missing there is
        planned, with the blocks and batches that it has.
    refresh : bool, default False
        Whether to measure again what has been measured before.

    Returns
    -------
    Plan
        Frozen. `Plan.to_json` makes it a text, `Plan.from_json` a plan again.

    Raises
    ------
    PlanError
        When nothing fits, naming the limit, the numbers and up to three changes with each
        of which something would.
    InputError, SourceError, NetworkError
        When an argument cannot be used, or the store at `path` has everything already.
    IdentityMismatch
        When the store at `path` was made from other images, weights or settings.
    """
    limits = Limits(
        batch_size=batch_size,
        block=block,
        n_workers=n_workers,
        threads=threads,
        memory_limit=in_bytes("memory_limit", memory_limit),
        disk_budget=in_bytes("disk_budget", disk_budget),
        time_budget=in_seconds("time_budget", time_budget),
        max_files=max_files,
    )
    looks = understood(
        images,
        network,
        layers=layers,
        pool=pool,
        dtype=dtype,
        backend=backend,
        decode=decode,
        batch_size=batch_size,
        strategy=strategy,
        add_network=True,
    )
    files = None if path is None else files_at(path)
    store = None if files is None else existing(files)
    if store is not None:
        looks = as_stored(store.schema, looks)
    todo = to_do(store, looks)
    if not todo.looks:
        message = (
            f"{path} has all of these layers for all images: nothing is to be planned"
        )
        raise NothingToPlan(message)
    cluster = cluster_for(limits)
    measured = measure(todo.looks, n_images=todo.n_images, where=files, refresh=refresh)
    asked = question_of(todo, corrected(measured), limits, cluster, strategy=strategy)
    return make_plan(asked)
