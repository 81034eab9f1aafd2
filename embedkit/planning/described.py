"""A plan in words: what `embedkit.planning.plan.Plan.describe` returns, and its parts."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from embedkit.planning.costs import CORES, PYTHON
from embedkit.planning.memory import Part
from embedkit.planning.units import told_bytes, told_count, told_seconds
from embedkit.planning.written import LayerWritten

if TYPE_CHECKING:
    from embedkit.planning.plan import Plan

_LAYERS: Final = 6
"""Layers up to which each has a line; of more, the largest four have one."""

_LARGEST: Final = 4
_PARTS: Final = 4
_CODECS: Final = 2
_WIDTH: Final = 120

_WAITS: Final = {
    CORES: "all cores are busy",
    PYTHON: "threads of a process wait for one another to run Python: more workers with "
    "fewer threads would help",
    "decode": "reading and decoding images",
    "transform": "preparing images",
    "wait": "waiting for images",
    "forward": "the networks' forward passes",
    "pool": "pooling",
    "write": "writing",
}

_BINDS: Final = {
    "memory": "the memory of a worker",
    "device_memory": "the memory of the GPU",
    "max_files": "the number of files (max_files)",
    "n_workers": "the number of workers (n_workers)",
    "threads": "the number of threads (threads)",
    "batch_size": "the batch size that was given or stored (batch_size)",
    "block": "the block that was given or stored (block)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line about layers, in words."""

    name: str
    nbytes: str
    files: str
    shape: str
    codec: str


def described(plan: Plan) -> str:
    """Return a plan for people, under thirty lines whatever it writes."""
    told = (headline(plan), _written(plan), _memory(plan), _time(plan), corrected(plan))
    return "\n".join(line for part in told for line in part)


def headline(plan: Plan) -> tuple[str, str]:
    """Return what is written and how long it takes; and on what."""
    total = told_bytes(sum(plan.nbytes.values()))
    maps = plan.scratch_bytes
    scratch = f" and {told_bytes(maps)} of raw maps meanwhile" if maps else ""
    each = " each" * (plan.n_workers > 1)
    return (
        f"{told_count(plan.n_images, 'image')}, {told_count(len(plan.layers), 'layer')}: "
        f"{total} in {told_count(plan.files, 'file')}{scratch}, about {told_seconds(plan.seconds)}",
        f"{told_count(plan.n_workers, 'worker')} with "
        f"{told_count(plan.threads, 'thread')}{each}, batches of {plan.batch_size}, blocks "
        f"of {plan.block} images, {plan.window} in flight",
    )


def layer_rows(plan: Plan) -> Iterator[Row]:
    """Yield a line for every layer, or for the largest ones and one for the others."""
    layers = plan.layers
    if len(layers) <= _LAYERS:
        yield from map(_row, layers)
        return
    by_size = sorted(layers, key=lambda each: -each.nbytes)
    shown = by_size[:_LARGEST]
    yield from (_row(each) for each in layers if each in shown)
    others = by_size[_LARGEST:]
    yield Row(
        name=f"{len(others)} smaller layers",
        nbytes=told_bytes(sum(each.nbytes for each in others)),
        files=told_count(sum(each.files for each in others), "shard"),
        shape="",
        codec=_expected(others),
    )


def _row(layer: LayerWritten) -> Row:
    return Row(
        name=layer.name,
        nbytes=told_bytes(layer.nbytes),
        files=told_count(layer.files, "shard"),
        shape=f"{_times(layer.shard)} in chunks of {_times(layer.chunk)}",
        codec=", ".join(each for each in (layer.codec, _expected([layer])) if each)
        if layer.why
        else "",
    )


def _expected(layers: Sequence[LayerWritten]) -> str:
    """Return the bytes of layers after compression; nothing where one is not known."""
    known = [each.expected for each in layers if each.expected is not None]
    return f"{told_bytes(sum(known))} expected" if len(known) == len(layers) else ""


def written_line(plan: Plan) -> str:
    """Return the title of the lines about layers, with the bytes expected of all."""
    told = _expected(plan.layers)
    return f"written, before compression{f' ({told} after it)' if told else ''}:"


