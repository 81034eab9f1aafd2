"""What makes two networks the same: architecture, weights and transform, each as text."""

from __future__ import annotations

import hashlib
import io
import json
import types
from collections.abc import Mapping

import cloudpickle
from torch import fx, nn

from embedkit.networks.measure import node_type
from embedkit.networks.taps import Traced
from embedkit.networks.weights import tensor_parts

_PLAIN = (bool, int, float, str, tuple, type(None))


def architecture_digest(traced: Traced) -> str:
    """Return the SHA-256 of what a network does, as hexadecimal digits.

    It covers every node of the graph in order (name, type and arguments), the settings of
    every module that is called, and constants that are part of the code. It does not
    cover trained values, which `weights_digest` does.
    """
    module, digest = traced.module, hashlib.sha256()
    numbers = {node: f"%{number}" for number, node in enumerate(module.graph.nodes)}
    state = module.state_dict(keep_vars=True)
    for node in module.graph.nodes:
        arguments = fx.node.map_arg((node.args, node.kwargs), numbers.__getitem__)
        name = traced.names.get(node.name, node.op)
        line = f"{name} {node_type(node, module)} {arguments}\n"
        digest.update(line.encode())
        if node.op == "call_module":
            settings = _settings(module.get_submodule(str(node.target)))
            digest.update(settings.encode())
        if node.op == "get_attr" and str(node.target).startswith("_tensor_constant"):
            for part in tensor_parts(state[str(node.target)]):
                digest.update(part)
    return digest.hexdigest()


def _settings(module: nn.Module) -> str:
    """Return a leaf module's own description, or its plain attributes if it has none."""
    return "".join(
        f"{path} {type(part).__name__} {part.extra_repr() or _attributes(part)}\n"
        for path, part in module.named_modules()
    )


def _attributes(module: nn.Module) -> str:
    plain = {
        name: value
        for name, value in sorted(vars(module).items())
        if isinstance(value, _PLAIN) and not name.startswith("_") and name != "training"
    }
    return repr(plain)


class _Describer(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
    """Pickle for hashing: functions without the file and lines they were written in.

    A notebook gives every run of a cell another file name, and the function is the same.
    """

    def reducer_override(self, obj: object) -> object:
        if isinstance(obj, types.CodeType):
            kept = (obj.co_code, obj.co_consts, obj.co_names, obj.co_varnames)
            return tuple, ((*kept, obj.co_freevars, obj.co_flags),)
        return super().reducer_override(obj)


def describe_transform(transform: object) -> str:
    """Return a text that tells transforms apart and stays the same between processes.

    Parameters
    ----------
    transform : callable
        What prepares images.

    Returns
    -------
    str
        Its ``repr``; or, where that holds an address, the SHA-256 of its pickled code
        and data. An object of a class that was defined in a notebook has a new identity
        each time: give such a class a ``__repr__``.
    """
    text = repr(transform)
    if "0x" not in text:
        return text
    buffer = io.BytesIO()
    _Describer(buffer, protocol=5).dump(transform)
    return f"sha256:{hashlib.sha256(buffer.getvalue()).hexdigest()}"


def combine(parts: Mapping[str, str]) -> str:
    """Return the SHA-256 of named parts, as hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
