"""Layers one after the other through raw maps: which maps it takes, and when.

A layer can be computed from the map of another where everything that it depends on passes
through that map: behind a residual block, but not from within one. So the map that is
stored after a layer is its own where the next layer follows from it, and otherwise that
of the last place before it from which the next layer follows; where there is none, the
next layer is computed from the images.

References
----------
Nakandala, S. and Kumar, A. (2020). Vista: Optimized System for Declarative Feature
Transfer from Deep CNNs at Scale. SIGMOD, section 4.2.1 (staged plans of chains; graphs
with branches are embedkit's own extension).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One layer, or one raw map, over all images.

    Parameters
    ----------
    tap : str
        What the network calls it.
    is_map : bool
        Whether it is a raw map that was not asked for.
    start : str, optional
        The map or whole stored layer that it is computed from; None for the images.
    maps : frozenset of str
        The raw maps that have to lie there meanwhile, what it writes included; no more
        than two.
    """

    tap: str
    is_map: bool
    start: str | None
    maps: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Taps:
    """The taps of a network, and which follow from which.

    Parameters
    ----------
    order : sequence of str
        Every tap, in execution order.
    follows : callable
        ``follows(start, tap)`` tells whether a tap can be computed from the raw value
        of another, or of itself.
    """

    order: Sequence[str]
    follows: Callable[[str, str], bool]

    def deepest(
        self, tap: str, among: Collection[str], *, until: str | None = None
    ) -> str | None:
        """Return the last of some taps, no later than `until`, that a tap follows from."""
        last = self.order.index(tap if until is None else until)
        places = (each for each in reversed(self.order[: last + 1]) if each in among)
        return next((each for each in places if self.follows(each, tap)), None)


def chain(
    network: Taps,
    layers: Sequence[str],
    *,
    whole: Collection[str] = (),
    maps: Collection[str] = (),
) -> list[Step]:
    """Return how to compute layers one after the other.

    Parameters
    ----------
    network : Network
        The network.
    layers : sequence of str
        The taps to compute, in execution order.
    whole : collection of str
        Taps whose stored value is the raw one: of `layers`, those that can be gone on
        from as they will be stored; others are stored already.
    maps : collection of str
        Taps whose raw maps an earlier run has left.

    Returns
    -------
    list of Step
        In order. Each layer is in it once, behind the maps that it needs.
    """
    stored = set(whole) - set(layers)
    there = stored | (set(maps) - set(whole))
    start = network.deepest(layers[0], there) if layers else None
    steps: list[Step] = []
    for number, tap in enumerate(layers):
        after = layers[number + 1] if number + 1 < len(layers) else None
        following = None if after is None else _between(network, tap, after, stored)
        if following == tap and tap not in whole:
            if tap not in there:
                steps.append(Step(tap=tap, is_map=True, start=start))
                there.add(tap)
            start = tap
        steps.append(Step(tap=tap, is_map=False, start=start))
        if tap in whole:
            stored.add(tap)
            there.add(tap)
        if following is not None and following not in there:
            base = network.deepest(following, there)
            steps.append(Step(tap=following, is_map=True, start=base))
            there.add(following)
        there &= stored if following is None else stored | {following}
        start = following
    return list(_with_maps(steps, stored))[::-1]


def _between(
    network: Taps, tap: str, after: str, stored: Collection[str]
) -> str | None:
    """Return where the layer after a tap is computed from."""
    beyond = network.deepest(after, stored)
    until = network.deepest(after, frozenset(network.order), until=tap)
    places = [each for each in (beyond, until) if each is not None]
    return max(places, key=network.order.index, default=None)


def _with_maps(steps: Sequence[Step], stored: Collection[str]) -> Iterator[Step]:
    """Yield steps, the last one first, with the maps that have to be there meanwhile."""
    later: set[str] = set()
    for step in reversed(steps):
        own = {step.tap} if step.is_map else set()
        given = set() if step.start is None else {step.start} - set(stored)
        yield replace(step, maps=frozenset(later | own | given))
        later = (later - own) | given