def codec_lines(plan: Plan) -> Iterator[str]:
    """Yield why layers are compressed as they are: of each codec the largest layer."""
    shown: set[str] = set()
    for each in sorted(plan.layers, key=lambda layer: -layer.nbytes):
        if each.why and each.codec not in shown and len(shown) < _CODECS:
            shown.add(each.codec)
            line = f"{each.codec} for {each.name}: {each.why}"
            yield textwrap.shorten(line, _WIDTH, placeholder=" …")


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def _written(plan: Plan) -> Iterator[str]:
    rows = list(layer_rows(plan))
    wide = max(len(row.name) for row in rows)
    wider = max(len(row.nbytes) for row in rows)
    yield written_line(plan)
    for row in rows:
        shape = f" of {row.shape}" if row.shape else ""
        codec = f"; {row.codec}" if row.codec else ""
        yield f"  {row.name:<{wide}}  {row.nbytes:>{wider}}  {row.files}{shape}{codec}"
    yield from codec_lines(plan)


def memory_line(plan: Plan) -> str:
    """Return what a worker needs and has, in one sentence."""
    tight = (
        "" if plan.roomy else ", which is tight: the steps are the smallest there are"
    )
    return (
        f"memory of a worker: {told_bytes(plan.projected_mem)} at its peak, for which it "
        f"needs a limit of {told_bytes(plan.needed_mem)}; it has "
        f"{told_bytes(plan.allowed_mem)}{tight}"
    )


def memory_parts(plan: Plan) -> list[Part]:
    """Return what takes the most memory in a worker, and all else as one."""
    by_size = sorted(plan.parts, key=lambda each: -each.nbytes)
    rest = sum(each.nbytes for each in by_size[_PARTS:])
    return [*by_size[:_PARTS], *([Part("all else", rest)] if rest else [])]


def _memory(plan: Plan) -> Iterator[str]:
    yield memory_line(plan)
    parts = memory_parts(plan)
    wide = max(len(each.name) for each in parts)
    for each in parts:
        yield f"  {each.name:<{wide}}  {told_bytes(each.nbytes):>10}"
    yield from filter(None, [device_line(plan)])


def device_line(plan: Plan) -> str:
    """Return what a worker needs of a GPU and may have, empty without one."""
    if not plan.device_parts:
        return ""
    parts = ", ".join(
        f"{each.name} {told_bytes(each.nbytes)}" for each in plan.device_parts
    )
    known = plan.allowed_device
    has = f"; it may have {told_bytes(known)}" if known else ""
    needs = told_bytes(plan.projected_device_mem)
    return f"memory of the GPU for a worker: {needs} ({parts}){has}"


def time_line(plan: Plan) -> str:
    """Return the seconds of all tasks together, by stage."""
    stages = ", ".join(
        f"{name} {told_seconds(each)}" for name, each in plan.stages.items() if each
    )
    return f"time of all tasks together: {stages}"


def why_line(plan: Plan) -> str:
    """Return what the run waits for, and what keeps it from being faster."""
    waits = _WAITS.get(plan.waits_for, plan.waits_for)
    if plan.binding == plan.waits_for:
        return f"bottleneck: {waits}"
    return f"bottleneck: {waits}; bound by {_BINDS.get(plan.binding, plan.binding)}"


def corrected(plan: Plan) -> Iterator[str]:
    """Yield by what earlier runs, or a rehearsal, have corrected the plan, if they have."""
    factors = plan.factors
    if not factors.runs and factors.time != 1:
        yield f"corrected by blocks on all workers at once: time x{factors.time:.2f}"
    if factors.runs:
        yield (
            f"corrected by {told_count(factors.runs, 'earlier run')}: "
            f"memory x{factors.memory:.2f}, time x{factors.time:.2f}"
        )


def _time(plan: Plan) -> Iterator[str]:
    yield time_line(plan)
    yield why_line(plan)
    for title, told in (
        ("would be faster with:", plan.faster),
        ("ways to compute the layers:", plan.ways),
    ):
        yield from [title] * bool(told)
        yield from (f"  {each}" for each in told)
