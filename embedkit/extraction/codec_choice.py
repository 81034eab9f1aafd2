"""Codecs of a pass's layers, chosen by rows that a probe or a first block has computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from embedkit.files.files import Files
from embedkit.planning.codecs import CodecChoice, choose_codec, suggest_float16
from embedkit.planning.grid import chunk_rows, power_of_two_below
from embedkit.store.codec_trials import float16_error, try_codecs, zero_share
from embedkit.store.schema import LayerSpec

_BYTES: Final = 8 * 2**20
"""Of a layer's rows that are written with each codec (chosen: some 0.1 s each)."""

_WRITING: Final = 0.1
"""The share of a run's time that writing may take before it holds the run up."""


@dataclass(frozen=True, slots=True)
class LayerCodec:
    """How one layer is best stored.

    Parameters
    ----------
    choice : CodecChoice
        Its codec, and why.
    float16 : str
        What half the bytes would cost, for people; empty where it is not float32.
    """

    choice: CodecChoice
    float16: str


def choose_codecs(
    layers: Sequence[LayerSpec],
    values: Mapping[str, npt.NDArray[np.float32]],
    place: Files,
    *,
    tolerance: float,
    images_per_second: float = 0.0,
) -> dict[str, LayerCodec]:
    """Return the codec of every layer, measured on some of its rows.

    Parameters
    ----------
    layers : sequence of LayerSpec
        The layers of a pass.
    values : mapping of str to (n, ...) array of float32
        Rows by the network's name of the layer, at least one each.
    place : Files
        An empty place like the one that the store will have; it is empty afterwards.
    tolerance : float
        Of the pass.
    images_per_second : float, default 0
        At which one task computes: writing all layers may take a tenth of its time.

    Returns
    -------
    dict of str to LayerCodec
        By the store's names. Half the bytes are suggested, never chosen.
    """
    row_bytes = sum(spec.row_bytes for spec in layers)
    needed = row_bytes * images_per_second / _WRITING
    return {
        spec.name: _choose(spec, values[spec.tap], place, needed, tolerance)
        for spec in layers
    }


def with_codecs(
    layers: Sequence[LayerSpec], chosen: Mapping[str, LayerCodec]
) -> tuple[LayerSpec, ...]:
    """Return layers with the codecs that were chosen for them."""
    return tuple(
        replace(spec, codec=chosen[spec.name].choice.codec)
        if spec.name in chosen
        else spec
        for spec in layers
    )


def _choose(
    spec: LayerSpec,
    values: npt.NDArray[np.float32],
    place: Files,
    needed: float,
    tolerance: float,
) -> LayerCodec:
    rows = _many(spec, values)
    rates = try_codecs(place, rows, chunk=chunk_rows(len(rows), spec.row_bytes))
    choice = choose_codec(zero_share(values), rates, needed_rate=needed)
    full = spec.dtype == "float32"
    error = float16_error(values) if full else 0.0
    return LayerCodec(choice, suggest_float16(error, tolerance=tolerance) * full)


def _many(spec: LayerSpec, values: npt.NDArray[np.float32]) -> npt.NDArray[np.generic]:
    """Return enough rows to time, as they are stored: those given, each scaled otherwise.

    A codec would find rows that are there twice. Zeros stay zeros.
    """
    count = power_of_two_below(max(1, _BYTES // max(1, spec.row_bytes)))
    given = np.nan_to_num(values[np.arange(count) % len(values)])
    factors = np.random.default_rng(0).uniform(0.5, 1.0, count).astype(np.float32)
    scaled = given * factors.reshape(count, *(1 for _ in spec.shape))
    return np.ascontiguousarray(scaled, dtype=spec.dtype)
