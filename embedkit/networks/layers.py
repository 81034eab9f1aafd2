"""The layers of a network: their table, their paths and stages. No tensors here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from embedkit.networks.pooling import pooled_shape

_FLOAT32 = 4  # bytes
_FORMATS = {
    (3, (2, 3)): "NCHW",
    (3, (1, 2)): "NHWC",
    (2, (1,)): "NLC",
    (1, ()): "NC",
}
_COLUMNS = ["type", "shape", "format", "features", "nbytes", "nbytes_full", "flops"]


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
    def format(self) -> str:
        """Axes of the batched value: NCHW, NHWC, NLC or NC; empty for any other."""
        return _FORMATS.get((len(self.shape), self.axes), "")

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
        ``format`` (of its axes), ``features``, ``nbytes`` (per image, average pooled,
        float32), ``nbytes_full`` (unpooled) and ``flops`` (cumulative; a multiplication
        and its addition count as two).
    """
    rows = {
        layer.name: (
            layer.type,
            layer.shape,
            layer.format,
            layer.features,
            layer.features * _FLOAT32,
            math.prod(layer.shape) * _FLOAT32,
            layer.flops,
        )
        for layer in layers
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=_COLUMNS)
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
