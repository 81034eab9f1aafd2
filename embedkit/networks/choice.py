"""What a user asks of a network's layers: which of them, and how each is pooled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, TypeAlias

import pandas as pd

from embedkit.errors import InputError, NetworkError, did_you_mean
from embedkit.networks.layers import Layer, layer_table, module_aliases, stages
from embedkit.networks.pooling import pooled_shape
from embedkit.networks.pools import Pool, check_pool

LayerChoice: TypeAlias = "str | Sequence[str] | Callable[[pd.Series[Any]], bool]"
"""Names, paths, patterns and presets, or what says yes or no to a row of the table."""

PRESETS = ("all", "last", "stages", "blocks")

_NONE: Mapping[str, str] = MappingProxyType({})


def resolve_layers(
    asked: LayerChoice,
    layers: Sequence[Layer],
    *,
    network: str,
    blocks: Sequence[str] = (),
    others: Mapping[str, str] = _NONE,
) -> tuple[str, ...]:
    """Return the canonical names for what a user asked.

    Parameters
    ----------
    asked : str, sequence of str or callable
        Each one a preset (``"all"``, ``"last"``, ``"stages"``, ``"blocks"``), a tap, the
        path of a module (its last tap) or a pattern with ``*``, ``?`` or ``[``, which is
        compared with whole tap names. A preset comes before a module of the same name.
        A callable is given each row of the table of layers and says yes or no.
    layers : sequence of Layer
        What there is, in execution order.
    network : str
        Its name, for messages.
    blocks : sequence of str
        The layers that ``"blocks"`` stands for.
    others : mapping of str to str
        What gives no layer, and what it gives instead, for messages.

    Returns
    -------
    tuple of str
        In execution order, without repetition.

    Raises
    ------
    NetworkError
        When nothing was asked, or something that is not there.
    """
    if callable(asked):
        return _by_predicate(asked, layers, network)
    wanted = [asked] if isinstance(asked, str) else list(asked)
    if not wanted:
        message = f"no layer was asked of {network}: give a name, a list or 'stages'"
        raise NetworkError(message)
    chosen = {
        name
        for one in wanted
        for name in _resolve_one(one, layers, network, blocks, others)
    }
    return tuple(layer.name for layer in layers if layer.name in chosen)


def choose_layers(
    asked: LayerChoice,
    layers: Sequence[Layer],
    *,
    network: str,
    blocks: Sequence[str] = (),
    others: Mapping[str, str] = _NONE,
) -> list[Layer]:
    """Return the layers that a user asked for, in execution order.

    It is as `resolve_layers` has it, but a sequence of nothing but canonical names is
    taken as it is, even where one of them is also the name of a preset: what was resolved
    once always means the same layers.

    Raises
    ------
    NetworkError
        When nothing was asked, or something that is not there.
    """
    names = [] if isinstance(asked, str) or callable(asked) else list(asked)
    exact = names and {layer.name for layer in layers}.issuperset(names)
    wanted = frozenset(
        names
        if exact
        else resolve_layers(
            asked, layers, network=network, blocks=blocks, others=others
        )
    )
    return [layer for layer in layers if layer.name in wanted]


def resolve_pools(
    pool: Pool | Mapping[str, Pool],
    chosen: Sequence[Layer],
    *,
    layers: Sequence[Layer],
    network: str,
    blocks: Sequence[str] = (),
    others: Mapping[str, str] = _NONE,
) -> dict[str, Pool]:
    """Return how each of some layers is pooled.

    Parameters
    ----------
    pool : str or mapping of str to str
        One way for all, or a way for each name, path, pattern or preset, which mean the
        layers that they mean to `resolve_layers`; but the name of a layer always means
        that layer. The first key that fits a layer counts.
    chosen : sequence of Layer
        Those to pool.
    layers : sequence of Layer
        All there are, in execution order.
    network : str
        Its name, for messages.
    blocks : sequence of str
        The layers that ``"blocks"`` stands for.
    others : mapping of str to str
        What gives no layer, and what it gives instead, for messages.

    Returns
    -------
    dict of str to str
        From the name of every chosen layer, in their order, to its way of pooling as
        `check_pool` spells it.

    Raises
    ------
    InputError
        When there is no such pool, when no key fits some layer, or when a layer cannot
        be pooled in its way.
    NetworkError
        When a key is not in the network at all.
    """
    given = pool if isinstance(pool, Mapping) else {"*": pool}
    names = {layer.name for layer in layers}
    pools: dict[str, Pool] = {}
    for key, one in given.items():
        way = check_pool(one)
        fits = (
            [key]
            if key in names
            else _resolve_one(key, layers, network, blocks, others)
        )
        for name in fits:
            pools.setdefault(name, way)
    for layer in chosen:
        if layer.name not in pools:
            keys = ", ".join(map(repr, given)) or "none"
            message = (
                f"no pool was given for layer {layer.name!r} of {network} (found: "
                f"{keys}): add {layer.name!r}, or '*' as the last key for all others"
            )
            raise InputError(message)
        way = pools[layer.name]
        pooled_shape(layer.shape, axes=layer.axes, pool=way, layer=layer.name)
    return {layer.name: pools[layer.name] for layer in chosen}


def _by_predicate(
    asked: Callable[[pd.Series[Any]], bool], layers: Sequence[Layer], network: str
) -> tuple[str, ...]:
    table = layer_table(layers)
    chosen = tuple(name for name in table.index if asked(table.loc[name]))
    if not chosen:
        message = (
            f"the function given as layers chose none of the {len(layers)} layers of "
            f"{network}: it is given each row of the table of layers (columns "
            f"{', '.join(table.columns)}; name: the layer) and returns True to take it"
        )
        raise NetworkError(message)
    return chosen


def _resolve_one(
    asked: str,
    layers: Sequence[Layer],
    network: str,
    blocks: Sequence[str],
    others: Mapping[str, str],
) -> Iterable[str]:
    names = [layer.name for layer in layers]
    if asked in PRESETS:
        return _preset(asked, layers, network, blocks)
    aliases = module_aliases(names)
    if asked in aliases:
        return [aliases[asked]]
    matched = [name for name in names if fnmatchcase(name, asked)]
    if matched:
        return matched
    nearest = did_you_mean(asked, [*aliases, *PRESETS])
    if asked in others:
        message = (
            f"{asked!r} of network {network} is no layer: it gives {others[asked]}, and "
            "a layer is a floating tensor that depends on the pictures, one row for "
            f"each. {nearest}"
        )
        raise NetworkError(message)
    message = f"network {network} has no layer {asked!r}. {nearest}"
    raise NetworkError(message)


def _preset(
    asked: str, layers: Sequence[Layer], network: str, blocks: Sequence[str]
) -> Sequence[str]:
    names = [layer.name for layer in layers]
    if asked == "blocks" and not blocks:
        message = (
            f"network {network} has no repeated building blocks: ask for 'stages', or "
            "name its layers"
        )
        raise NetworkError(message)
    return {
        "all": names,
        "last": names[-1:],
        "stages": stages(layers),
        "blocks": blocks,
    }[asked]
