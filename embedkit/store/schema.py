"""The frozen description of a store: how many images, and which passes over them.

A *pass* is one network looking at every image: the layers it writes, how they are
pooled, and how the images are cut into blocks. A store begins with one; asking for more
layers, or for a second network, adds another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from embedkit.errors import CorruptStore
from embedkit.planning.codecs import USUAL, Codec
from embedkit.planning.grid import BlockGrid

FORMAT = 2

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
        What the store calls it: the tap's name, behind the network's where the store
        holds several: ``layer4`` or ``resnet18/layer4``.
    tap : str
        What the network calls it, for instance ``layer1.0.add``.
    type : str
        The module class or function that computes it.
    shape : tuple of int
        Per image: ``(F,)``, ``(tokens, F)`` or ``(C, H, W)``.
    dtype : str
        NumPy name of the stored type.
    pool : str
        How it was pooled.
    aliases : tuple of str
        Other names: module paths whose output this tap is, for instance
        ``("layer1", "layer1.0")``.
    codec : str, default "zstd-1"
        How its shards are compressed; the same numbers either way.
    """

    name: str
    tap: str
    type: str
    shape: tuple[int, ...]
    dtype: str
    pool: str
    aliases: tuple[str, ...] = ()
    codec: Codec = USUAL

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
class Pass:
    """One network looking at every image.

    Parameters
    ----------
    network : str
        What the store calls the network.
    layers : tuple of LayerSpec
        In the network's order.
    block, batch_size : int
        Rows per task and shard, images per forward pass.
    identity : str
        Hash of `parts`.
    parts : mapping of str to str
        What the numbers were made from; see `embedkit.store.identity`.
    tolerance : float
        By how much, relative to the largest magnitude of a row, a recomputed row may
        differ and still count as equal.
    about : mapping of str to str
        For people: network, transform, pool, versions, date.
    backend : str, default "torch"
        What executes the network, on every worker and whenever the run goes on.
    """

    network: str
    layers: tuple[LayerSpec, ...]
    block: int
    batch_size: int
    identity: str
    parts: Mapping[str, str]
    tolerance: float
    about: Mapping[str, str]
    backend: str = "torch"

    @property
    def key(self) -> str:
        """Its name among the private files: the head of its identity."""
        return self.identity[:16]

    @property
    def pools(self) -> dict[str, str]:
        """How its layers are pooled, by tap."""
        return {spec.tap: spec.pool for spec in self.layers}

    @property
    def row_bytes(self) -> int:
        """Bytes that one image writes, uncompressed."""
        return sum(spec.row_bytes for spec in self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSchema:
    """What a store holds and how, as kept in its attributes.

    Parameters
    ----------
    n_images : int
        Rows.
    passes : tuple of Pass
        In the order in which they were asked for.
    """

    n_images: int
    passes: tuple[Pass, ...]

    @property
    def layers(self) -> tuple[LayerSpec, ...]:
        """The layers of all passes."""
        return tuple(spec for each in self.passes for spec in each.layers)

    @property
    def networks(self) -> tuple[str, ...]:
        """What the store calls its networks, the first one first."""
        return tuple(dict.fromkeys(each.network for each in self.passes))

    def grid(self, one: Pass) -> BlockGrid:
        """Return the rows of every block of a pass."""
        return BlockGrid(n_images=self.n_images, block=one.block)

    def pass_of(self, layer: str) -> Pass:
        """Return the pass that writes a layer, by the store's name for it."""
        return next(
            each
            for each in self.passes
            if any(spec.name == layer for spec in each.layers)
        )

    def by_identity(self, identity: str) -> Pass:
        """Return the pass of that identity."""
        return next(each for each in self.passes if each.identity == identity)

    def to_json(self) -> dict[str, Any]:
        """Return the schema as plain values for the attribute ``embedkit``."""
        return {
            "format": FORMAT,
            "n_images": self.n_images,
            "passes": [_pass_to_json(each) for each in self.passes],
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> StoreSchema:
        """Return the schema that `to_json` wrote.

        Raises
        ------
        CorruptStore
            When keys are missing or it was written in another format.
        """
        if found.get("format") != FORMAT:
            message = (
                f"the store has format {found.get('format')!r} and this embedkit reads "
                f"format {FORMAT}: use the embedkit that wrote it, or extract again"
            )
            raise CorruptStore(message)
        try:
            passes = tuple(_pass_from_json(each) for each in found["passes"])
            n_images = int(found["n_images"])
        except (KeyError, TypeError, ValueError) as error:
            message = f"the store's metadata lack {error}: it was edited or cut short"
            raise CorruptStore(message) from error
        return cls(n_images=n_images, passes=passes)


def _pass_to_json(one: Pass) -> dict[str, Any]:
    """Return a pass as plain values, without what older embedkits do not know of."""
    found = asdict(one)
    for layer in found["layers"]:
        if layer["codec"] == USUAL:
            del layer["codec"]
    return found


def _pass_from_json(found: Mapping[str, Any]) -> Pass:
    layers = tuple(_layer_from_json(each) for each in found["layers"])
    return Pass(**{**found, "layers": layers})


def _layer_from_json(found: Mapping[str, Any]) -> LayerSpec:
    lists = {key: tuple(found[key]) for key in ("shape", "aliases")}
    return LayerSpec(**{**found, **lists})
