"""A run as turns: one pass over all images each, in the order of its strategy.

``fused`` is one turn. ``lazy`` is one for each layer, from the images. ``staged`` is one
for each layer and for each raw map between layers, most of them from a stored map. A turn
is priced like a run of its own, so that all that is known of runs holds for each strategy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from embedkit.planning.chains import Link, in_a_row, map_block
from embedkit.planning.costs import Cost, Layout, Work, cost
from embedkit.planning.device import GRAPHS, DeviceModel
from embedkit.planning.fit import Line, fit_line
from embedkit.planning.measurement import (
    FLOAT32,
    Forward,
    Measurement,
    NetworkMeasurement,
)
from embedkit.planning.memory import MemoryModel, Part
from embedkit.planning.stages import IN_TURN
from embedkit.planning.written import map_files

if TYPE_CHECKING:
    from embedkit.planning.question import Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One pass over all images.

    Parameters
    ----------
    measured : Measurement
        What it needs, as if it were the whole run.
    model : MemoryModel
        The memory of a worker meanwhile.
    device : DeviceModel
        The same of its GPU.
    map_bytes : int
        Bytes of one image of the largest raw map that a network's maps are cut into
        blocks by, where the turn writes a map; else 0.
    """

    measured: Measurement
    model: MemoryModel
    device: DeviceModel
    map_bytes: int = 0

    def on(self, layout: Layout, n_images: int) -> Layout:
        """Return the layout of this turn: that of the run, but for the blocks of maps."""
        if not self.map_bytes:
            return layout
        block = map_block(
            self.map_bytes, n_images=n_images, batch=layout.batch, block=layout.block
        )
        return replace(layout, block=block)

    def projected_mem(self, layout: Layout, n_images: int) -> int:
        """Return the bytes that a worker needs for it."""
        mine = self.on(layout, n_images)
        return self.model.projected_mem(
            batch=mine.batch,
            block=mine.block,
            threads=mine.threads,
            decode_threads=mine.decode_threads,
        )


def turns_of(question: Question) -> tuple[Turn, ...]:
    """Return the turns of a run, one at least.

    Parameters
    ----------
    question : Question
        Of one strategy.
    """
    measured = question.measured
    if question.strategy in ("staged", "lazy"):
        found = [
            _turn(measured, network, link, first=at == 0)
            for network in measured.networks
            for at, link in enumerate(_links(question, network))
        ]
        return tuple(found)
    return (_priced(measured),)


def n_passes(question: Question) -> int:
    """Return how many passes a store has of a run: one a network, or one a layer."""
    measured = question.measured
    fused = question.strategy not in ("staged", "lazy")
    return len(measured.networks) if fused else len(measured.layers)


def parts_of(question: Question, layout: Layout) -> tuple[Part, ...]:
    """Return what takes memory in a worker in the turn that needs the most."""
    n_images = question.n_images
    turns = turns_of(question)
    most = max(turns, key=lambda each: each.projected_mem(layout, n_images))
    mine = most.on(layout, n_images)
    return most.model.parts(
        batch=mine.batch,
        block=mine.block,
        threads=mine.threads,
        decode_threads=mine.decode_threads,
    )


def device_parts_of(question: Question, layout: Layout) -> tuple[Part, ...]:
    """Return what takes memory of a GPU in the turn that needs the most, if any does."""
    models = [each.device for each in turns_of(question)]
    most = max(models, key=lambda each: each.projected(layout.batch))
    return most.parts(layout.batch) if most.context else ()


def scratch_bytes(question: Question) -> int:
    """Return the bytes of raw maps of one image that lie on disk at a time, at most.

    The last maps of a network may still be there while the next network is computed.
    """
    return sum(max(map(_lying, links)) for _, links in _chains(question))


def scratch_files(question: Question, block: int) -> int:
    """Return the most files of raw maps that lie there at a time, with such blocks."""
    found = 0
    for network, links in _chains(question):
        n_images = question.n_images
        mine = map_block(_largest(network), n_images=n_images, batch=1, block=block)
        maps = max(len(each.maps) for each in links)
        found += maps * map_files(n_images=n_images, block=mine)
    return found


