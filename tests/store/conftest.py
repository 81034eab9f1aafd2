"""A small store, written block by block without any network, and ways to die."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from zarr.storage import LocalStore

from embedkit.files.files import files_at
from embedkit.files.local import LocalFiles
from embedkit.store import blocks, layout
from embedkit.store import create as creation
from embedkit.store.commits import Commit, write_commit
from embedkit.store.identity import identity_of
from embedkit.store.ids import digest
from embedkit.store.manifest import write_manifest
from embedkit.store.schema import LayerSpec, Pass, StoreSchema
from embedkit.store.table import to_dataset

N_IMAGES = 70


class KilledError(Exception):
    """Stands for the death of the process: nothing is written after it."""


@pytest.fixture(scope="session")
def table_of():
    """Return a table of some images with a label and columns of every kind."""

    def make(rows):
        return pd.DataFrame(
            {
                "uri": [f"/photos/{i}.jpg" for i in range(rows)],
                "label": pd.Categorical([("cat", "dog")[i % 2] for i in range(rows)]),
                "size": pd.array([None, *range(1, rows)], dtype="Int64"),
                "sharp": [i % 2 == 0 for i in range(rows)],
                "taken": pd.to_datetime(["2024-02-29T12:00:00+02:00"] * rows, utc=True),
                "note": [("é", None)[i % 2] for i in range(rows)],
            },
            index=pd.Index([f"a/{i}.jpg" for i in range(rows)], name="image"),
        )

    return make


@pytest.fixture
def table(table_of):
    """Seventy images."""
    return table_of(N_IMAGES)


@pytest.fixture(scope="session")
def one():
    """A pass of two layers in blocks of 32: one pooled, one of maps."""
    parts = {"weights": "w" * 64, "pool": "avg"}
    return Pass(
        network="tiny",
        layers=(
            LayerSpec(
                name="stage1.relu",
                tap="stage1.relu",
                type="ReLU",
                shape=(8,),
                dtype="float32",
                pool="avg",
                aliases=("stage1",),
            ),
            LayerSpec(
                name="conv",
                tap="conv",
                type="Conv2d",
                shape=(2, 3, 4),
                dtype="float32",
                pool="avg",
            ),
        ),
        block=32,
        batch_size=16,
        identity=identity_of(parts),
        parts=parts,
        tolerance=1e-4,
        about={"network": "tiny", "pool": "avg", "transform": "t", "created": "now"},
    )


@pytest.fixture(scope="session")
def other():
    """A pass of another network, in blocks of 16."""
    parts = {"weights": "v" * 64, "pool": "avg"}
    spec = LayerSpec(
        name="resnet18/layer4",
        tap="layer4",
        type="Sequential",
        shape=(5,),
        dtype="float16",
        pool="avg",
        aliases=("resnet18/stage4",),
    )
    return Pass(
        network="resnet18",
        layers=(spec,),
        block=16,
        batch_size=8,
        identity=identity_of(parts),
        parts=parts,
        tolerance=1e-2,
        about={"network": "resnet18", "pool": "avg"},
    )


@pytest.fixture
def schema(one):
    """One pass over seventy images."""
    return StoreSchema(n_images=N_IMAGES, passes=(one,))


@pytest.fixture(scope="session")
def values_of():
    """Return what a pass writes for some images; the same rows whatever their number."""

    def make(one, rows):
        found = {"content": np.arange(rows, dtype=np.uint64) * 2**40 + 7}
        for spec in one.layers:
            rng = np.random.default_rng(len(spec.name))
            found[spec.name] = rng.normal(size=(rows, *spec.shape)).astype(spec.dtype)
        first = found[one.layers[0].name]
        first[:32] = 0  # a dead ReLU: data, though all zeros
        return found

    return make


@pytest.fixture
def values(values_of, one):
    """What the pass writes for the seventy images."""
    return values_of(one, N_IMAGES)


@pytest.fixture(scope="session")
def record():
    """Return the record of a block."""

    def make(one, block, *, n_images=N_IMAGES, **changes):
        rows = StoreSchema(n_images=n_images, passes=(one,)).grid(one).rows(block)
        ids = [f"a/{i}.jpg" for i in range(rows.start, rows.stop)]
        commit = Commit(
            block=block,
            identity=one.identity,
            start=rows.start,
            stop=rows.stop,
            ids=digest(ids),
            failures={},
            crc32={},
            seconds={"forward": 0.5, "total": 1.0},
            peak_mem=1000 + block,
            backend="torch",
            device="cpu",
            attempt=1,
        )
        return replace(commit, **changes)

    return make


@pytest.fixture(scope="session")
def write_blocks(values_of, record):
    """Write and commit some blocks of a pass."""

    def write(files, schema, one, chosen=None, *, failures=None):
        grid, all_values = schema.grid(one), values_of(one, schema.n_images)
        for block in range(len(grid)) if chosen is None else chosen:
            rows = grid.rows(block)
            crc32 = blocks.write_block(
                files, one, grid, block, {k: v[rows] for k, v in all_values.items()}
            )
            commit = record(one, block, n_images=schema.n_images, crc32=crc32)
            failed = (failures or {}).get(block, {})
            write_commit(files, one, grid, replace(commit, failures=failed))

    return write


@pytest.fixture
def create(table_of):
    """Create a store that has no block yet."""

    def make(place, schema):
        files = place if hasattr(place, "for_zarr") else files_at(place)
        rows = np.arange(schema.n_images)
        dataset = to_dataset(table_of(schema.n_images))
        creation.create(files, schema, dataset, sizes=rows, mtimes=rows * 2)
        return files

    return make


@pytest.fixture
def grow(table_of):
    """Give a store more images, as the driver does."""

    def to(files, schema):
        table, rows = table_of(schema.n_images), np.arange(schema.n_images)
        layout.write_columns(files, to_dataset(table))
        write_manifest(files, list(table.index), {"size": rows, "mtime": rows * 2})
        layout.grow(files, schema)

    return to


@pytest.fixture
def files(tmp_path, create, schema):
    """A store in a folder that has no block yet."""
    return create(tmp_path / "photos.zarr", schema)


@pytest.fixture
def path(tmp_path, files):
    """The folder of that store."""
    return tmp_path / "photos.zarr"


@pytest.fixture
def fill(files, schema, one, write_blocks):
    """Write and commit some blocks of that store, by default all."""

    def fill_blocks(blocks=None, failures=None):
        write_blocks(files, schema, one, blocks, failures=failures)

    return fill_blocks


@pytest.fixture(params=["local", "memory", "s3"])
def place(request, tmp_path):
    """An empty place of each kind."""
    if request.param == "local":
        return files_at(tmp_path / "photos.zarr")
    if request.param == "memory":
        return files_at(f"memory://{tmp_path.name}-{id(tmp_path)}")
    return files_at(request.getfixturevalue("s3_bucket"))


@pytest.fixture
def dying():
    """Return a context in which every change from the n-th on fails: a process that dies.

    It gives a list that is filled with the changes that were made.
    """

    @contextmanager
    def die(after):
        done = []

        def counted(change):
            def changed(*args, **kwargs):
                if len(done) >= after:
                    raise KilledError
                done.append(change.__name__)
                return change(*args, **kwargs)

            return changed

        with pytest.MonkeyPatch.context() as patch:
            for owner, names in (
                (LocalStore, ("set", "set_if_not_exists", "delete", "delete_dir")),
                (LocalFiles, ("write", "create", "replace", "delete", "delete_tree")),
            ):
                for name in names:
                    patch.setattr(owner, name, counted(getattr(owner, name)))
            try:
                yield done
            except KilledError:
                done.append("killed")

    return die
