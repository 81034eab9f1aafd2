"""The passes that a store has to have for what is asked: those of a new one, those it lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import embedkit
from embedkit.errors import InputError
from embedkit.extraction.asked import Asked, check_stored, name_in_store, network_parts
from embedkit.extraction.backend import backend_for
from embedkit.extraction.decoding import Deviation, deviation
from embedkit.extraction.rounding import rounding
from embedkit.networks.backends import Backend
from embedkit.networks.pools import Pool
from embedkit.planning.codecs import USUAL
from embedkit.planning.grid import choose_block
from embedkit.store.identity import identity_of
from embedkit.store.schema import LayerSpec, Pass, StoreSchema


def first_schema(looks: Sequence[Asked], *, where: str) -> StoreSchema:
    """Return the schema of a new store.

    Parameters
    ----------
    looks : sequence of Asked
        What is asked of each network.
    where : str
        The store's place, for messages.

    Raises
    ------
    InputError
        When a network cannot have the name that it has.
    """
    first = looks[0]
    draft = _Draft.of(first, first.layers, network=first.network.name)
    alone = StoreSchema(n_images=len(first.images), passes=_passes([draft]))
    others = [_draft(alone, asked, where=where) for asked in looks[1:]]
    passes = _passes([draft, *(other for other in others if other is not None)])
    return replace(alone, passes=passes)


def lacking(
    schema: StoreSchema, looks: Sequence[Asked], *, where: str
) -> tuple[Pass, ...]:
    """Return the passes that a store needs besides those it has.

    Parameters
    ----------
    schema : StoreSchema
        Of the store.
    looks : sequence of Asked
        What is asked of each network.
    where : str
        The store's place, for messages.

    Returns
    -------
    tuple of Pass
        All with the same blocks, so that images are read once for all of them.

    Raises
    ------
    IdentityMismatch
        When the store was made by another network, or has a layer pooled otherwise.
    InputError
        When a second network cannot have the name that it has.
    """
    drafts = [_draft(schema, asked, where=where) for asked in looks]
    return _passes([draft for draft in drafts if draft is not None])


def _draft(schema: StoreSchema, asked: Asked, *, where: str) -> _Draft | None:
    """Return what a store lacks of one network."""
    name = name_in_store(schema, asked, where=where)
    mine = [one for one in schema.passes if one.network == name]
    stored = check_stored(mine, asked, where=where)
    missing = tuple(tap for tap in asked.layers if tap not in stored)
    if not missing:
        return None
    prefix = "" if name == schema.networks[0] else f"{name}/"
    _check_prefix(schema, name, prefix)
    batch = mine[0].batch_size if mine else asked.batch_size
    return _Draft.of(asked, missing, network=name, prefix=prefix, batch_size=batch)


def _check_prefix(schema: StoreSchema, name: str, prefix: str) -> None:
    """Refuse a second network whose group would lie inside a layer's."""
    first = schema.networks[0]
    layers = {
        spec.tap for one in schema.passes if one.network == first for spec in one.layers
    }
    if prefix and prefix.partition("/")[0] in layers:
        message = (
            f"a second network cannot be called {name!r}, because a layer of the first "
            "one is: give it another name with load_network(..., name='…')"
        )
        raise InputError(message)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Draft:
    """A pass before its blocks are chosen."""

    asked: Asked
    network: str
    specs: tuple[LayerSpec, ...]
    batch_size: int
    tolerance: float
    backend: Backend
    measured: str
    deviation: Deviation

    @classmethod
    def of(
        cls,
        asked: Asked,
        layers: Sequence[str],
        *,
        network: str,
        prefix: str = "",
        batch_size: int | None = None,
    ) -> _Draft:
        """Return the draft of a pass over some layers."""
        size = batch_size or asked.batch_size
        pools = _of(asked.pools, layers)
        found = backend_for(
            asked.network,
            asked.images,
            asked.backend,
            pools=pools,
            batch_size=size,
        )
        taps = asked.network.taps(layers, pool=pools, backend=found.backend)
        return cls(
            asked=asked,
            network=network,
            specs=tuple(
                _layer_spec(asked, tap, taps.shapes[tap], prefix=prefix)
                for tap in taps.layers
            ),
            batch_size=size,
            tolerance=taps.tolerance + rounding(asked.dtype),
            backend=found.backend,
            measured=found.measured,
            deviation=deviation(asked.network, asked.images, asked.decode, pools=pools),
        )

    def parts(self) -> list[_Draft]:
        """Return what is a pass of its own: everything, or each layer.

        Blocks and batches are those of everything, so the numbers are the same.
        """
        if self.asked.way.strategy == "fused":
            return [self]
        return [replace(self, specs=(spec,)) for spec in self.specs]


def _passes(drafts: Sequence[_Draft]) -> tuple[Pass, ...]:
    """Choose blocks for all drafts together."""
    row_bytes = sum(spec.row_bytes for draft in drafts for spec in draft.specs)
    return tuple(
        _pass(
            part,
            block=draft.asked.block or choose_block(len(draft.asked.images), row_bytes),
        )
        for draft in drafts
        for part in draft.parts()
    )


def _pass(draft: _Draft, *, block: int) -> Pass:
    asked, size = draft.asked, min(draft.batch_size, block)
    parts = {
        **network_parts(asked),
        "layers": " ".join(spec.tap for spec in draft.specs),
        "pool": _told(draft.specs),
        "dtype": asked.dtype,
        "batch_size": str(size),
        "backend": draft.backend,
    }
    return Pass(
        network=draft.network,
        layers=draft.specs,
        block=block,
        batch_size=size,
        identity=identity_of(parts),
        parts=parts,
        tolerance=draft.tolerance,
        about=_about(draft),
        backend=draft.backend,
    )


def _of(pools: Mapping[str, Pool], layers: Sequence[str]) -> dict[str, Pool]:
    return {layer: pools[layer] for layer in layers}


def _told(specs: Sequence[LayerSpec]) -> str:
    """Say how layers are pooled: in one word, or each for itself."""
    pools = dict.fromkeys(spec.pool for spec in specs)
    return (
        next(iter(pools))
        if len(pools) == 1
        else " ".join(f"{spec.tap}={spec.pool}" for spec in specs)
    )


def _layer_spec(
    asked: Asked, tap: str, shape: Sequence[int], *, prefix: str
) -> LayerSpec:
    network = asked.network
    paths = sorted(path for path, last in network.aliases.items() if last == tap)
    return LayerSpec(
        name=f"{prefix}{tap}",
        tap=tap,
        type=str(network.layers["type"][tap]),
        shape=tuple(shape),
        dtype=asked.dtype,
        pool=asked.pools[tap],
        aliases=tuple(f"{prefix}{path}" for path in paths if path != tap),
        codec=asked.codecs.get(tap, USUAL),
    )


def _about(draft: _Draft) -> Mapping[str, str]:
    network = draft.asked.network
    return {
        "network": network.name,
        "asked": network.asked or "",
        "weights": network.weights or "",
        "pool": _told(draft.specs),
        "backend": draft.backend,
        "measured": draft.measured,
        "decode": draft.asked.decode,
        "deviation": draft.deviation.text,
        "deviations": draft.deviation.layers,
        "transform": network.identity_parts["transform"],
        "embedkit": embedkit.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **draft.asked.way.about,
    }
