"""What a store holds, for people: a table of its layers, and a few lines of text."""

from __future__ import annotations

import pandas as pd

from embedkit.store.schema import StoreSchema

_SHOWN = 12
"""Layers that the text names."""


def layer_table(schema: StoreSchema) -> pd.DataFrame:
    """Return one row per layer: network, type, pool, shape per image, dtype, bytes."""
    rows = [(one, spec) for one in schema.passes for spec in one.layers]
    return pd.DataFrame(
        {
            "network": [one.network for one, _ in rows],
            "type": [spec.type for _, spec in rows],
            "pool": [spec.pool for _, spec in rows],
            "shape": [spec.shape for _, spec in rows],
            "dtype": [spec.dtype for _, spec in rows],
            "nbytes": [spec.row_bytes * schema.n_images for _, spec in rows],
        },
        index=pd.Index([spec.name for _, spec in rows], name="layer"),
    )


def described(url: str, schema: StoreSchema, *, done: int, blocks: int) -> str:
    """Return the text that stands for a store.

    Parameters
    ----------
    url : str
        Where it lies.
    schema : StoreSchema
        What it holds.
    done, blocks : int
        Blocks that are written, and blocks in all.
    """
    layers = schema.layers
    size = sum(spec.row_bytes for spec in layers) * schema.n_images
    state = "complete" if done == blocks else f"{done} of {blocks} blocks written"
    head = (
        f"<embedkit.Store {url}: {schema.n_images:,} images, "
        f"{len(layers)} layers, {size / 2**20:,.1f} MiB, {state}>"
    )
    shown = [f"  {spec.name}: {spec.shape} {spec.dtype}" for spec in layers]
    more = [f"  … and {len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
    return "\n".join([head, *shown[:_SHOWN], *more])
