"""Layers one after the other: each from the images, or from the raw map before it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from embedkit.extraction.asked import Asked
from embedkit.extraction.jobs import spool_of
from embedkit.extraction.run import Progress, fill
from embedkit.extraction.strategy.chain import Step, chain
from embedkit.extraction.strategy.links import taps_of
from embedkit.extraction.strategy.maps import Maps, block_of_maps
from embedkit.extraction.strategy.selection import (
    Origin,
    Selection,
    SelectionIncomplete,
)
from embedkit.extraction.strategy.together import Together
from embedkit.images.imageset import ImageSet
from embedkit.networks.network import Network
from embedkit.networks.spool import Spooled
from embedkit.networks.taps import BACKEND
from embedkit.planning.grid import BlockGrid
from embedkit.planning.plan import Plan
from embedkit.planning.strategies import Strategy
from embedkit.store.lock import Lock
from embedkit.store.schema import LayerSpec, Pass
from embedkit.store.store import Store


def fill_by_ways(
    store: Store,
    asked: Mapping[str, Asked],
    *,
    lock: Lock,
    plan: Plan | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Store:
    """Compute the blocks that a store lacks of some networks, each network its way.

    Parameters
    ----------
    store : Store
        Locked, and in line with what is asked.
    asked : mapping of str to Asked
        Networks, images and ways, by what the store calls the networks. Layers that were
        begun another way go on that way, unless this one was asked for by name. Those of
        a pass with several are always computed together.
    lock : Lock
        Of the store.
    plan : Plan, optional
        See `embedkit.extraction.run.fill`.
    on_progress : callable, optional
        See `extract`. Raw maps count like layers.

    Returns
    -------
    Store
        The same.

    Raises
    ------
    IncompleteStore
        When blocks had to be given up. All other blocks of all layers are written then.
    """
    networks = {name: each.network for name, each in asked.items()}
    images = next(iter(asked.values())).images
    mine = [one for one in store.schema.passes if one.network in networks]
    todo = [one for one in mine if _lacking(store, one)]
    kinds = {one.key: _strategy(one, asked[one.network]) for one in todo}
    if set(kinds.values()) <= {"fused"}:
        return fill(
            store,
            networks,
            images.source,
            lock=lock,
            plan=plan,
            on_progress=on_progress,
        )
    series = _series(store, networks, images, todo, kinds)
    follow = Together(store, mine, on_progress)
    follow.expect(sum(turn.maps is not None for turns in series for turn in turns))
    context = _Run(store, networks, images, lock, plan, follow)
    for turns in series:
        _take(turns, context)
    # What is left was given up with its series; here it is tried from the images, and told.
    return fill(
        store, networks, images.source, lock=lock, plan=plan, on_progress=on_progress
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """What is computed at a time.

    Parameters
    ----------
    passes : tuple of Pass
        Of the store, or the one of a map.
    origins : mapping of str to Origin or None
        As in a `Selection`.
    maps : Maps, optional
        The maps beside the store, where the turn writes one.
    tap : str
        Which map.
    beside : tuple of (Maps, collection of str), optional
        The maps that stay there meanwhile; all others of that network go.
    blocks : collection of int, optional
        Of a map: those that are needed.
    """

    passes: tuple[Pass, ...]
    origins: Mapping[str, Origin | None]
    maps: Maps | None = None
    tap: str = ""
    beside: tuple[Maps, Collection[str]] | None = None
    blocks: Collection[int] | None = None


@dataclass(frozen=True, slots=True)
class _Run:
    store: Store
    networks: Mapping[str, Network]
    images: ImageSet
    lock: Lock
    plan: Plan | None
    follow: Together
    spooled: dict[str, Spooled] = field(default_factory=dict)


def _take(turns: Sequence[_Turn], run: _Run) -> None:
    """Take turns that build on each other, as far as that goes."""
    for turn in turns:
        run.lock.check()
        if turn.beside is not None:
            maps, taps = turn.beside
            maps.keep(taps)
        held = (
            nullcontext((run.store, run.lock))
            if turn.maps is None
            else turn.maps.opened(turn.tap)
        )
        with held as (target, lock):
            only = Selection(
                keys={one.key for one in turn.passes},
                origins=turn.origins,
                blocks=turn.blocks,
                spool=spool_of(run.store),
                spooled=run.spooled,
            )
            try:
                fill(
                    target,
                    run.networks,
                    run.images.source,
                    lock=lock,
                    plan=run.plan,
                    only=only,
                    on_progress=run.follow.turn(
                        turn.passes, maps=turn.maps is not None
                    ),
                )
            except SelectionIncomplete:
                return


def _series(
    store: Store,
    networks: Mapping[str, Network],
    images: ImageSet,
    todo: Sequence[Pass],
    kinds: Mapping[str, Strategy],
) -> list[list[_Turn]]:
    """Return the turns of a run, those that build on each other together."""
    by_kind: dict[str, list[Pass]] = {"fused": [], "lazy": [], "staged": []}
    for one in todo:
        by_kind[kinds[one.key]].append(one)
    fused = tuple(by_kind["fused"])
    series = [[_Turn(passes=fused, origins={})]] if fused else []
    series += [
        [_Turn(passes=(one,), origins={one.key: None})] for one in by_kind["lazy"]
    ]
    chains: dict[object, list[Pass]] = {}
    for one in by_kind["staged"]:
        alike = (one.network, one.batch_size, one.parts["decode"])
        chains.setdefault(alike, []).append(one)
    for linked in chains.values():
        network = networks[linked[0].network]
        series.append(list(_staged(store, network, images, linked)))
    return series


def _staged(
    store: Store, network: Network, images: ImageSet, passes: Sequence[Pass]
) -> Iterator[_Turn]:
    """Yield the turns that compute layers of one network from map to map."""
    taps = taps_of(network)
    mine = {one.layers[0].tap: one for one in passes}
    layers = sorted(mine, key=taps.order.index)
    size = passes[0].batch_size
    maps = Maps(
        store=store,
        images=images,
        network=network,
        like=passes[0],
        block=block_of_maps(
            network,
            layers,
            n_images=store.schema.n_images,
            batch=size,
            block=passes[0].block,
        ),
    )
    whole = _whole(store, network, passes)
    blocks = _needed(store, passes, maps.block)
    left = [tap for tap in maps.there() if maps.complete(tap, blocks)]
    for step in chain(taps, layers, whole=whole, maps=left):
        origin = _origin(step, whole, maps)
        beside = (maps, step.maps)
        if step.is_map:
            one = maps.one(step.tap)
            yield _Turn(
                passes=(one,),
                origins={one.key: origin},
                maps=maps,
                tap=step.tap,
                beside=beside,
                blocks=blocks,
            )
        else:
            one = mine[step.tap]
            yield _Turn(passes=(one,), origins={one.key: origin}, beside=beside)


def _origin(step: Step, whole: Mapping[str, str], maps: Maps) -> Origin | None:
    if step.start is None:
        return None
    if step.start in whole:
        return Origin(whole[step.start])
    return Origin(step.start, maps.place(step.start))


def _whole(store: Store, network: Network, passes: Sequence[Pass]) -> dict[str, str]:
    """Return the taps whose raw value a store has, or will have, with its names of them.

    Of other passes those count that are complete, and that were computed alike.
    """
    like = passes[0]
    found: dict[str, str] = {}
    for one in store.schema.passes:
        alike = (one.network, one.batch_size, one.backend) == (
            like.network,
            like.batch_size,
            BACKEND,
        )
        if alike and (one in passes or not _lacking(store, one)):
            found |= {s.tap: s.name for s in one.layers if _is_whole(s, network)}
    return found


def _is_whole(spec: LayerSpec, network: Network) -> bool:
    """Whether a stored layer is the layer's value, every bit of it."""
    shape: tuple[int, ...] = network.layers["shape"][spec.tap]
    if spec.dtype != "float32" or spec.shape != shape:
        return False
    vector = len(shape) == 1 and not spec.pool.startswith("random_projection")
    return spec.pool == "none" or vector


def _needed(store: Store, passes: Sequence[Pass], block: int) -> set[int]:
    """Return the blocks of maps from which the rows that passes lack can be computed."""
    rows = (
        store.schema.grid(one).rows(lacking)
        for one in passes
        for lacking in _lacking(store, one)
    )
    return {
        number
        for part in rows
        for number in range(part.start // block, (part.stop - 1) // block + 1)
    }


def _lacking(store: Store, one: Pass) -> set[int]:
    """Return the blocks of a pass that are not written yet."""
    grid: BlockGrid = store.schema.grid(one)
    return set(range(len(grid))) - store.commits(one).keys()


def _strategy(one: Pass, asked: Asked) -> Strategy:
    """Return how a pass is computed: as is asked for, else as it was begun."""
    if len(one.layers) > 1:
        return "fused"
    begun = one.about.get("strategy", "fused")
    strategy = asked.way.strategy if asked.way.asked else begun
    if strategy == "staged" and one.backend == BACKEND and asked.network.traced:
        return "staged"
    return "lazy" if strategy == "lazy" else "fused"
