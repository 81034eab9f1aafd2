"""The frozen description of a store: which layers, how many images, cut how."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from embedkit.errors import CorruptStore
from embedkit.planning.grid import BlockGrid

FORMAT = 1

_DIMS = {
    0: (),
    1: ("feature",),
    2: ("token", "feature"),
    3: ("channel", "y", "x"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSpec:
    """One layer as it is stored.

    Parameters
    ----------
    name : str
        The tap's name, for instance ``layer1.0.add``.
    type : str
        The module class or function that computes it.
    shape : tuple of int
        Per image: ``(F,)``, ``(tokens, F)`` or ``(C, H, W)``.
    dtype : str
        NumPy name of the stored type.
    aliases : tuple of str
        Module paths whose output this tap is, for instance ``("layer1", "layer1.0")``.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    dtype: str
    aliases: tuple[str, ...] = ()

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dimensions of the stored array, ``image`` first."""
        extra = tuple(f"axis_{i}" for i in range(len(self.shape)))
        return ("image", *_DIMS.get(len(self.shape), extra))

    @property
    def row_bytes(self) -> int:
        """Bytes of one image, uncompressed."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSchema:
    """What a store holds and how, as kept in its attributes.

    Parameters
    ----------
    n_images, block, batch_size : int
        Rows, rows per task and shard, images per forward pass.
    layers : tuple of LayerSpec
        In the network's order.
    identity : str
        Hash of `parts`.
    parts : mapping of str to str
        What the numbers were made from; see `embedkit.store.identity`.
    about : mapping of str to str
        For people: network, transform, pool, versions, date.
    """

    n_images: int
    block: int
    batch_size: int
    layers: tuple[LayerSpec, ...]
    identity: str
    parts: Mapping[str, str]
    about: Mapping[str, str]

    @property
    def grid(self) -> BlockGrid:
        """The rows of every block."""
        return BlockGrid(n_images=self.n_images, block=self.block)

    def to_json(self) -> dict[str, Any]:
        """Return the schema as plain values for the attribute ``embedkit``."""
        return {
            "format": FORMAT,
            "identity": self.identity,
            "n_images": self.n_images,
            "block": self.block,
            "batch_size": self.batch_size,
            "parts": dict(self.parts),
            "about": dict(self.about),
            "layers": [asdict(layer) for layer in self.layers],
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> StoreSchema:
        """Return the schema that `to_json` wrote.

        Raises
        ------
        CorruptStore
            When keys are missing or it was written in a newer format.
        """
        if found.get("format") != FORMAT:
            message = (
                f"the store has format {found.get('format')!r} and this embedkit reads "
                f"format {FORMAT}: install the embedkit that wrote it"
            )
            raise CorruptStore(message)
        try:
            layers = tuple(_layer_from_json(layer) for layer in found["layers"])
            rest = {
                key: found[key]
                for key in (
                    "n_images",
                    "block",
                    "batch_size",
                    "identity",
                    "parts",
                    "about",
                )
            }
        except (KeyError, TypeError) as error:
            message = f"the store's metadata lack {error}: it was edited or cut short"
            raise CorruptStore(message) from error
        return cls(layers=layers, **rest)


def _layer_from_json(found: Mapping[str, Any]) -> LayerSpec:
    return LayerSpec(
        name=found["name"],
        type=found["type"],
        shape=tuple(found["shape"]),
        dtype=found["dtype"],
        aliases=tuple(found["aliases"]),
    )
