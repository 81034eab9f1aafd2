"""Start in the middle of a network: what can be computed from one layer's value alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import fx

from embedkit.errors import InputError, NetworkError, did_you_mean
from embedkit.networks.effects import Effects
from embedkit.networks.layers import Layer
from embedkit.networks.layout import Layout
from embedkit.networks.measure import Measured


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Start:
    """A place in a graph to start from.

    Attributes
    ----------
    layer : Layer
        The layer whose value is given.
    layout : Layout
        How the network had that value in memory.
    node : Node
        The layer's node.
    nodes : frozenset of Node
        What has to run to compute the layers that were asked for.
    """

    layer: Layer
    layout: Layout
    node: fx.Node
    nodes: frozenset[fx.Node]


def find_start(
    seen: Measured, start: str, layers: Iterable[Layer], *, network: str
) -> Start | None:
    """Return how to compute layers from the unpooled float32 value of another.

    Parameters
    ----------
    seen : Measured
        The network.
    start : str
        The canonical name of a layer.
    layers : iterable of Layer
        What to compute. That layer itself may be among them: it is pooled as it is.
    network : str
        Its name, for messages.

    Returns
    -------
    Start or None
        None where that value is not enough, or where float32 does not hold it.

    Raises
    ------
    NetworkError
        When there is no layer `start`.
    """
    names = [layer.name for layer in seen.layers]
    if start not in names:
        nearest = did_you_mean(start, names)
        raise NetworkError(f"network {network} has no layer {start!r}. {nearest}")
    if start not in seen.nodes:  # the network has no graph
        return None
    node, layout = seen.nodes[start], seen.layouts[start]
    if not layout.fits_float32:
        return None
    behind = [seen.nodes[one.name] for one in layers if one.name != start]
    nodes = nodes_to_run(node, behind, seen.effects)
    if nodes is None:
        return None
    layer = next(layer for layer in seen.layers if layer.name == start)
    return Start(layer=layer, layout=layout, node=node, nodes=nodes)


def demand_start(
    seen: Measured, start: str, layers: Sequence[Layer], *, network: str
) -> Start:
    """Return what `find_start` returns, where it is not None.

    Raises
    ------
    NetworkError
        When there is no layer `start`.
    InputError
        When some layer cannot be computed from it.
    """
    found = find_start(seen, start, layers, network=network)
    if found is not None:
        return found
    beyond = next(
        layer.name
        for layer in layers
        if find_start(seen, start, [layer], network=network) is None
    )
    message = (
        f"layer {beyond!r} of {network} cannot be computed from the float32 value of "
        f"layer {start!r} alone: start from a layer that everything before {beyond!r} "
        "passes through, or leave start out"
    )
    raise InputError(message)


def nodes_to_run(
    start: fx.Node, taps: Iterable[fx.Node], effects: Effects
) -> frozenset[fx.Node] | None:
    """Return what has to run to compute taps from the value of another node.

    Going back from the taps, a node that is needed needs its arguments, and every node
    that wrote before it to the memory of its arguments. Both ways end at `start`, whose
    value is given, with all that was written to it until then.

    Parameters
    ----------
    start, taps : Node
        Of one graph.
    effects : Effects
        What the nodes of that graph do to memory.

    Returns
    -------
    frozenset of Node or None
        None where that value is not enough: something else that depends on the input
        is needed, or `start` shares memory with something that is needed beside it.
    """
    order = {node: number for number, node in enumerate(start.graph.nodes)}
    behind = _behind(start)
    needed: set[fx.Node] = set()
    pending = list(taps)
    while pending:
        node = pending.pop()
        if node not in needed:
            early = order[node] <= order[start] and node in effects.from_input
            if early or node.op == "placeholder" or node in effects.opaque:
                return None
            needed.add(node)
            pending += [each for each in node.all_input_nodes if each is not start]
            pending += _writers(node, start, behind, order, effects)
    own = effects.storages[start]
    beside = needed - behind
    if any(own & effects.storages[node] for node in beside):
        return None
    return frozenset(needed)


def _behind(start: fx.Node) -> set[fx.Node]:
    """Return every node whose value is computed from that of `start`."""
    found: set[fx.Node] = set()
    pending = list(start.users)
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            pending += node.users
    return found


def _writers(
    node: fx.Node,
    start: fx.Node,
    behind: set[fx.Node],
    order: dict[fx.Node, int],
    effects: Effects,
) -> Iterator[fx.Node]:
    """Yield those that wrote, before a node reads, to memory that it reads."""
    for read in node.all_input_nodes:
        given = read is start or read in behind
        after = order[start] if given else -1
        for writer, written in effects.writes.items():
            seen = after < order[writer] < order[node]
            if seen and written & effects.storages[read]:
                yield writer
