"""What the nodes of a graph do to memory: which values share some, and who writes to it.

A graph says which value is computed from which. It does not say that a rectifier works in
place, or that a slice is a window on the whole. So the graph is run once, and every node
is watched: whose memory its value lies in, and what memory it writes to.

References
----------
J. K. Reed et al., "torch.fx: Practical Program Capture and Transformation for Deep
Learning in Python", MLSys 2022, section 5.2 (its graphs assume that nothing is mutated).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

_PLAIN = (
    bool,
    int,
    float,
    complex,
    str,
    type(None),
    type(...),
    range,
    torch.device,
    torch.dtype,
    torch.layout,
    torch.memory_format,
)

_MAYBE_VIEWS = {"contiguous", "flatten", "ravel", "reshape", "reshape_as", "to"}
"""Whether these copy depends on strides, and so on the number of images."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Effects:
    """What was seen when a graph was run.

    Attributes
    ----------
    from_input : frozenset of Node
        Those whose value is computed from an input, and the inputs.
    storages : mapping of Node to frozenset of int
        Numbers of the pieces of memory that a node's value may lie in.
    writes : mapping of Node to frozenset of int
        Numbers of the pieces that a node writes to, other than fresh ones. Nodes that
        write to none are left out.
    opaque : frozenset of Node
        Those whose value may hold tensors where nobody can see them.
    """

    from_input: frozenset[fx.Node]
    storages: Mapping[fx.Node, frozenset[int]]
    writes: Mapping[fx.Node, frozenset[int]]
    opaque: frozenset[fx.Node]


def node_type(node: fx.Node, module: nn.Module) -> str:
    """Return the class of a module, or the name of a function, method or attribute."""
    if node.op == "call_module":
        return type(module.get_submodule(str(node.target))).__name__
    if isinstance(node.target, str):
        return node.target
    return str(getattr(node.target, "__name__", type(node.target).__name__))


def _leaves(value: Any) -> list[Any]:
    """Return what tuples, lists, dicts and slices hold."""
    found: list[Any] = []
    fx.node.map_aggregate(value, found.append)
    return found


def _is_opaque(leaf: object) -> bool:
    if isinstance(leaf, Tensor):
        return leaf.layout != torch.strided
    return not isinstance(leaf, _PLAIN)


def _addresses(value: Any) -> set[int]:
    """Return where the memory begins that a value's tensors lie in."""
    tensors = [
        leaf
        for leaf in _leaves(value)
        if isinstance(leaf, Tensor) and not _is_opaque(leaf)
    ]
    storages = [tensor.untyped_storage() for tensor in tensors]
    return {storage.data_ptr() for storage in storages if storage.nbytes()}


class _Writes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch's has none
    """Notes the memory that operators say they write to, also those inside modules."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.addresses: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        named = kwargs or {}
        for place, argument in enumerate(func._schema.arguments):
            if argument.is_write:
                given = args[place] if place < len(args) else named.get(argument.name)
                self.addresses |= _addresses(given)
        return func(*args, **named)


class EffectMeter(fx.Interpreter):
    """Run a graph node by node and note what each does to memory.

    Parameters
    ----------
    module : GraphModule
        What to run.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.from_input: set[fx.Node] = set()
        self._storages: dict[fx.Node, frozenset[int]] = {}
        self._writes: dict[fx.Node, frozenset[int]] = {}
        self._opaque: set[fx.Node] = set()
        self._numbers: dict[int, int] = {}
        self._fresh = itertools.count()
        self._lasting: set[int] = set()

    @property
    def effects(self) -> Effects:
        """What was seen so far."""
        return Effects(
            from_input=frozenset(self.from_input),
            storages=self._storages,
            writes=self._writes,
            opaque=frozenset(self._opaque),
        )

    def run_node(self, n: fx.Node) -> Any:
        """Run a node and note what it did."""
        with _Writes() as written:
            value = super().run_node(n)
        if n.op == "placeholder" or self.from_input.intersection(n.all_input_nodes):
            self.from_input.add(n)
        if any(map(_is_opaque, _leaves(value))):
            self._opaque.add(n)
        self._note(n, _addresses(value), written.addresses)
        return value

    def _note(self, node: fx.Node, lies: set[int], written: set[int]) -> None:
        # Memory is given back and used again at the same address: only what some value
        # still holds keeps its number.
        alive = self._lasting.union(*map(_addresses, self.env.values()))
        known = {at: self._numbers[at] for at in alive if at in self._numbers}
        writes = frozenset(known[at] for at in written if at in known)
        for at in lies - known.keys():
            known[at] = next(self._fresh)
        storages = frozenset(known[at] for at in lies)
        if node_type(node, self.module).lower() in _MAYBE_VIEWS:
            inputs = (self._storages[each] for each in node.all_input_nodes)
            storages = storages.union(*inputs)
        if node.op == "get_attr":
            self._lasting |= lies  # the module holds it, whoever else lets go
        self._numbers, self._storages[node] = known, storages
        if writes:
            self._writes[node] = writes