def cost_of_turns(
    turns: Sequence[Turn],
    layout: Layout,
    question: Question,
    *,
    works: dict[tuple[int, int], Work],
) -> Cost:
    """Return what turns take on a layout, one after the other.

    Parameters
    ----------
    turns : sequence of Turn
        Of `turns_of`.
    layout : Layout
        Of the run.
    question : Question
        Says how many images and cores there are.
    works : dict
        Work of an image by turn and batch, as far as it is known: what is found is added.

    Returns
    -------
    Cost
        Seconds and stages added up, those of turns that write maps as one stage of their
        own, ``"maps"``: records of a finished store do not tell of them. A faster run has
        to begin with what the longest turn waits for.
    """
    found = []
    for at, turn in enumerate(turns):
        key = (at, layout.batch)
        if key not in works:
            works[key] = Work.of(turn.measured, batch=layout.batch)
        found.append(_cost(turn, layout, question, works[key]))
    if len(turns) == 1:
        return found[0]
    stages: dict[str, float] = {}
    for turn, each in zip(turns, found, strict=True):
        for name, seconds in each.stages.items():
            stage = "maps" if turn.map_bytes else name
            if stage == name or name in IN_TURN:
                stages[stage] = stages.get(stage, 0.0) + seconds
    longest = max(found, key=lambda each: each.seconds)
    return Cost(
        seconds=sum(each.seconds for each in found),
        stages=stages,
        waits_for=longest.waits_for,
    )


def _cost(turn: Turn, layout: Layout, question: Question, work: Work) -> Cost:
    return cost(
        turn.measured,
        turn.on(layout, question.n_images),
        n_images=question.n_images,
        cores=question.cores,
        work=work,
    )


def _lying(link: Link) -> int:
    return sum(each.row_bytes for each in link.maps)


def _chains(
    question: Question,
) -> Iterator[tuple[NetworkMeasurement, Sequence[Link]]]:
    if question.strategy == "staged":
        for each in question.measured.networks:
            yield each, _links(question, each)


def _largest(network: NetworkMeasurement) -> int:
    return max(each.raw_entries for each in network.layers) * FLOAT32


def _links(question: Question, network: NetworkMeasurement) -> Sequence[Link]:
    if question.strategy == "lazy":
        return [Link(layer=layer) for layer in network.layers]
    return (question.chain or in_a_row)(network)


def _turn(
    measured: Measurement, network: NetworkMeasurement, link: Link, *, first: bool
) -> Turn:
    """Return what one link takes; a process loads the network with the first of them."""
    share = 1 / len(measured.networks)
    others = sum(each.loaded for each in measured.networks) - network.loaded
    found = replace(
        measured,
        reserved=measured.reserved + others,  # they stay in the process
        networks=(_linked(network, link, first=first),),
        block_seconds=measured.block_seconds * share,
        held_seconds=measured.held_seconds * share,
    )
    if link.start is not None:
        seconds = link.start.row_bytes / measured.read_rate
        found = replace(found, decode_seconds=seconds, decoding=link.start.row_bytes)
    return _priced(found, map_bytes=_largest(network) if link.is_map else 0)


def _priced(measured: Measurement, *, map_bytes: int = 0) -> Turn:
    return Turn(
        measured=measured,
        model=MemoryModel.of(measured),
        device=DeviceModel.of(measured),
        map_bytes=map_bytes,
    )


def _linked(
    network: NetworkMeasurement, link: Link, *, first: bool
) -> NetworkMeasurement:
    start, layer = link.start, link.layer
    before = 0 if start is None else start.flops
    found = replace(
        network,
        layers=(replace(layer, flops=max(0, layer.flops - before)),),
        load_seconds=network.load_seconds if first else 0.0,
        forward=_passes(network, link),
        alone=(),
        device_loaded=GRAPHS * network.device_loaded,
    )
    if start is None:
        return found
    return replace(found, input_bytes=start.row_bytes, transform_seconds=0.0)


def _passes(network: NetworkMeasurement, link: Link) -> tuple[Forward, ...]:
    """Return what passes take that keep one layer.

    No pass that begins later, or ends earlier, needs more on its way than one through
    the whole network that keeps its last layer alone. What is kept is there twice at the
    end, for the network and for the task; what it begins from is copied for the network.
    Without such a measurement the pass that keeps all layers stands for it.
    """
    rows = 2 * link.layer.buffer_bytes
    start = 0 if link.start is None else link.start.row_bytes
    found = []
    for each in network.forward:
        host, device = each.peak, each.device_peak
        if network.alone:
            more = each.batch * (rows + start)
            alone = [line.at(each.batch) + more for line in _alone(network)]
            if start or link.is_map:  # which no pass that was measured had
                host, device = alone
            else:
                host, device = min(host, alone[0]), min(device, alone[1])
        else:
            more = each.batch * (start + rows * link.is_map)
            host, device = host + more, device + more
        used = each.device_peak > 0
        found.append(replace(each, peak=host, device_peak=device * used))
    return tuple(found)


def _alone(network: NetworkMeasurement) -> tuple[Line, Line]:
    """Return what the last layer alone takes of the memory, and of the GPU."""
    host = fit_line([(each.batch, each.peak) for each in network.alone])
    device = fit_line([(each.batch, each.device_peak) for each in network.alone])
    return host, device
