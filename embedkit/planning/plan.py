"""A plan: what a run will write, need and take, and why it is laid out as it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from embedkit.planning.alternatives import Alternative, choose
from embedkit.planning.correction import UNCORRECTED, Factors
from embedkit.planning.described import described
from embedkit.planning.document import read_document
from embedkit.planning.html import as_html
from embedkit.planning.layer_codecs import compressed, layer_codecs, with_codecs
from embedkit.planning.memory import Part
from embedkit.planning.question import CHOICES, Question
from embedkit.planning.remedies import WORTH, faster
from embedkit.planning.solve import (
    Shortfall,
    Solution,
    comfortable,
    needed_limit,
    solve,
)
from embedkit.planning.strategies import Strategy
from embedkit.planning.turns import device_parts_of, n_passes, parts_of, scratch_bytes
from embedkit.planning.units import told_seconds
from embedkit.planning.written import LayerWritten, count_files, written

FORMAT = 1
WINDOW = 3
"""Blocks in flight per slot: one runs, the others are there when it ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run will write, need and take. Made by `make_plan`.

    Parameters
    ----------
    n_images : int
        Images.
    layers : tuple of LayerWritten
        What is written of every layer: bytes, shapes of shards and chunks, files, and how
        it is compressed.
    batch_size, block : int
        Images per forward pass and per task.
    n_workers, threads : int
        Processes, and tasks at a time in each.
    decode_threads : int
        Threads of a task that read ahead.
    window : int
        Blocks in flight, on all these workers together.
    parts : tuple of Part
        What takes memory in a worker; they add up to `projected_mem`.
    allowed_mem : int
        Bytes that a worker has now.
    needed_mem : int
        Bytes that a worker has to have for this plan.
    seconds : float
        Wall-clock.
    stages : mapping of str to float
        Seconds of all tasks together by stage; see `embedkit.planning.stages`.
    waits_for : str
        The stage that a faster run has to begin with, or ``"cores"`` or ``"python"``;
        see `embedkit.planning.costs.Cost`.
    binding : str
        Which limit keeps the run from being faster: ``"memory"``, ``"max_files"``,
        ``"n_workers"``, ``"threads"``, ``"batch_size"`` or ``"block"`` where one that was
        given does, else what `waits_for` says.
    faster : tuple of str
        What would make it faster, and how much; each was solved.
    files : int
        Of the finished store, the plan among them.
    ways : tuple of str
        What the strategies would take, a line each: why it is this one.
    strategy : {"fused", "staged", "lazy"}
        How several layers are computed: in one pass, each from the raw map before it, or
        each from the images.
    scratch_bytes : int
        Of raw maps that lie in the store's private folder meanwhile, at most; 0 unless it
        is ``"staged"``.
    alternatives : tuple of Alternative
        The same as `ways`, in numbers.
    device_parts : tuple of Part
        What takes memory of a GPU for a worker; empty where no GPU was measured.
    allowed_device : int
        Bytes that a worker may have of its GPU; 0 where that is not known.
    keys : tuple of str
        Of the measurements that it was made of; what its run takes is remembered there.
    factors : Factors
        By what earlier runs have corrected memory and seconds.
    """

    n_images: int
    layers: tuple[LayerWritten, ...]
    batch_size: int
    block: int
    n_workers: int
    threads: int
    decode_threads: int
    window: int
    parts: tuple[Part, ...]
    allowed_mem: int
    needed_mem: int
    seconds: float
    stages: Mapping[str, float]
    waits_for: str
    binding: str
    faster: tuple[str, ...]
    files: int
    ways: tuple[str, ...]
    strategy: Strategy = "fused"
    scratch_bytes: int = 0
    alternatives: tuple[Alternative, ...] = ()
    device_parts: tuple[Part, ...] = ()
    allowed_device: int = 0
    keys: tuple[str, ...] = ()
    factors: Factors = UNCORRECTED

    @property
    def roomy(self) -> bool:
        """Whether a worker has more memory than is just enough."""
        return comfortable(self.projected_mem, self.allowed_mem)

    @property
    def projected_mem(self) -> int:
        """Bytes that a worker will need at its peak."""
        return sum(part.nbytes for part in self.parts)

    @property
    def projected_device_mem(self) -> int:
        """Bytes that a worker will need of its GPU at its peak."""
        return sum(part.nbytes for part in self.device_parts)

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes that are written, uncompressed, by layer."""
        return {layer.name: layer.nbytes for layer in self.layers}

    def describe(self) -> str:
        """Return the plan for people, under thirty lines."""
        return described(self)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: see `embedkit.planning.html.as_html`."""
        return as_html(self)

    def to_json(self) -> str:
        """Return the plan as one JSON object."""
        return json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Return the plan that `to_json` wrote.

        Raises
        ------
        InputError
            When it is no such text, or that of another format.
        """
        return read_document(
            text,
            _plan,
            version=FORMAT,
            what="plan",
            remedies=("give what Plan.to_json wrote", "plan again"),
        )


