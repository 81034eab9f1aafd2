"""How a layer is compressed: chosen by what its own numbers were measured to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias, get_args

from embedkit.planning.units import told_bytes

Codec: TypeAlias = Literal["none", "zstd-1", "zstd-3", "blosc-zstd", "blosc-lz4"]
"""How shards can be compressed: not at all, by Zstandard at a level, or by Blosc, which
puts the first bytes of all numbers together, then the second ones, and so on."""

CODECS: Final[tuple[Codec, ...]] = get_args(Codec)
USUAL: Final[Codec] = "zstd-1"
"""What layers are compressed with when nothing was measured."""

NOTICEABLE: Final = 0.1
"""A file has to be so much smaller for its codec to be worth more time (chosen: between
measurements on a busy machine rates differ by more than sizes do)."""

_SPARSE: Final = 0.3
"""The share of zeros from which Zstandard's runs beat shuffled bytes. Of numbers behind a
ReLU, 69 % zeros, it left 0.37 and Blosc 0.44; of dense smooth ones 0.93 and 0.79."""


@dataclass(frozen=True, slots=True)
class WriteRate:
    """What compressing a layer with one codec was measured to take.

    Parameters
    ----------
    rate : float
        Bytes a second, uncompressed, at which one thread compresses and writes.
    ratio : float
        Bytes written over bytes uncompressed.
    """

    rate: float
    ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTrial:
    """What was measured of a layer's rows.

    Parameters
    ----------
    layer : str
        What the store calls it.
    zeros : float
        Their share among its numbers, 0 to 1.
    rates : mapping of str to WriteRate
        By codec; empty where there was no time to try any.
    float16 : str
        What half the bytes would cost, for people; empty where it is not float32.
    """

    layer: str
    zeros: float
    rates: Mapping[Codec, WriteRate]
    float16: str = ""


def most_careful(several: Sequence[LayerTrial]) -> LayerTrial:
    """Return of trials of one layer on unlike machines the slowest and largest numbers."""
    first = several[0]
    tried = [each for each in first.rates if all(each in x.rates for x in several)]
    rates = {
        codec: WriteRate(
            rate=min(each.rates[codec].rate for each in several),
            ratio=max(each.rates[codec].ratio for each in several),
        )
        for codec in tried
    }
    return replace(first, zeros=min(each.zeros for each in several), rates=rates)


@dataclass(frozen=True, slots=True)
class CodecChoice:
    """A codec, and why it is this one.

    Parameters
    ----------
    codec : str
        A `Codec`.
    why : str
        One sentence for people, with the numbers.
    """

    codec: Codec
    why: str


def choose_codec(
    zero_share: float,
    write_rates: Mapping[Codec, WriteRate],
    *,
    needed_rate: float = 0.0,
) -> CodecChoice:
    """Return how a layer is best compressed.

    Parameters
    ----------
    zero_share : float
        Zeros among the layer's numbers, 0 to 1.
    write_rates : mapping of str to WriteRate
        What was measured on some of its rows; may be empty.
    needed_rate : float, default 0
        Bytes a second, uncompressed, at which writing does not hold the run up. The
        fastest codec is taken where none is so fast.

    Returns
    -------
    CodecChoice
        Of the codecs that are fast enough, those count whose files are within a tenth of
        the smallest: ``zstd-1`` where it is one of them, else the fastest. Where nothing
        was measured, the zeros decide: ``zstd-1`` for numbers behind a ReLU,
        ``blosc-zstd`` for dense ones.
    """
    if not write_rates:
        return _guessed(zero_share)
    fast = {k: v for k, v in write_rates.items() if v.rate >= needed_rate}
    if not fast:
        codec = max(write_rates, key=lambda each: write_rates[each].rate)
        held = f"none writes the {told_bytes(needed_rate)}/s that are needed"
        return CodecChoice(codec, _told(codec, write_rates, zero_share, held))
    smallest = min(each.ratio for each in fast.values())
    near = [k for k, v in fast.items() if v.ratio <= (1 + NOTICEABLE) * smallest]
    fastest = max(near, key=lambda each: (fast[each].rate, each))
    codec = USUAL if USUAL in near else fastest
    slower = len(write_rates) - len(fast)
    beside = f"{slower} that would hold the run up left out" if slower else ""
    return CodecChoice(codec, _told(codec, write_rates, zero_share, beside))


def _guessed(zero_share: float) -> CodecChoice:
    codec: Codec = USUAL if zero_share >= _SPARSE else "blosc-zstd"
    return CodecChoice(codec, f"{zero_share:.0%} zeros; no codec was tried")


def _told(
    codec: Codec, rates: Mapping[Codec, WriteRate], zero_share: float, beside: str
) -> str:
    found = ", ".join(
        f"{each} {rates[each].ratio:.2f} at {told_bytes(rates[each].rate)}/s"
        for each in sorted(rates, key=lambda name: (name != codec, name))
    )
    parts = [f"{zero_share:.0%} zeros", f"bytes left: {found}", beside]
    return "; ".join(part for part in parts if part)


def suggest_float16(error: float, *, tolerance: float) -> str:
    """Return a sentence on storing a layer in half the bytes, which nobody does unasked.

    Parameters
    ----------
    error : float
        Largest difference that rounding was measured to make, relative to the largest
        magnitude of its row; infinite where numbers do not fit.
    tolerance : float
        Of the pass, by the same measure: how far apart equal rows may be.
    """
    if error == float("inf"):
        return "float16 cannot hold its numbers: they are beyond 65,504"
    beside = "within" if error <= tolerance else "beyond"
    return (
        f"dtype='float16' would halve it and round by {error:.1e} of a row's largest "
        f"number, {beside} the tolerance of {tolerance:.0e}"
    )
