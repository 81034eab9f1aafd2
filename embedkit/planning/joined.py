"""Several measurements as one: of networks that run together, of unlike machines.

And measurements as earlier runs have corrected them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from embedkit.planning.codecs import LayerTrial, WriteRate, most_careful
from embedkit.planning.correction import Factors
from embedkit.planning.fit import between
from embedkit.planning.measurement import Forward, Measurement, NetworkMeasurement


def together(measured: Sequence[Measurement]) -> Measurement:
    """Return what networks need that look at the same images in one run.

    Parameters
    ----------
    measured : sequence of Measurement
        Of each network, on the same machine; at least one.

    Returns
    -------
    Measurement
        Images are decoded once. What each has measured of a block is added up.
    """
    first = measured[0]
    if len(measured) == 1:
        return first
    seconds = sum(each.row_bytes / each.write_rate for each in measured)
    reading = sum(each.row_bytes / each.read_rate for each in measured)
    row_bytes = sum(each.row_bytes for each in measured)
    return replace(
        first,
        reserved=max(each.reserved for each in measured),
        decode_seconds=max(each.decode_seconds for each in measured),
        decoding=max(each.decoding for each in measured),
        write_rate=row_bytes / seconds,
        read_rate=row_bytes / reading,
        networks=tuple(net for each in measured for net in each.networks),
        block_seconds=sum(each.block_seconds for each in measured),
        held_seconds=sum(each.held_seconds for each in measured),
        speedup=_least_speedup(measured),
        keys=_keys(measured),
        trials=tuple(trial for each in measured for trial in each.trials),
        keep_seconds=max(each.keep_seconds for each in measured),
        pace=max(each.pace for each in measured),
        rehearsed=min(each.rehearsed for each in measured),
    )


def most_demanding(measured: Sequence[Measurement]) -> Measurement:
    """Return what is enough wherever the same run was measured.

    Parameters
    ----------
    measured : sequence of Measurement
        Of the same networks and layers, on a machine each; at least one.

    Returns
    -------
    Measurement
        The most memory and the most seconds of all, number by number.
    """
    first = measured[0]
    if len(measured) == 1:
        return first
    networks = zip(*(each.networks for each in measured), strict=True)
    return Measurement(
        reserved=max(each.reserved for each in measured),
        decode_seconds=max(each.decode_seconds for each in measured),
        decoding=max(each.decoding for each in measured),
        write_rate=min(each.write_rate for each in measured),
        read_rate=min(each.read_rate for each in measured),
        networks=tuple(_demanding(several) for several in networks),
        block_seconds=max(each.block_seconds for each in measured),
        held_seconds=max(each.held_seconds for each in measured),
        speedup=_least_speedup(measured),
        keys=_keys(measured),
        trials=_trials(measured),
        keep_seconds=max(each.keep_seconds for each in measured),
        pace=max(each.pace for each in measured),
        rehearsed=min(each.rehearsed for each in measured),
    )


def corrected(measured: Measurement, factors: Factors) -> Measurement:
    """Return what a run is expected to take, by rehearsed blocks or by earlier runs.

    Parameters
    ----------
    measured : Measurement
        As it was measured, not corrected yet.
    factors : Factors
        By which; see `embedkit.planning.correction`.

    Returns
    -------
    Measurement
        All its seconds are multiplied. Bytes stay, as many of them are exact sizes; what
        `embedkit.planning.memory.MemoryModel` projects from them is multiplied.
    """
    return replace(
        measured,
        decode_seconds=measured.decode_seconds * factors.time,
        write_rate=measured.write_rate / factors.time,
        read_rate=measured.read_rate / factors.time,
        networks=tuple(_slower(each, factors.time) for each in measured.networks),
        block_seconds=measured.block_seconds * factors.time,
        held_seconds=measured.held_seconds * factors.time,
        factors=factors,
        trials=tuple(_slower_trial(each, factors.time) for each in measured.trials),
        keep_seconds=measured.keep_seconds * factors.time,
    )


def _slower(network: NetworkMeasurement, times: float) -> NetworkMeasurement:
    return replace(
        network,
        load_seconds=network.load_seconds * times,
        transform_seconds=network.transform_seconds * times,
        forward=tuple(
            replace(each, seconds=each.seconds * times) for each in network.forward
        ),
    )


def _keys(measured: Sequence[Measurement]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for each in measured for key in each.keys))


def _demanding(several: Sequence[NetworkMeasurement]) -> NetworkMeasurement:
    return replace(
        several[0],
        loaded=max(each.loaded for each in several),
        loading=max(each.loading for each in several),
        load_seconds=max(each.load_seconds for each in several),
        transform_seconds=max(each.transform_seconds for each in several),
        forward=_forward([each.forward for each in several]),
        alone=_forward([each.alone for each in several]),
        device_loaded=max(each.device_loaded for each in several),
    )


def _forward(several: Sequence[Sequence[Forward]]) -> tuple[Forward, ...]:
    """Return the batch sizes that every machine has run."""
    by_size: dict[int, list[Forward]] = {}
    for each in (one for passes in several for one in passes):
        by_size.setdefault(each.batch, []).append(each)
    shared = set.intersection(*({one.batch for one in passes} for passes in several))
    return tuple(
        Forward(
            batch=size,
            peak=max(each.peak for each in by_size[size]),
            seconds=max(each.seconds for each in by_size[size]),
            device_peak=max(each.device_peak for each in by_size[size]),
        )
        for size in sorted(shared)
    )


def _least_speedup(measured: Sequence[Measurement]) -> tuple[tuple[int, float], ...]:
    counts = sorted({count for each in measured for count, _ in each.speedup})
    return tuple(
        (count, min(between(each.speedup, count) for each in measured))
        for count in counts
    )


def _slower_trial(trial: LayerTrial, times: float) -> LayerTrial:
    rates = {
        codec: WriteRate(rate=each.rate / times, ratio=each.ratio)
        for codec, each in trial.rates.items()
    }
    return replace(trial, rates=rates)


def _trials(measured: Sequence[Measurement]) -> tuple[LayerTrial, ...]:
    """Return the trials of layers that were tried on every machine."""
    by_layer: dict[str, list[LayerTrial]] = {}
    for trial in (trial for each in measured for trial in each.trials):
        by_layer.setdefault(trial.layer, []).append(trial)
    return tuple(
        most_careful(each) for each in by_layer.values() if len(each) == len(measured)
    )
