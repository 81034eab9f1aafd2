"""What a run needs, measured in a process like those that will compute it, and kept."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from embedkit.extraction.asked import Asked
from embedkit.extraction.backend import backend_for
from embedkit.extraction.measure.known_measurement import find, keep, key_of
from embedkit.extraction.measure.layer_sizes import prefixes, sizes_of, specs_of
from embedkit.extraction.measure.machines import Machine, machines, on_worker
from embedkit.extraction.measure.probe_job import ProbeJob
from embedkit.extraction.measure.probing import Errand, run_errand
from embedkit.extraction.measure.rough import rough, seconds_of
from embedkit.extraction.measure.sampling import sample_of
from embedkit.files.files import Files, files_at
from embedkit.networks.backends import Backend
from embedkit.planning.codecs import Codec, LayerTrial, WriteRate
from embedkit.planning.joined import most_demanding, together
from embedkit.planning.measurement import (
    FLOAT32,
    Forward,
    Measurement,
    NetworkMeasurement,
)
from embedkit.planning.memory import TARGET
from embedkit.store.lock import process_name
from embedkit.store.schema import LayerSpec

__all__ = ["keys_of", "measure", "rough"]

SERVING = 40 * 2**20
"""Bytes that a worker takes besides what it imports, for its connections and threads
(measured: 37 MB from its start to its first task)."""

_BATCHES = (1, 2, 8, 32, 128)
"""Images of a pass: two for the line of memory, then far enough apart to make a difference
before the time is over (chosen)."""

_SECONDS = 30.0
"""That measuring may take in all, besides what cannot be left out."""

_SHARE = 0.05
"""Of the time of a run that measuring it may take."""

_LEAST = 6.0
"""Seconds that each network has at least: starting and loading take as long (chosen)."""

_MORE = 2.0
"""Times as long as it had: what ended for lack of time is measured again (chosen)."""


def measure(
    looks: Sequence[Asked], *, where: Files | None = None, refresh: bool = False
) -> Measurement:
    """Return what a run needs, measured once for each kind of worker.

    A process of its own loads the network and tries it on a few of the images, on a
    worker of each kind of the active cluster, or here. What it finds is kept in the
    user's cache folder, under everything that it depends on.

    Parameters
    ----------
    looks : sequence of Asked
        What is asked of each network; at least one.
    where : Files, optional
        The store that is planned, which need not exist: blocks are written beside it, and
        deleted. By default a temporary folder has to do.
    refresh : bool, default False
        Whether to measure again what is known.

    Returns
    -------
    Measurement
        Of unlike workers the most memory and the most seconds, number by number. Layers
        are called as in a new store: behind the network's name from the second one on.
        It is not corrected by earlier runs; its `keys` are where they are remembered.

    Raises
    ------
    PlanError
        When the process, or the worker that started it, dies before a batch of two.
    EmbedkitError
        What a run would raise: for a network that cannot be loaded by other processes, or
        a place that cannot be written.

    Notes
    -----
    It takes some seconds for each network and kind of worker, whatever the run: a
    process has to start. Beyond that it ends after 5 % of the estimated time of the run,
    and after 30 s at most.
    """
    found = machines()
    guess = seconds_of(looks, rough(looks))
    seconds = min(_SECONDS, _SHARE * guess) / (len(looks) * len(found))
    return most_demanding(
        [
            together(
                [
                    _measured(
                        asked,
                        prefix,
                        machine,
                        where=where,
                        refresh=refresh,
                        seconds=max(_LEAST, seconds),
                    )
                    for asked, prefix in zip(looks, prefixes(looks), strict=True)
                ]
            )
            for machine in found
        ]
    )


def keys_of(looks: Sequence[Asked], *, where: Files | None = None) -> tuple[str, ...]:
    """Return the keys that `measure` would give what it finds for the same call.

    Parameters
    ----------
    looks, where
        As for `measure`.
    """
    specs = [
        specs_of(asked, prefix=prefix, backend=_backend(asked))
        for asked, prefix in zip(looks, prefixes(looks), strict=True)
    ]
    return tuple(
        key_of(asked, each, machine, where)
        for machine in machines()
        for asked, each in zip(looks, specs, strict=True)
    )


def _measured(
    asked: Asked,
    prefix: str,
    machine: Machine,
    *,
    where: Files | None,
    refresh: bool,
    seconds: float,
) -> Measurement:
    """Return what one network needs on one machine, known or measured."""
    specs = specs_of(asked, prefix=prefix, backend=_backend(asked))
    key = key_of(asked, specs, machine, where)
    known = None if refresh else find(key)
    if known is not None and not _worth_again(known, seconds):
        return replace(known, keys=(key,))
    with _place(where) as place, TemporaryDirectory() as folder:
        errand = _errand(asked, specs, machine, folder, place=place, seconds=seconds)
        found = on_worker(machine.address, run_errand, errand)
    measured = _measurement(asked, specs, found)
    keep(key, measured)
    return replace(measured, keys=(key,))


def _worth_again(known: Measurement, seconds: float) -> bool:
    """Return whether so much time might reach the larger batches that are not known."""
    return 0 < _MORE * known.hurried <= seconds


def _backend(asked: Asked) -> Backend:
    pools = {tap: asked.pools[tap] for tap in asked.layers}
    return backend_for(
        asked.network,
        asked.images,
        asked.backend,
        pools=pools,
        batch_size=asked.batch_size,
    ).backend


def _errand(
    asked: Asked,
    specs: Sequence[LayerSpec],
    machine: Machine,
    folder: str,
    *,
    place: str,
    seconds: float,
) -> Errand:
    """Return what the process is to do, with all that it needs for that."""
    network = asked.network.spool(files_at(folder))
    file = Path(folder) / network.name
    seen = on_worker(machine.address, os.path.isfile, str(file))
    source, uris = sample_of(asked.images, decode=asked.decode)
    most = min(
        machine.cores, machine.inside
    )  # more than tasks have would be no promise
    counts = {1, most, *(2**at for at in range(most.bit_length()))}
    job = ProbeJob(
        network=network,
        layers=tuple(specs),
        backend=_backend(asked),
        source=source,
        uris=uris,
        place=place,
        batches=_BATCHES,
        threads=tuple(sorted(each for each in counts if each <= most)),
        memory=int(TARGET * machine.limit),
        seconds=seconds,
    )
    return Errand(
        job=job.pickled(),
        file=str(file),
        network=b"" if seen else file.read_bytes(),
        name=asked.network.name,
        seconds=seconds,
    )


@contextmanager
def _place(where: Files | None) -> Iterator[str]:
    """Yield a place for blocks, beside that of the store, and delete it.

    On a file system its name is that of a store's beginning: should this process be
    killed, the next one that makes the store deletes it.
    """
    if where is None or not where.shared:
        yield ""
        return
    own = f"{uuid4().hex}.{process_name()}.partial"
    if "://" in where.url:
        place = f"{where.url}.{own}"
    else:
        path = Path(where.url)
        there = next(each for each in path.parents if each.exists())
        place = str(there / f".{path.name}.{own}")
    try:
        yield place
    finally:
        files_at(place).delete_tree("")


def _measurement(
    asked: Asked, specs: Sequence[LayerSpec], found: Mapping[str, list[Any]]
) -> Measurement:
    """Return what the process has found, in the terms of the planner."""
    pixels, shards, loaded = (found[name][0] for name in ("pixels", "shards", "loaded"))
    count = pixels["images"]
    sizes = sizes_of(asked, specs)
    network = NetworkMeasurement(
        name=asked.network.name,
        loaded=max(0, loaded["bytes"]),
        loading=max(0, loaded["peak"] - loaded["bytes"]),
        load_seconds=loaded["seconds"],
        input_bytes=math.prod(loaded["input"]) * FLOAT32,
        transform_seconds=pixels.get("transform", 0.0) / count,
        forward=_passes(found, "forward"),
        alone=_passes(found, "alone"),
        device_loaded=loaded["device"],
        flops=max(each.flops for each in sizes),
        layers=sizes,
    )
    return Measurement(
        reserved=found["reserved"][0] + shards["kept"] + SERVING,
        decode_seconds=pixels["decode"] / count,
        decoding=max(0, pixels["bytes"]),
        write_rate=shards["bytes"] / shards["write"],
        read_rate=shards["bytes"] / shards["read"],
        networks=(network,),
        block_seconds=shards["block"],
        held_seconds=_held(found, count=count),
        speedup=((1, 1.0), *((at, times) for at, times in found.get("speedup", []))),
        trials=tuple(_trial(*each) for each in found.get("codec", [])),
        keep_seconds=shards["keep"],
        hurried=found.get("hurried", [0.0])[0],
    )


def _trial(
    layer: str, zeros: float, rates: dict[Codec, list[float]], float16: str
) -> LayerTrial:
    told = {codec: WriteRate(*each) for codec, each in rates.items()}
    return LayerTrial(layer=layer, zeros=zeros, rates=told, float16=float16)


def _passes(found: Mapping[str, list[Any]], name: str) -> tuple[Forward, ...]:
    on_device = dict(found.get(f"device_{name}", []))
    return tuple(
        Forward(batch=b, peak=p, seconds=s, device_peak=on_device.get(b, 0))
        for b, p, s in found.get(name, [])
    )


def _held(found: Mapping[str, list[Any]], *, count: int) -> float:
    """Return for how many seconds of one image no other thread can run Python."""
    shards = found["shards"][0]
    forward = found.get("forward_held", [0.0])[0]
    pixels = found["pixels_held"][0] / count
    return float(pixels + forward + shards["held"] / shards["rows"])
