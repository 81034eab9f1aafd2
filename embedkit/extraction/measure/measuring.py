"""What a run needs, measured in a process like those that will compute it, and kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

from embedkit.extraction.asked import Asked
from embedkit.extraction.measure.errands import backend_of, place_for, probe_errand
from embedkit.extraction.measure.known_measurement import find, keep, key_of
from embedkit.extraction.measure.layer_sizes import prefixes, sizes_of, specs_of
from embedkit.extraction.measure.machines import Machine, machines, on_worker
from embedkit.extraction.measure.probing import run_errand
from embedkit.extraction.measure.rehearsing import rehearsed
from embedkit.files.files import Files
from embedkit.planning.codecs import Codec, LayerTrial, WriteRate
from embedkit.planning.joined import most_demanding, together
from embedkit.planning.measurement import (
    FLOAT32,
    Forward,
    Measurement,
    NetworkMeasurement,
)
from embedkit.store.schema import LayerSpec

SERVING = 52 * 2**20
"""Bytes that a worker takes besides what it imports, for its connections and threads
(measured: 37 MB from its start to its first task on one machine, 42.5 MB on another)."""

_SECONDS = 6.0
"""During which each network is tried in larger batches and with more threads (chosen:
starting, loading and what cannot be left out take as long, and a rehearsal twice that)."""


def measure(
    looks: Sequence[Asked],
    *,
    n_images: int | None = None,
    where: Files | None = None,
    refresh: bool = False,
) -> Measurement:
    """Return what a run needs, measured once for each kind of worker.

    A process of its own loads the network and tries it on a few of the images, on a
    worker of each kind of the active cluster, or here. Where the run is not short, all
    workers of a kind on one machine then compute some blocks at once, which says how much
    longer they take. What is found is kept in the user's cache folder, under everything
    that it depends on.

    Parameters
    ----------
    looks : sequence of Asked
        What is asked of each network; at least one.
    n_images : int, optional
        That are to be computed, by default all: a run that is not short is rehearsed.
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
    It takes some fifteen seconds for each network and kind of worker, and as long again
    for a run that is worth a rehearsal.
    """
    return most_demanding(
        [
            together(
                [
                    _measured(
                        asked,
                        prefix,
                        machine,
                        n_images=n_images or len(asked.images),
                        where=where,
                        refresh=refresh,
                    )
                    for asked, prefix in zip(looks, prefixes(looks), strict=True)
                ]
            )
            for machine in machines()
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
        specs_of(asked, prefix=prefix, backend=backend_of(asked))
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
    n_images: int,
    where: Files | None,
    refresh: bool,
) -> Measurement:
    """Return what one network needs on one machine, known or measured."""
    specs = specs_of(asked, prefix=prefix, backend=backend_of(asked))
    key = key_of(asked, specs, machine, where)
    parts = None if refresh else find(key)
    if parts is None:
        with place_for(where) as place, TemporaryDirectory() as folder:
            errand = probe_errand(
                asked, specs, machine, folder, place=place, seconds=_SECONDS
            )
            told = on_worker(machine.address, run_errand, errand)
        parts = _measurement(asked, specs, told)
        keep(key, parts)
    found = rehearsed(asked, specs, machine, parts, n_images=n_images, where=where)
    if found != parts:
        keep(key, found)
    return replace(found, keys=(key,))


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
