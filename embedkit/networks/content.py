"""One digest for anything that can be pickled: by what it is, not by where it lies.

A pickle is nearly such a description. What keeps it from being one is left out here:
file names and lines of code, numbers drawn at random, the order of sets, and which equal
texts happen to be one object in memory.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import types
from collections.abc import Callable
from typing import Any, TypeVar

import cloudpickle
from torch import nn

from embedkit.errors import NetworkError
from embedkit.networks.tracing import FOREIGN_ERRORS, one_line
from embedkit.networks.weights import is_plain, tensor_parts

_ATOMS = (str, bytes, bool, int, float, complex, type(None), type(...))

_DRAWN = re.compile(r"[0-9a-f]{32}")
"""What cloudpickle calls a class that it pickles by value: another name each time."""

_PLACES = {
    "__file__",
    "__firstlineno__",
    "__package__",
    "__path__",
    "__static_attributes__",  # in Python 3.13 its order depends on hashing
    "_cloudpickle_submodules",  # whatever else the process has imported so far
}

_BY_VALUE = (type, types.FunctionType, TypeVar)

_KNOWN = {"_operator", "builtins", "math", "operator", "torch", "torchvision"}
"""Packages whose functions are what their names say."""


def content_digest(value: object) -> str:
    """Return the SHA-256 of a value's code and data, as hexadecimal digits.

    Parameters
    ----------
    value : object
        Classes and functions that can be imported count by their names, those of a
        notebook or script by their code.

    Raises
    ------
    NetworkError
        When it cannot be pickled.
    """
    buffer = io.BytesIO()
    try:
        _Describer(buffer, protocol=5).dump(value)
    except (*FOREIGN_ERRORS, pickle.PicklingError) as error:
        message = (
            f"an object of type {type(value).__name__} cannot be told from others: it "
            f"cannot be pickled ({one_line(error)}): keep open files, locks and "
            "connections out of transforms and of functions that a network calls"
        )
        raise NetworkError(message) from error
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def function_text(function: object) -> str:
    """Return a function's name and, unless a known package has it, its code's digest.

    Parameters
    ----------
    function : callable
        The functions that it wraps count as well, and so do default values and what is
        bound to it. Functions and variables of its module that it uses do not.
    """
    module = str(getattr(function, "__module__", None))
    names = [getattr(function, name, None) for name in ("__qualname__", "__name__")]
    own = names[0] or names[1] or type(function).__qualname__
    if module.partition(".")[0] in _KNOWN:
        return f"{module}.{own}"
    parts: list[object] = []
    inner: object = function
    while inner is not None:
        parts.extend(_function_parts(inner))
        inner = getattr(inner, "__wrapped__", None)
    return f"{module}.{own} {content_digest(parts)}"


def _function_parts(function: object) -> list[object]:
    # Not the function: one that can be imported would be pickled as its name alone.
    if not isinstance(getattr(function, "__code__", None), types.CodeType):
        return []
    fields = ("__code__", "__defaults__", "__kwdefaults__", "__closure__", "__self__")
    return [getattr(function, field, None) for field in fields]


def _plain_text(value: object) -> str | None:
    """Return a text for plain values and sets, which is equal where they are equal."""
    kind = type(value)
    if kind in _ATOMS:
        return f"{kind.__name__} {value!r}"
    if isinstance(value, set | frozenset) and kind in (set, frozenset):
        return f"{kind.__name__} {sorted(map(content_digest, value))}"
    if isinstance(value, tuple) and kind is tuple:
        texts = [_plain_text(each) for each in value]
        return None if None in texts else f"tuple {texts}"
    return None


def _stay(value: object) -> object:
    """Return a part of a reduced object without what differs from run to run."""
    if isinstance(value, dict):
        return {key: each for key, each in value.items() if key not in _PLACES}
    if isinstance(value, tuple):
        return tuple(_stay(each) for each in value)
    drawn = isinstance(value, str) and _DRAWN.fullmatch(value)
    return None if drawn else value


class _Describer(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
    """Pickle for hashing. Nobody can read the result."""

    def persistent_id(self, obj: object) -> str | None:
        # A new text each time: pickles refer back to objects, not to what equals them.
        return _plain_text(obj)

    def reducer_override(self, obj: object) -> object:
        if isinstance(obj, types.CodeType):
            kept = (obj.co_code, obj.co_consts, obj.co_names, obj.co_varnames)
            return tuple, ((*kept, obj.co_freevars, obj.co_flags),)
        if is_plain(obj):
            digest = hashlib.sha256(b"".join(tensor_parts(obj))).hexdigest()
            return str, (digest,)
        if isinstance(obj, nn.Module):
            return _map_state(obj.__reduce_ex__(5), _beyond_bare)
        reduced = super().reducer_override(obj)
        if isinstance(obj, _BY_VALUE) and isinstance(reduced, tuple):
            make, arguments, *rest = _map_state(reduced, _stay)
            return make, _stay(arguments), *rest
        return reduced


def _map_state(reduced: Any, change: Callable[[object], object]) -> Any:
    """Apply `change` to the state in what a reducer returned, if it returned one."""
    if not isinstance(reduced, tuple):
        return reduced
    make, arguments, *rest = reduced
    return make, arguments, *map(change, rest[:1]), *rest[1:]


def _beyond_bare(state: object) -> object:
    """Return what a module holds beside the hooks and flags that any module has.

    Those differ between versions of PyTorch.
    """
    if not isinstance(state, dict):
        return state
    bare = vars(nn.Module())
    return {
        name: value
        for name, value in state.items()
        if name not in bare
        or type(value) is not type(bare[name])
        or value != bare[name]
    }
