"""What a call of `extract` asks for, and what a store calls it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from embedkit.extraction.rounding import Dtype
from embedkit.extraction.strategy.ways import FUSED, Way
from embedkit.images.decode import DECODE_POLICY
from embedkit.images.imageset import ImageSet
from embedkit.networks.backends import Backend
from embedkit.networks.network import Network
from embedkit.networks.pools import Pool
from embedkit.planning.codecs import Codec
from embedkit.store.identity import check_identity
from embedkit.store.schema import LayerSpec, Pass, StoreSchema

_OF_NETWORK = ("architecture", "decode", "transform", "weights")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """One call of `extract`, understood.

    Parameters
    ----------
    images : ImageSet
        Which images.
    network : Network
        Which network.
    layers : tuple of str
        Which taps, in execution order.
    pools : mapping of str to str
        How each of them is pooled, spelled as `check_pool` does.
    batch_size : int
        Images per forward pass, for a network that the store does not have yet.
    dtype : Dtype
        The type that layers are stored as.
    backend : str
        What executes the network for layers that the store does not have yet; "auto"
        for the fastest one.
    update : bool
        Whether rows of changed and removed images may be replaced.
    add_network : bool
        Whether a store of another network may take this one beside it.
    decode : str
        Name of the rule by which images are decoded.
    block : int, optional
        Images per task of new passes; what suits images and layers by default.
    way : Way
        How layers are computed that the store does not have yet.
    codecs : mapping of str to str
        How they are compressed, by tap; the others as usual.
    """

    images: ImageSet
    network: Network
    layers: tuple[str, ...]
    pools: Mapping[str, Pool]
    batch_size: int
    dtype: Dtype = "float32"
    backend: Backend | Literal["auto"] = "torch"
    update: bool = False
    add_network: bool = False
    decode: str = DECODE_POLICY
    block: int | None = None
    way: Way = FUSED
    codecs: Mapping[str, Codec] = field(default_factory=dict)


def network_parts(asked: Asked) -> dict[str, str]:
    """Return the parts of the identity that belong to the network alone."""
    return {**asked.network.identity_parts, "decode": asked.decode}


def name_in_store(schema: StoreSchema, asked: Asked, *, where: str) -> str:
    """Return what a store calls the network asked for, or will call it.

    Raises
    ------
    IdentityMismatch
        When the store has other networks and may not take another one, or one of the
        same name.
    """
    parts = network_parts(asked)
    for one in schema.passes:
        if {name: one.parts[name] for name in _OF_NETWORK} == parts:
            return one.network
    named = [one for one in schema.passes if one.network == asked.network.name]
    if named or not asked.add_network:
        stored = (named or schema.passes)[0].parts
        check_identity(
            {name: stored[name] for name in _OF_NETWORK},
            parts,
            where=where,
            remedy="or keep both networks in it with add_network=True (--add-network)"
            + (" and another name: load_network(..., name='…')" if named else ""),
        )
    return asked.network.name


def check_stored(
    passes: Sequence[Pass], asked: Asked, *, where: str
) -> dict[str, LayerSpec]:
    """Return the layers that passes of a network have, by tap.

    Raises
    ------
    IdentityMismatch
        When one that is asked for is pooled otherwise, or stored as another type.
    """
    stored = {spec.tap: spec for one in passes for spec in one.layers}
    for spec in (spec for tap, spec in stored.items() if tap in asked.layers):
        found = {"pool": spec.pool, "dtype": spec.dtype}
        wanted = {"pool": asked.pools[spec.tap], "dtype": asked.dtype}
        check_identity(found, wanted, where=where)
    return stored
