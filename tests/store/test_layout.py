"""The arrays of a store: whole shards, whole stores."""

import os
import pickle
import signal
import stat
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

from embedkit.errors import CorruptStore, StoreError
from embedkit.files.files import files_at
from embedkit.files.local import LocalFiles
from embedkit.files.reasons import said
from embedkit.store import arrays, blocks, layout
from embedkit.store import create as creation
from embedkit.store.schema import StoreSchema
from embedkit.store.store import open_store
from embedkit.store.table import to_dataset


def _block(values, rows):
    return {name: each[rows] for name, each in values.items()}


def test_a_new_store_is_zarr_v3_with_the_layout_of_the_design(path, schema):
    """Groups, dimension names, shards, fill value and attributes are as promised."""
    root = zarr.open_group(path, mode="r")

    array = root["layers/stage1.relu/activation"]
    maps = root["layers/conv/activation"]

    assert root.metadata.zarr_format == 3
    assert array.metadata.dimension_names == ("image", "feature")
    assert maps.metadata.dimension_names == ("image", "channel", "y", "x")
    assert (array.shape, array.shards) == ((70, 8), (32, 8))
    assert np.isnan(array.fill_value)
    assert root["image"].metadata.dimension_names == ("image",)
    assert root.attrs["embedkit"]["passes"][0]["identity"] == schema.passes[0].identity


def test_a_block_is_one_file_an_array(files, fill):
    """Blocks never share a file, so that no two workers write the same one."""
    fill([0, 2])

    names = files.names("layers/conv/activation")

    assert names == ["c.0.0.0.0", "c.2.0.0.0", "zarr.json"]


def test_written_blocks_read_back_bit_by_bit(path, fill, values):
    """What is written is what is read; what is not is NaN."""
    fill([0, 2])

    stored = zarr.open_array(path, path="layers/conv/activation", mode="r")[:]

    np.testing.assert_array_equal(stored[:32], values["conv"][:32])
    np.testing.assert_array_equal(stored[64:], values["conv"][64:])
    assert np.isnan(stored[32:64]).all()


def test_a_block_of_zeros_is_stored(path, files, fill, schema):
    """A dead ReLU is data: its file exists, reads as zeros and does not pass for missing."""
    fill([0])

    stored = zarr.open_array(path, path="layers/stage1.relu/activation", mode="r")

    assert (path / "layers/stage1.relu/activation/c.0.0").is_file()
    assert (stored[:32] == 0).all()
    assert blocks.blocks_there(files, schema.layers[0]) == {0}


def test_shards_reach_the_disk_before_the_block_is_done(
    files, schema, one, values, monkeypatch
):
    """Every shard of the block is synced by the time that its checksums are known."""
    synced = []
    monkeypatch.setattr(LocalFiles, "sync", lambda _, *names: synced.extend(names))

    blocks.write_block(files, one, schema.grid(one), 1, _block(values, slice(32, 64)))

    assert synced == [
        *("layers/stage1.relu/activation/c.1.0", "layers/conv/activation/c.1.0.0.0"),
        f"_embedkit/content/{one.key}/c.1",
    ]
    assert all(files.exists(name) for name in synced)


@given(seed=st.integers(0, 2**32 - 1), order=st.sampled_from("CF"))
def test_checksums_are_those_of_the_bytes(shared, one, seed, order):
    """The recorded CRC-32 is that of the rows in C order, as numpy has them."""
    files, schema = shared
    rng = np.random.default_rng(seed)
    rows = {
        spec.name: rng.normal(size=(6, *spec.shape)).astype("f4", order=order)
        for spec in one.layers
    } | {"content": rng.integers(0, 2**64, 6, np.uint64)}

    written = blocks.write_block(files, one, schema.grid(one), 2, rows)

    expected = {name: zlib.crc32(each.tobytes()) for name, each in rows.items()}
    assert written == expected
    assert dict(blocks.checksums(files, one, schema.grid(one), 2)) == expected


@pytest.fixture(scope="module")
def shared(tmp_path_factory, one, table_of):
    """A store that examples write to again and again."""
    files = files_at(tmp_path_factory.mktemp("layout") / "s.zarr")
    schema, rows = StoreSchema(n_images=70, passes=(one,)), np.arange(70)
    creation.create(files, schema, to_dataset(table_of(70)), sizes=rows, mtimes=rows)
    return files, schema


def test_the_same_block_twice_gives_the_same_bytes(files, schema, one, values):
    """Doing a block again changes nothing on disk."""
    rows, grid = _block(values, slice(32)), schema.grid(one)

    blocks.write_block(files, one, grid, 0, rows)
    first = {name: files.read(name) for name in files.names()}
    blocks.write_block(files, one, grid, 0, rows)

    assert {name: files.read(name) for name in files.names()} == first


