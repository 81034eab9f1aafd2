"""What can be changed in a question: one thing at a time, in words and in numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import get_args

from embedkit.planning.device import Device, needed_of_device
from embedkit.planning.measurement import FLOAT32, LayerSize
from embedkit.planning.question import CHOICES, Question
from embedkit.planning.solve import (
    Shortfall,
    Solution,
    good_limit,
    n_files,
    solve,
    usual_block,
)
from embedkit.planning.strategies import Strategy
from embedkit.planning.units import rounded_up, told_bytes, told_seconds


def changes_for(question: Question, short: Shortfall) -> Iterator[tuple[str, Question]]:
    """Yield changes that may help, those that keep every number first."""
    yield from _raised(question)
    yield from _other_ways(question)
    if short.limit in ("memory", "device_memory"):
        yield from _gentler(question)
    if short.limit == "time_budget":
        yield from _more_cores(question)
    yield from _smaller(question)
    yield from _fewer_images(question)
    if short.limit == "memory":
        yield from _roomier(question, good_limit(int(short.needed)))


def _other_ways(question: Question) -> Iterator[tuple[str, Question]]:
    """Yield the other strategies: they give the same numbers."""
    if len(question.measured.layers) > 1:
        for name in get_args(Strategy):
            if name != question.strategy and name not in question.impossible:
                yield f"strategy={name!r}", replace(question, strategy=name)


def _raised(question: Question) -> Iterator[tuple[str, Question]]:
    """Raise every limit that is in the way, each as little as helps."""
    changed, texts = question, []
    while isinstance(short := solve(changed), Shortfall):
        changed, text = lifted(changed, short)
        texts.append(text)
    yield " and ".join(texts), changed


def lifted(question: Question, short: Shortfall) -> tuple[Question, str]:
    """Return the question with one limit raised as little as helps, and that in words."""
    match short.limit:
        case "memory":
            return _with_memory(question, good_limit(int(short.needed)))
        case "device_memory":
            return _with_device(question, needed_of_device(int(short.needed)))
        case "disk_budget":
            needed = int(short.needed)
            text = f"disk_budget={needed} ({told_bytes(needed)})"
            return replace(question, disk_budget=needed), text
        case "max_files":
            files = n_files(question, usual_block(question))
            return replace(question, max_files=files), f"max_files={files}"
        case _:
            seconds = math.ceil(short.needed)
            text = f"time_budget={seconds} ({told_seconds(seconds)})"
            return replace(question, time_budget=seconds), text


def _with_device(question: Question, share: int) -> tuple[Question, str]:
    """Give every worker so much of a GPU."""
    count = 1 if question.device is None else question.device.count
    sharing = math.ceil((question.n_workers or 1) / count)
    device = Device(count=count, memory=share * sharing)
    text = f"a GPU with {told_bytes(device.memory)} free"
    return replace(question, device=device), text


def _with_memory(question: Question, limit: int) -> tuple[Question, str]:
    """Give every worker so much memory, and the machine enough for all of them."""
    workers = question.n_workers or 1
    limit, told = rounded_up(limit)
    memory = max(question.memory, limit * workers)
    text = f"memory_limit={told!r}"
    if memory > question.memory:
        text += f" on machines with {told_bytes(memory)}"
    return replace(question, memory_limit=limit, memory=memory), text


def _gentler(question: Question) -> Iterator[tuple[str, Question]]:
    """Yield what costs time alone."""
    workers = question.n_workers or 1
    for fewer in sorted({workers // 2, 1} - {0, workers}, reverse=True):
        changed = replace(question, n_workers=fewer, memory_limit=None)
        limit = told_bytes(changed.allowed_mem(fewer))
        yield f"n_workers={fewer} with memory_limit of {limit}", changed
    for name in ("batch_size", "threads", "block"):
        given = getattr(question, name) or 1
        yield from _largest(
            (f"{name}={value}", question.with_choice(name, value))
            for value in _halves(given)
        )


def _halves(count: int) -> Iterator[int]:
    """Yield a half, a quarter, … of a number, down to 1."""
    while count > 1:
        count //= 2
        yield count


def _largest(changes: Iterable[tuple[str, Question]]) -> Iterator[tuple[str, Question]]:
    """Yield the first change that fits, if one does."""
    return islice((c for c in changes if isinstance(solve(c[1]), Solution)), 1)


def _roomier(question: Question, least: int) -> Iterator[tuple[str, Question]]:
    """Yield more memory than is needed: faster, in most cases."""
    for times in (2, 4):
        changed, text = _with_memory(question, times * least)
        yield text, changed


def _more_cores(question: Question) -> Iterator[tuple[str, Question]]:
    for times in (2, 4, 8, 16):
        yield _times_cores(question, times)


def _times_cores(question: Question, times: int) -> tuple[str, Question]:
    changed = replace(
        question,
        cores=question.cores * times,
        memory=question.memory * times,
        n_workers=question.n_workers and question.n_workers * times,
    )
    return f"{times} times the machines ({changed.cores} cores)", changed


def _smaller(question: Question) -> Iterator[tuple[str, Question]]:
    """Yield what writes less of every image."""
    layers = question.measured.layers
    if any(each.itemsize == FLOAT32 for each in layers):
        yield "dtype='float16'", _each_layer(question, _half)
    if any(each.entries > each.channels for each in layers):
        yield "pool='avg'", _each_layer(question, _averaged)
        text = "pool='avg' with dtype='float16'"
        yield text, _each_layer(_each_layer(question, _averaged), _half)
    for left in sorted({len(layers) * 3 // 4, len(layers) // 2, 1}, reverse=True):
        if 0 < left < len(layers):
            names = ", ".join(repr(each.name) for each in _smallest(layers, left)[:3])
            text = f"{left} of the {len(layers)} layers ({names}{', …' * (left > 3)})"
            yield text, _only(question, _smallest(layers, left))
    for k in (1024, 256, 64, 16):
        if any(each.entries > k for each in layers):
            yield f"pool='random_projection({k})'", _each_layer(question, _projected(k))
    if len(layers) > 1:
        least = _smallest(layers, 1)
        text = f"layer {least[0].name!r} alone with dtype='float16'"
        yield text, _each_layer(_only(question, least), _half)


def _fewer_images(question: Question) -> Iterator[tuple[str, Question]]:
    """Yield the largest half, quarter, … of the images that fits."""
    return _largest(
        (f"the first {count:,} images", replace(question, n_images=count))
        for count in _halves(question.n_images)
    )


def _half(layer: LayerSize) -> LayerSize:
    return replace(layer, itemsize=min(layer.itemsize, 2))


def _averaged(layer: LayerSize) -> LayerSize:
    return (
        replace(layer, shape=(layer.channels,))
        if layer.entries > layer.channels
        else layer
    )


def _projected(k: int) -> Callable[[LayerSize], LayerSize]:
    return lambda layer: replace(layer, shape=(k,)) if layer.entries > k else layer


def _smallest(layers: tuple[LayerSize, ...], count: int) -> tuple[LayerSize, ...]:
    kept = sorted(layers, key=lambda each: (each.row_bytes, each.flops))[:count]
    return tuple(each for each in layers if each in kept)[:count]


def _each_layer(
    question: Question, change: Callable[[LayerSize], LayerSize]
) -> Question:
    return _with_layers(question, lambda layers: tuple(map(change, layers)))


def _only(question: Question, kept: tuple[LayerSize, ...]) -> Question:
    return _with_layers(
        question, lambda layers: tuple(each for each in layers if each in kept)
    )


def _with_layers(
    question: Question,
    change: Callable[[tuple[LayerSize, ...]], tuple[LayerSize, ...]],
) -> Question:
    measured = question.measured
    networks = [replace(each, layers=change(each.layers)) for each in measured.networks]
    kept = tuple(each for each in networks if each.layers)
    return replace(question, measured=replace(measured, networks=kept))


def _other_choices(question: Question) -> Iterator[tuple[str, Question]]:
    """Yield what would be chosen in place of each choice that was given."""
    for name in CHOICES:
        given = getattr(question, name)
        found = None if given is None else solve(question.with_choice(name, None))
        if isinstance(found, Solution):
            value = found.layout.chosen(name)
            yield f"{name}={value} (now {given})", question.with_choice(name, value)


def relaxed(question: Question, found: Solution) -> Iterator[tuple[str, Question]]:
    """Yield what may make a run faster."""
    limit, told = rounded_up(2 * found.allowed_mem)
    yield (
        f"memory_limit={told!r}",
        replace(question, memory_limit=limit, memory=2 * question.memory),
    )
    yield _times_cores(question, 2)
    yield from _other_choices(question)
    twice = 2 * question.decode_threads
    yield f"decode_threads={twice}", replace(question, decode_threads=twice)
    layers = question.measured.layers
    deepest = max(layers, key=lambda each: each.flops)
    others = tuple(each for each in layers if each != deepest)
    if others:
        yield f"without layer {deepest.name!r}", _only(question, others)
