"""The layers of a network: their table, and what a user may call them. No tensors here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import pandas as pd

from embedkit.errors import NetworkError, did_you_mean
from embedkit.networks.pooling import pooled_shape

PRESETS = ("all", "last", "stages")
_FLOAT32 = 4  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One place where a value can be tapped, measured on one image.

    Attributes
    ----------
    name : str
        Its canonical name.
    type : str
        The module's class, or the function's or method's name.
    is_module : bool
        Whether it is a module that was called, and not a function or method.
    shape : tuple of int
        Of its value for one image, without the batch.
    axes : tuple of int
        Which axes of the batched value are positions (see `position_axes`).
    flops : int
        Floating point operations of one image's forward pass, up to and with this one.
    """

    name: str
    type: str
    is_module: bool
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    flops: int

    @property
    def features(self) -> int:
        """Entries that are left after average pooling."""
        return math.prod(pooled_shape(self.shape, axes=self.axes, pool="avg"))

    @property
    def resolution(self) -> tuple[int, ...]:
        """Size along the positions: (H, W), (L,), or () where there is at most one."""
        sizes = tuple(self.shape[axis - 1] for axis in self.axes)
        return sizes if math.prod(sizes) > 1 else ()


def layer_table(layers: Iterable[Layer]) -> pd.DataFrame:
    """Return layers as a table.

    Returns
    -------
    DataFrame
        Indexed by ``layer``, in execution order, with columns ``type``, ``shape``,
        ``features``, ``nbytes`` (per image, average pooled, float32) and ``flops``
        (cumulative; a multiplication and its addition count as two).
    """
    rows = {
        layer.name: (
            layer.type,
            layer.shape,
            layer.features,
            layer.features * _FLOAT32,
            layer.flops,
        )
        for layer in layers
    }
    columns = ["type", "shape", "features", "nbytes", "flops"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return table.rename_axis(index="layer")


def _prefixes(name: str) -> Iterator[str]:
    """Yield ``a``, ``a.b`` and ``a.b.c`` for ``a.b.c``, and ``a`` for ``a#0``."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        prefix = ".".join(parts[:count])
        yield prefix.partition("#")[0]
        yield prefix


def module_aliases(names: Sequence[str]) -> dict[str, str]:
    """Map every path to the last tap inside it, and every tap to itself.

    Parameters
    ----------
    names : sequence of str
        Taps in execution order.

    Examples
    --------
    >>> module_aliases(["block.conv", "block.relu", "fc"])["block"]
    'block.relu'
    """
    last = {prefix: name for name in names for prefix in _prefixes(name)}
    return last | {name: name for name in names}


def stages(layers: Sequence[Layer]) -> list[str]:
    """Choose one tap for every spatial resolution, and the last vector.

    A tap ends a module if it is the last inside it, and one module is further out than
    another if its path has fewer parts. Of all taps that share a resolution (H, W or L,
    more than one position), the last that ends an outermost module is chosen. So a
    residual network gives the outputs of its stages, not the first convolution of the
    next stage, which still has the old size. Resolutions at which no module ends, such
    as those of reshaped intermediates, are passed over; where that is all of them (a
    network of functions alone) each gives its last tap. To these is added the last of
    the taps with a single position or none.

    Parameters
    ----------
    layers : sequence of Layer
        In execution order.

    Returns
    -------
    list of str
        Names, in execution order.
    """
    depths = _module_depths(layers)
    ends = [layer for layer in layers if layer.resolution and layer.name in depths]
    groups: dict[tuple[int, ...], list[str]] = {}
    for layer in ends or [layer for layer in layers if layer.resolution]:
        groups.setdefault(layer.resolution, []).append(layer.name)
    chosen = {
        min(reversed(names), key=lambda name: depths.get(name, 0))
        for names in groups.values()
    }
    chosen.update([layer.name for layer in layers if not layer.resolution][-1:])
    return [layer.name for layer in layers if layer.name in chosen]


def _module_depths(layers: Sequence[Layer]) -> dict[str, int]:
    """Map every tap that ends a module to the depth of the outermost one it ends."""
    functions = {layer.name for layer in layers if not layer.is_module}
    depths: dict[str, int] = {}
    for path, name in module_aliases([layer.name for layer in layers]).items():
        if path not in functions:
            depths[name] = min(depths.get(name, path.count(".")), path.count("."))
    return depths


def resolve_layers(
    asked: str | Sequence[str], layers: Sequence[Layer], *, network: str
) -> tuple[str, ...]:
    """Return the canonical names for what a user asked.

    Parameters
    ----------
    asked : str or sequence of str
        Each one a preset (``"all"``, ``"last"``, ``"stages"``), a tap, the path of a
        module (its last tap) or a pattern with ``*``, ``?`` or ``[``, which is compared
        with whole tap names. A preset comes before a module of the same name.
    layers : sequence of Layer
        What there is, in execution order.
    network : str
        Its name, for messages.

    Returns
    -------
    tuple of str
        In execution order, without repetition.

    Raises
    ------
    NetworkError
        When nothing was asked, or something that is not there.
    """
    wanted = [asked] if isinstance(asked, str) else list(asked)
    if not wanted:
        message = f"no layer was asked of {network}: give a name, a list or 'stages'"
        raise NetworkError(message)
    chosen = {name for one in wanted for name in _resolve_one(one, layers, network)}
    return tuple(layer.name for layer in layers if layer.name in chosen)


def choose_layers(
    asked: str | Sequence[str], layers: Sequence[Layer], *, network: str
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
    names = [] if isinstance(asked, str) else list(asked)
    exact = names and {layer.name for layer in layers}.issuperset(names)
    chosen = names if exact else resolve_layers(asked, layers, network=network)
    wanted = frozenset(chosen)
    return [layer for layer in layers if layer.name in wanted]


def _resolve_one(asked: str, layers: Sequence[Layer], network: str) -> Iterable[str]:
    names = [layer.name for layer in layers]
    if asked in PRESETS:
        return {"all": names, "last": names[-1:], "stages": stages(layers)}[asked]
    aliases = module_aliases(names)
    if asked in aliases:
        return [aliases[asked]]
    matched = [name for name in names if fnmatchcase(name, asked)]
    if matched:
        return matched
    nearest = did_you_mean(asked, [*aliases, *PRESETS])
    message = f"network {network} has no layer {asked!r}. {nearest}"
    raise NetworkError(message)
