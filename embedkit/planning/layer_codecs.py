"""The codec of every layer that a plan writes, by what a few of its rows took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from embedkit.planning.codecs import (
    USUAL,
    Codec,
    CodecChoice,
    LayerTrial,
    WriteRate,
    choose_codec,
)
from embedkit.planning.costs import batches
from embedkit.planning.measurement import Measurement
from embedkit.planning.question import Question
from embedkit.planning.written import LayerWritten

_WRITING: Final = 0.25
"""The share of a task's time that writing may take before it holds the run up (chosen: a
run is waited for once, its bytes are kept; and rates of busy machines differ by half)."""

STORED: Final = "the store has begun it so"


def layer_codecs(question: Question) -> dict[str, CodecChoice]:
    """Return the codec of every layer of which something is known.

    Parameters
    ----------
    question : Question
        Layers that its store has begun keep their codec.

    Returns
    -------
    dict of str to CodecChoice
        By the layer's name. Layers of which nothing was measured are not in it.

    Notes
    -----
    Writing all layers may take a quarter of the time of a task, see
    `embedkit.planning.codecs.choose_codec`.
    """
    measured = question.measured
    needed = measured.row_bytes / _seconds(question) / _WRITING
    chosen = {
        each.layer: choose_codec(each.zeros, each.rates, needed_rate=needed)
        for each in measured.trials
    }
    begun = {
        name: CodecChoice(codec, STORED) for name, codec in question.codecs.items()
    }
    names = {layer.name for layer in measured.layers}
    return {k: v for k, v in (chosen | begun).items() if k in names}


def _seconds(question: Question) -> float:
    """Return what a task takes for one image but for writing it, on one thread."""
    measured = question.measured
    ahead = measured.decode_seconds + measured.transform_seconds
    size = question.batch_size or batches(measured)[-1]
    passes = measured.forward_seconds(size)
    return max(passes, ahead / question.decode_threads, 1e-9)


def with_codecs(
    measured: Measurement, chosen: Mapping[str, CodecChoice]
) -> Measurement:
    """Return what writing takes with the codecs that were chosen.

    Whole blocks were measured with the usual codec. Seconds of a layer are more or fewer
    by as much as the trial of its own codec took more or less.
    """
    seconds = usual = 0.0
    for layer in measured.layers:
        rates = _rates(measured.trials, layer.name)
        choice = chosen.get(layer.name)
        here = 1.0 / rates[USUAL].rate if USUAL in rates else 1.0 / measured.write_rate
        codec = USUAL if choice is None else choice.codec
        there = 1.0 / rates[codec].rate if codec in rates and USUAL in rates else here
        usual += layer.row_bytes * here
        seconds += layer.row_bytes * there
    if not usual or seconds == usual:
        return measured
    return replace(measured, write_rate=measured.write_rate * usual / seconds)


def compressed(
    layers: Sequence[LayerWritten],
    chosen: Mapping[str, CodecChoice],
    trials: Sequence[LayerTrial],
) -> tuple[LayerWritten, ...]:
    """Return what is written of every layer, with its codec and the bytes expected then."""
    hints = {each.layer: each.float16 for each in trials}
    return tuple(
        _compressed(each, chosen[each.name], trials, hints.get(each.name, ""))
        if each.name in chosen
        else each
        for each in layers
    )


def _compressed(
    layer: LayerWritten, choice: CodecChoice, trials: Sequence[LayerTrial], hint: str
) -> LayerWritten:
    tried = _rates(trials, layer.name).get(choice.codec)
    return replace(
        layer,
        codec=choice.codec,
        why=choice.why,
        expected=None if tried is None else round(layer.nbytes * tried.ratio),
        float16=hint,
    )


def _rates(trials: Sequence[LayerTrial], name: str) -> Mapping[Codec, WriteRate]:
    return next((each.rates for each in trials if each.layer == name), {})
