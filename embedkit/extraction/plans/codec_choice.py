"""The codecs that a plan has chosen, for the layers of a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from embedkit.extraction.asked import Asked
from embedkit.extraction.measure.layer_sizes import prefixes
from embedkit.planning.codecs import Codec
from embedkit.planning.plan import Plan


def planned_codecs(plan: Plan, *calls: Sequence[Asked]) -> dict[str, dict[str, Codec]]:
    """Return how a plan has the layers of new passes compressed.

    Parameters
    ----------
    plan : Plan
        The plan.
    *calls : sequence of Asked
        What is asked of each network: everything, or what is still to do. The plan was
        made for one of them, and calls its layers by that one.

    Returns
    -------
    dict of str to dict of str to str
        By the networks' own names, and by tap.
    """
    planned = {layer.name: layer.codec for layer in plan.layers}
    named = [_by_name(looks) for looks in calls]
    names = next((each for each in named if each.keys() == planned.keys()), {})
    found: dict[str, dict[str, Codec]] = {}
    for name, (network, tap) in names.items():
        found.setdefault(network, {})[tap] = planned[name]
    return found


def stored_codecs(
    looks: Sequence[Asked], codecs: Mapping[str, Mapping[str, Codec]]
) -> dict[str, Codec]:
    """Return the codecs of layers that a store has begun, by the names of a plan.

    Parameters
    ----------
    looks : sequence of Asked
        What the plan is for.
    codecs : mapping of str to mapping of str to str
        By the networks' own names, and by tap.
    """
    return {
        name: codecs[network][tap]
        for name, (network, tap) in _by_name(looks).items()
        if tap in codecs.get(network, {})
    }


def _by_name(looks: Sequence[Asked]) -> dict[str, tuple[str, str]]:
    """Return network and tap by what a plan calls a layer."""
    return {
        f"{prefix}{tap}": (asked.network.name, tap)
        for asked, prefix in zip(looks, prefixes(looks), strict=True)
        for tap in asked.layers
    }
