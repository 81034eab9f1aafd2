"""A small store, written block by block without any network."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from embedkit.store import arrays
from embedkit.store.commits import Commit, write_commit
from embedkit.store.identity import identity_of
from embedkit.store.schema import LayerSpec, StoreSchema
from embedkit.store.table import to_dataset

PARTS = {"weights": "w" * 64, "pool": "avg"}


@pytest.fixture
def table():
    """Seventy images with a label and columns of every kind."""
    rows = 70
    return pd.DataFrame(
        {
            "uri": [f"/photos/{i}.jpg" for i in range(rows)],
            "label": pd.Categorical(["cat", "dog"] * 35),
            "size": pd.array([None, *range(1, rows)], dtype="Int64"),
            "sharp": [True, False] * 35,
            "taken": pd.to_datetime(["2024-02-29T12:00:00+02:00"] * rows, utc=True),
            "note": ["é", None] * 35,
        },
        index=pd.Index([f"a/{i}.jpg" for i in range(rows)], name="image"),
    )


@pytest.fixture
def schema():
    """Two layers in blocks of 32: one pooled, one of maps."""
    return StoreSchema(
        n_images=70,
        block=32,
        batch_size=16,
        layers=(
            LayerSpec(
                name="stage1.relu",
                type="ReLU",
                shape=(8,),
                dtype="float32",
                aliases=("stage1",),
            ),
            LayerSpec(name="conv", type="Conv2d", shape=(2, 3, 4), dtype="float32"),
        ),
        identity=identity_of(PARTS),
        parts=PARTS,
        about={"network": "tiny", "pool": "avg", "transform": "t", "created": "now"},
    )


@pytest.fixture
def values(schema):
    """What the two layers hold; the first block of the first layer is all zeros."""
    rng = np.random.default_rng(0)
    arrays_ = {
        spec.name: rng.normal(size=(70, *spec.shape)).astype(np.float32)
        for spec in schema.layers
    }
    arrays_["stage1.relu"][:32] = 0
    return arrays_


@pytest.fixture
def fill(schema, values):
    """Write and commit some blocks of a store."""

    def fill_blocks(path: Path, blocks, failures=None) -> None:
        for block in blocks:
            rows = schema.grid.rows(block)
            checksums = arrays.write_block(
                path, schema, block, {name: each[rows] for name, each in values.items()}
            )
            commit = Commit(
                block=block,
                identity=schema.identity,
                start=rows.start,
                stop=rows.stop,
                failures=(failures or {}).get(block, {}),
                crc32=checksums,
                seconds={"forward": 0.5, "total": 1.0},
                device="cpu",
            )
            write_commit(path, commit)

    return fill_blocks


@pytest.fixture
def path(tmp_path, schema, table):
    """The path of a store that has no block yet."""
    place = tmp_path / "photos.zarr"
    arrays.create(place, schema, to_dataset(table))
    return place