def _plan(found: dict[str, Any]) -> Plan:
    """Read a plan; what older ones lack is as it was for them."""
    listed: dict[str, Callable[[Any], Any]] = {
        "layers": _layer,
        "parts": _part,
        "device_parts": _part,
        "alternatives": lambda each: Alternative(**each),
        "faster": str,
        "ways": str,
        "keys": str,
    }
    for name, of in listed.items():
        found[name] = tuple(map(of, found.get(name, ())))
    factors = Factors(**found.pop("factors", {}))
    return Plan(**found, factors=factors)


def _part(found: Mapping[str, Any]) -> Part:
    return Part(**found)


def _layer(found: Mapping[str, Any]) -> LayerWritten:
    shapes = {key: tuple(found[key]) for key in ("shard", "chunk")}
    return LayerWritten(**{**found, **shapes})


def make_plan(question: Question) -> Plan:
    """Return the plan of the fastest run within all limits.

    Parameters
    ----------
    question : Question
        What is to be run, and within which limits.

    Raises
    ------
    PlanError
        When nothing fits, naming the limit, the numbers and what would fit.
    """
    codecs = layer_codecs(question)
    question = replace(question, measured=with_codecs(question.measured, codecs))
    chosen = choose(question)
    question, found = chosen.question, chosen.solution
    measured, layout, n_images = question.measured, found.layout, question.n_images
    passes = n_passes(question)
    return Plan(
        n_images=n_images,
        layers=compressed(
            written(measured.layers, n_images=n_images, block=layout.block),
            codecs,
            measured.trials,
        ),
        batch_size=layout.batch,
        block=layout.block,
        n_workers=layout.workers,
        threads=layout.threads,
        decode_threads=layout.decode_threads,
        window=min(WINDOW * layout.slots, -(-n_images // layout.block)),
        parts=parts_of(question, layout),
        allowed_mem=found.allowed_mem,
        needed_mem=needed_limit(found.projected_mem),
        seconds=found.cost.seconds,
        stages=found.cost.stages,
        waits_for=found.cost.waits_for,
        binding=_binding(question, found),
        faster=tuple(
            f"{each.text}: {told_seconds(each.seconds)}"
            for each in faster(question, found)
        ),
        files=passes  # a copy of the plan for each pass
        + count_files(
            measured,
            n_images=n_images,
            block=layout.block,
            columns=question.columns,
            passes=passes,
        ),
        ways=tuple(map(str, chosen.alternatives)),
        strategy=chosen.strategy,
        scratch_bytes=n_images * scratch_bytes(question),
        alternatives=chosen.alternatives,
        device_parts=device_parts_of(question, layout),
        allowed_device=0
        if question.device is None
        else question.device.allowed(layout.workers),
        keys=measured.keys,
        factors=measured.factors,
    )


def _binding(question: Question, found: Solution) -> str:
    """Return the limit without which the run would be fastest, if any matters."""
    much = 2**62  # bytes, or files: more than there is
    lifted = {
        "memory": replace(question, memory=much, memory_limit=None),
        "max_files": replace(question, max_files=much),
        **{
            name: question.with_choice(name, None)
            for name in CHOICES
            if getattr(question, name) is not None
        },
    }
    if question.device is not None:
        lifted["device_memory"] = replace(question, device=None)
    seconds = {name: _seconds(each) for name, each in lifted.items()}
    best = min(seconds, key=lambda name: seconds[name])
    if seconds[best] <= WORTH * found.cost.seconds:
        return best
    return found.cost.waits_for


def _seconds(question: Question) -> float:
    found = solve(question)
    return float("inf") if isinstance(found, Shortfall) else found.cost.seconds
