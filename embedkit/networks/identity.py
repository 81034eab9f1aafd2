"""What makes two networks the same: architecture, weights and transform, each as text."""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Mapping
from types import FunctionType
from typing import Any

from torch import Tensor, fx, nn

from embedkit.networks.content import content_digest, function_text
from embedkit.networks.effects import node_type
from embedkit.networks.tracing import Traced
from embedkit.networks.weights import tensor_parts

_PLAIN = (bool, int, float, str, tuple, type(None))


def architecture_digest(traced: Traced) -> str:
    """Return the SHA-256 of what a network does, as hexadecimal digits.

    It covers every node of the graph in order (name, type and arguments), the settings of
    every module that is called, the code of functions that are neither PyTorch's nor
    Python's own, and tensors that are part of the code. It does not cover parameters,
    which `weights_digest` does.

    Raises
    ------
    NetworkError
        When a function holds what cannot be pickled.
    """
    module, digest = traced.module, hashlib.sha256()
    numbers = {node: f"%{number}" for number, node in enumerate(module.graph.nodes)}
    for node in module.graph.nodes:
        arguments = _stable((node.args, node.kwargs), numbers)
        name = traced.names.get(node.name, node.op)
        line = f"{name} {node_type(node, module)} {arguments}\n"
        digest.update(line.encode())
        if node.op == "call_module":
            settings = _settings(module.get_submodule(str(node.target)))
            digest.update(settings.encode())
        if node.op == "call_function":
            digest.update(function_text(node.target).encode())
        if node.op == "get_attr":
            value = operator.attrgetter(str(node.target))(module)
            _update(digest, value)
    return digest.hexdigest()


def _update(digest: Any, value: object) -> None:
    """Add what a network reads by name and does not train."""
    if isinstance(value, nn.Parameter):
        return
    parts = (
        tensor_parts(value)
        if isinstance(value, Tensor)
        else [content_digest(value).encode()]
    )
    for part in parts:
        digest.update(part)


def _stable(value: Any, numbers: Mapping[fx.Node, str]) -> object:
    """Return arguments with numbers for nodes, and no address for any function."""

    def replaced(one: Any) -> Any:
        if isinstance(one, fx.Node):
            return numbers[one]
        return function_text(one) if callable(one) else one

    return fx.node.map_aggregate(value, replaced)


def _settings(module: nn.Module) -> str:
    """Return a leaf module's own description, or its plain attributes if it has none."""
    return "".join(
        f"{path} {type(part).__name__} {part.extra_repr() or _attributes(part)}\n"
        for path, part in module.named_modules()
    )


def _attributes(module: nn.Module) -> str:
    plain = {
        name: _stable(value, {})
        for name, value in sorted(vars(module).items())
        if (isinstance(value, _PLAIN) or callable(value))
        and not name.startswith("_")
        and name != "training"
    }
    return repr(plain)


def module_digest(network: nn.Module) -> str:
    """Return the SHA-256 of what a network does that has no graph.

    It covers the path, class and settings of every module, which of them are one and the
    same, and the code of all classes that are not PyTorch's own. It covers neither
    parameters nor functions that the code calls by name.

    Raises
    ------
    NetworkError
        When a module holds what cannot be pickled.
    """
    digest, bare = hashlib.sha256(), vars(nn.Module())
    numbers = {part: number for number, part in enumerate(network.modules())}
    for path, part in network.named_modules(remove_duplicate=False):
        digest.update(f"{path} {numbers[part]} {part.extra_repr()}\n".encode())
        own = {
            name: value
            for name, value in sorted(vars(part).items())
            if name not in bare and not isinstance(value, nn.Module)
        }
        digest.update(content_digest(own).encode())
    for kind in dict.fromkeys(type(part) for part in network.modules()):
        digest.update(_class_text(kind).encode())
    return digest.hexdigest()


def _class_text(kind: type) -> str:
    """Return the names and code of the methods of a class and those it inherits from."""
    return "\n".join(
        f"{base.__module__}.{base.__qualname__} {name} {function_text(function)}"
        for base in kind.__mro__
        if base is not object
        for name, value in sorted(vars(base).items())
        if isinstance(function := _unwrapped(value), FunctionType)
    )


def _unwrapped(value: object) -> object:
    """Return the function behind a method of any kind or a property."""
    return getattr(value, "fget", None) or getattr(value, "__func__", value)


def describe_transform(transform: object) -> str:
    """Return a text that tells transforms apart and stays the same between processes.

    Parameters
    ----------
    transform : callable
        What prepares images.

    Returns
    -------
    str
        Its ``repr`` in one line, for people, and the SHA-256 of its code and data, for
        the rest; where the ``repr`` holds an address, the SHA-256 alone.

    Raises
    ------
    NetworkError
        When it cannot be pickled.
    """
    digest = f"sha256:{content_digest(transform)}"
    text = " ".join(repr(transform).split())
    return digest if "0x" in text else f"{text} {digest}"


def combine(parts: Mapping[str, str]) -> str:
    """Return the SHA-256 of named parts, as hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