@pytest.mark.parametrize("wrong", ["missing", "short", "flat", "long"])
def test_a_block_of_another_shape_is_refused(files, schema, one, values, wrong):
    """A shard is written whole or not at all."""
    rows = _block(values, slice(32))
    rows["conv"] = {
        "missing": None,
        "short": rows["conv"][:31],
        "flat": rows["conv"][0],
        "long": values["conv"][:33],
    }[wrong]

    with pytest.raises(
        StoreError,
        match=r"block 0 of conv needs an array of shape \(32, 2, 3, 4\), fou",
    ):
        blocks.write_block(files, one, schema.grid(one), 0, rows)

    assert blocks.blocks_there(files, schema.layers[1]) == set()


def test_the_last_block_may_be_shorter(files, schema, one, values):
    """Seventy images in blocks of 32 end with a block of six."""
    rows = _block(values, slice(64, 70))

    assert set(blocks.write_block(files, one, schema.grid(one), 2, rows)) == set(rows)
    with pytest.raises(IndexError):
        blocks.write_block(files, one, schema.grid(one), 3, rows)


def test_values_are_stored_in_the_type_of_the_layer(files, schema, one, values):
    """The checksum is that of what is stored, not of what was given."""
    rows = _block(values, slice(64, 70))
    wide = rows | {"conv": rows["conv"].astype(np.float64)}

    assert blocks.write_block(files, one, schema.grid(one), 2, wide) == (
        blocks.write_block(files, one, schema.grid(one), 2, rows)
    )


def test_plain_xarray_reads_everything(path, fill, values, table):
    """Tree and single groups, without a warning, and nothing private among them."""
    fill()

    tree = xr.open_datatree(path)
    group = xr.open_zarr(path, group="layers/conv")

    np.testing.assert_array_equal(tree["layers/conv/activation"].values, values["conv"])
    np.testing.assert_array_equal(group["activation"].values, values["conv"])
    assert set(tree.groups) == {
        *("/", "/layers", "/layers/stage1.relu", "/layers/conv"),
    }
    assert tree["image"].values.tolist() == table.index.tolist()
    assert set(tree.data_vars) == {*table.columns, "status", "error"}
    assert tree["layers/conv"]["image"].values[0] == "a/0.jpg"


# creating


def test_creating_where_something_is_leaves_it_alone(path, schema, create):
    """A store never replaces what is there, and leaves no temporary folder."""
    before = sorted(each.name for each in path.parent.iterdir())

    with pytest.raises(StoreError, match="cannot create a store at"):
        create(path, schema)

    assert sorted(each.name for each in path.parent.iterdir()) == before
    assert open_store(path).schema == schema


_AS_NOBODY = """
import os, sys, pickle
import numpy as np
from embedkit.files.files import files_at
from embedkit.store import blocks, create as creation, layout
schema, table = pickle.loads(bytes.fromhex(sys.stdin.read()))
rows = np.arange(schema.n_images)
def create(path):
    creation.create(files_at(path), schema, table, sizes=rows, mtimes=rows)
create(sys.argv[2])  # every import done while still allowed
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
create(sys.argv[1])
"""


