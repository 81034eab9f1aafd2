"""Writing Zarr: whole shards, whole stores."""

import os
import pickle
import stat
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import zarr

from embedkit.errors import CorruptStore, StoreError
from embedkit.store import arrays
from embedkit.store.table import to_dataset


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
    assert root.attrs["embedkit"]["identity"] == schema.identity


def test_a_block_is_one_file_an_array(path, fill):
    """Blocks never share a file, so that no two workers write the same one."""
    fill(path, [0, 2])

    shards = sorted((path / "layers/conv/activation/c").iterdir())

    assert [each.name for each in shards] == ["0", "2"]
    assert len([f for f in shards[0].rglob("*") if f.is_file()]) == 1


def test_written_blocks_read_back_bit_by_bit(path, fill, values):
    """What is written is what is read; what is not is NaN."""
    fill(path, [0, 2])

    stored = zarr.open_array(path, path="layers/conv/activation", mode="r")[:]

    np.testing.assert_array_equal(stored[:32], values["conv"][:32])
    np.testing.assert_array_equal(stored[64:], values["conv"][64:])
    assert np.isnan(stored[32:64]).all()


def test_a_block_of_zeros_is_stored(path, fill):
    """A dead ReLU is data: its file exists and reads as zeros, not as missing."""
    fill(path, [0])

    file = path / "layers/stage1.relu/activation/c/0/0"
    stored = zarr.open_array(path, path="layers/stage1.relu/activation", mode="r")

    assert file.is_file()
    assert (stored[:32] == 0).all()


def test_shards_reach_the_disk_before_the_block_is_done(
    path, schema, values, monkeypatch
):
    """Every shard of the block is synced by the time that its checksums are known."""
    synced = []
    monkeypatch.setattr(arrays, "_sync", synced.append)

    arrays.write_block(path, schema, 0, {n: each[:32] for n, each in values.items()})

    assert synced == [arrays.shard_path(path, spec, 0) for spec in schema.layers]
    assert all(file.is_file() for file in synced)


def test_checksums_are_those_of_the_bytes(path, schema, values):
    """The recorded CRC-32 is that of the rows in C order."""
    rows = {name: each[:32] for name, each in values.items()}

    checksums = arrays.write_block(path, schema, 0, rows)

    expected = {name: zlib.crc32(each.tobytes()) for name, each in rows.items()}
    assert checksums == expected


def test_the_same_block_twice_gives_the_same_bytes(path, schema, values):
    """Doing a block again changes nothing on disk."""
    rows = {name: each[:32] for name, each in values.items()}
    file = arrays.shard_path(path, schema.layers[1], 0)

    arrays.write_block(path, schema, 0, rows)
    first = file.read_bytes()
    arrays.write_block(path, schema, 0, rows)

    assert file.read_bytes() == first


@pytest.mark.parametrize("wrong", ["missing", "short", "flat"])
def test_a_block_of_another_shape_is_refused(path, schema, values, wrong):
    """A shard is written whole or not at all."""
    rows = {name: each[:32] for name, each in values.items()}
    if wrong == "missing":
        del rows["conv"]
    else:
        rows["conv"] = rows["conv"][:31] if wrong == "short" else rows["conv"][0]

    with pytest.raises(StoreError, match=r"block 0 of layer conv needs .*\(32, 2, 3"):
        arrays.write_block(path, schema, 0, rows)


def test_the_last_block_may_be_shorter(path, schema, values):
    """Seventy images in blocks of 32 end with a block of six."""
    rows = {name: each[64:] for name, each in values.items()}

    assert set(arrays.write_block(path, schema, 2, rows)) == set(rows)


def test_creating_where_something_is_leaves_it_alone(path, schema, table):
    """A store never replaces what is there, and leaves no temporary folder."""
    before = sorted(each.name for each in path.parent.iterdir())

    with pytest.raises(StoreError, match="cannot create a store at"):
        arrays.create(path, schema, to_dataset(table))

    assert sorted(each.name for each in path.parent.iterdir()) == before


_AS_NOBODY = """
import os, sys, pickle
from pathlib import Path
from embedkit.store import arrays
schema, table = pickle.loads(bytes.fromhex(sys.stdin.read()))
arrays.create(Path(sys.argv[2]), schema, table)  # every import done while still allowed
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
arrays.create(Path(sys.argv[1]), schema, table)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_a_read_only_place_is_one_clear_error(tmp_path, schema, table):
    """Without permission nothing is written, not even a parent folder."""
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(stat.S_IRUSR | stat.S_IXUSR | stat.S_IROTH | stat.S_IXOTH)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
    payload = pickle.dumps((schema, to_dataset(table))).hex()

    done = subprocess.run(
        [
            sys.executable,
            "-c",
            _AS_NOBODY,
            str(locked / "deep" / "photos.zarr"),
            str(tmp_path / "ok.zarr"),
        ],
        input=payload,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "StoreError: cannot create a store at" in done.stderr
    assert "Permission denied: choose a place that you can write to" in done.stderr
    assert list(locked.iterdir()) == []


def test_parents_made_for_a_failed_store_are_removed(
    tmp_path, schema, table, monkeypatch
):
    """When the disk fails half way, neither the store nor its new parents stay."""

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(arrays, "_write_template", full)

    with pytest.raises(StoreError, match="No space left on device"):
        arrays.create(tmp_path / "a" / "b" / "photos.zarr", schema, to_dataset(table))

    assert list(tmp_path.iterdir()) == []


def test_the_schema_comes_back_as_it_was(path, schema):
    """Attributes are the schema in JSON and nothing is lost in them."""
    assert arrays.read_schema(path) == schema


def test_what_is_no_store_is_named(tmp_path):
    """Nothing, a file, a folder and a foreign Zarr group each get their own words."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    zarr.create_group(tmp_path / "foreign.zarr")

    with pytest.raises(StoreError, match=r"no store at .*: nothing is there"):
        arrays.read_schema(tmp_path / "nothing")
    with pytest.raises(StoreError, match="is no embedkit store but a file"):
        arrays.read_schema(tmp_path / "file")
    with pytest.raises(StoreError, match="is no embedkit store but a folder"):
        arrays.read_schema(tmp_path / "folder")
    with pytest.raises(StoreError, match="is a Zarr group but no embedkit store"):
        arrays.read_schema(tmp_path / "foreign.zarr")


def test_broken_metadata_are_corruption(path):
    """Missing keys and unknown formats are told apart from other errors."""
    root = zarr.open_group(path, mode="r+")
    kept = dict(root.attrs["embedkit"])

    root.attrs["embedkit"] = {k: v for k, v in kept.items() if k != "block"}
    with pytest.raises(CorruptStore, match="metadata lack 'block'"):
        arrays.read_schema(path)
    root.attrs["embedkit"] = kept | {"format": 99}
    with pytest.raises(CorruptStore, match="has format 99 and this embedkit reads"):
        arrays.read_schema(path)