def test_a_read_only_place_is_one_clear_error(tmp_path, schema, table):
    """Without permission nothing is written, not even a parent folder."""
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(stat.S_IRUSR | stat.S_IXUSR | stat.S_IROTH | stat.S_IXOTH)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)

    done = subprocess.run(
        [
            *(sys.executable, "-c", _AS_NOBODY),
            *(str(locked / "deep" / "photos.zarr"), str(tmp_path / "ok.zarr")),
        ],
        input=pickle.dumps((schema, to_dataset(table))).hex(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert "StoreError: cannot create a store at" in done.stderr
    assert "Permission denied: choose a place that you can write to" in done.stderr
    assert list(locked.iterdir()) == []


@pytest.mark.parametrize("step", ["_write_column", "write_manifest", "_settle"])
def test_a_store_that_failed_leaves_nothing(
    tmp_path, schema, create, monkeypatch, step
):
    """When the disk fails half way, neither the store nor its new parents stay."""

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(layout, step, full)

    with pytest.raises(
        StoreError, match=r"at .*photos.zarr: No space left on device: "
    ):
        create(tmp_path / "a" / "b" / "photos.zarr", schema)

    assert list(tmp_path.iterdir()) == []


_DIES = """
import os, pickle, signal, sys
import numpy as np
from embedkit.files.files import files_at
from embedkit.store import blocks, create as creation, layout
schema, table = pickle.loads(bytes.fromhex(sys.stdin.read()))
setattr(layout, sys.argv[2], lambda *_a, **_k: os.kill(os.getpid(), signal.SIGKILL))
rows = np.arange(schema.n_images)
creation.create(files_at(sys.argv[1]), schema, table, sizes=rows, mtimes=rows)
"""


@pytest.mark.parametrize("step", ["_write_column", "write_manifest", "_settle"])
def test_a_killed_creation_leaves_no_store(tmp_path, schema, create, table, step):
    """Only a hidden folder beside it remains, and the next creation sweeps it away."""
    path = tmp_path / "photos.zarr"

    done = subprocess.run(
        [sys.executable, "-c", _DIES, str(path), step],
        input=pickle.dumps((schema, to_dataset(table))).hex(),
        text=True,
        check=False,
    )

    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.match(".photos.zarr.*.partial")
    create(path, schema)
    assert open_store(path).schema == schema
    assert [each.name for each in tmp_path.iterdir()] == ["photos.zarr"]


def test_a_store_in_an_object_store_counts_when_it_is_whole(
    tmp_path, schema, create, monkeypatch
):
    """Nothing can be renamed there; a mark says that it was only begun."""
    files = files_at(f"memory://{tmp_path.name}")

    def full(*_args):
        raise OSError(28, "quota exceeded")

    with monkeypatch.context() as patch:
        patch.setattr(layout, "_settle", full)
        with pytest.raises(StoreError, match="quota exceeded: choose a place"):
            create(files, schema)
    assert creation.abandoned(files)

    create(files, schema)
    assert not creation.abandoned(files)
    assert open_store(files.url).schema == schema


def test_the_reason_of_an_error_is_one_line():
    """What the system says, without its number; or the text of another error."""
    assert said(OSError(28, "No space\n left")) == "No space left"
    assert said(ValueError("a\n b")) == "a b"
    assert said(OSError("odd")) == "odd"


# the image table


def test_columns_are_replaced_and_added(files, path, table):
    """A column may change its values and its type in any direction; others stay."""
    kinds = {
        "text": ["x"] * 70,
        "whole": np.arange(70),
        "real": np.linspace(0, 1, 70),
        "flag": np.arange(70) % 2 == 0,
        "date": pd.to_datetime(["2020-02-29", None] * 35),
    }
    for name in (*kinds, *reversed(kinds), "text"):
        changed = table.assign(label=kinds[name], note=["new"] * 70)
        layout.write_columns(files, to_dataset(changed))
        arrays.consolidate(files)

        found = open_store(path).images

        np.testing.assert_array_equal(found["label"], to_dataset(changed)["label"])
        assert xr.open_zarr(path)["label"].dtype.kind == np.asarray(
            kinds[name]
        ).dtype.kind.replace("U", "T")
        assert set(found["note"]) == {"new"}
        assert found["uri"].tolist() == table["uri"].tolist()


def test_the_ids_are_never_lost(files, table_of, dying):
    """Wherever the writing of columns is killed, every id is there in its row."""
    after, done = 0, ["killed"]
    while done[-1:] == ["killed"]:
        with dying(after) as done:
            layout.write_columns(files, to_dataset(table_of(75)))
        after += 1
        ids = arrays.read_text(files, "image", rows=slice(70))
        assert ids == [f"a/{i}.jpg" for i in range(70)]

    assert after > 8
    assert len(arrays.read_text(files, "image")) == 75


# metadata


def test_the_schema_comes_back_as_it_was(files, schema, one, other):
    """Attributes are the schema in JSON and nothing is lost in them."""
    assert layout.read_schema(files) == schema
    both = replace(schema, passes=(one, other))
    layout.add_passes(files, both)
    assert layout.read_schema(files) == both


def test_what_is_no_store_is_named(tmp_path):
    """Nothing and a foreign Zarr group each get their own words."""
    zarr.create_group(tmp_path / "foreign.zarr")

    with pytest.raises(StoreError, match=r"no store at .*: nothing is there"):
        layout.read_schema(files_at(tmp_path / "nothing"))
    with pytest.raises(StoreError, match="is a Zarr group but no embedkit store: open"):
        layout.read_schema(files_at(tmp_path / "foreign.zarr"))


def test_broken_metadata_are_corruption(files, path):
    """The message has the place and what is wrong with it."""
    kept = arrays.attributes(files)["embedkit"]

    arrays.set_attributes(files, {"embedkit": kept | {"format": 1}})
    with pytest.raises(CorruptStore, match=rf"{path}: the store has format 1 and this"):
        layout.read_schema(files)
    arrays.set_attributes(files, {"embedkit": {"format": 2}})
    with pytest.raises(CorruptStore, match="metadata lack 'passes'"):
        layout.read_schema(files)
