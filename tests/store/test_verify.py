"""Proof of what a store holds."""

import contextlib
from dataclasses import replace

import dask
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st

from embedkit.files.files import files_at
from embedkit.store import arrays, blocks, layout
from embedkit.store import create as creation
from embedkit.store import verify as module
from embedkit.store.commits import compact, read_commits
from embedkit.store.schema import StoreSchema
from embedkit.store.store import open_store
from embedkit.store.table import to_dataset
from embedkit.store.verify import check_block

SHARD = "layers/conv/activation/c.1.0.0.0"


@contextlib.contextmanager
def _cluster():
    with (
        LocalCluster(
            processes=False,
            n_workers=1,
            threads_per_worker=2,
            dashboard_address=":0",
        ) as cluster,
        Client(cluster),
    ):
        yield


SCHEDULERS = {
    "synchronous": lambda: dask.config.set(scheduler="synchronous"),
    "threads": lambda: dask.config.set(scheduler="threads"),
    "distributed": _cluster,
}


@pytest.fixture
def both(files, schema, one, other, fill, write_blocks):
    """A store of two networks, complete."""
    fill()
    both = replace(schema, passes=(one, other))
    layout.add_passes(files, both)
    write_blocks(files, both, other)
    return both


def _told(found):
    """Return what was found as (layer, block, start, stop, problem)."""
    names = ["layer", "block", "start", "stop", "problem"]
    return sorted(found.damage[names].itertuples(index=False, name=None))


def _flip(path, at=10):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_store_as_it_was_written_is_fine(path, both, one):
    """Every committed block of both networks counts, with its bytes."""
    found = open_store(path).verify()

    assert found.ok
    assert (found.blocks, found.pending) == (8, 0)
    assert found.nbytes == 70 * (4 * (8 + 24) + 2 * 5)
    assert "8 blocks (0.0 MiB): all as written" in repr(found)
    assert found.damage.columns.tolist() == list(module._COLUMNS)


def test_blocks_that_are_not_written_are_no_damage(path, fill):
    """They are counted apart, whatever lies in their place."""
    fill([1])
    (path / "layers/conv/activation/c.0.0.0.0").write_bytes(b"odd")

    found = open_store(path).verify()

    assert found.ok
    assert (found.blocks, found.pending) == (1, 2)
    assert "2 not written yet" in repr(found)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_kind_of_damage_is_told_by_place(path, both, one, other, scheduler):
    """Layer, block, rows and problem; blocks that are as written are not named."""
    _flip(path / SHARD)
    (path / "layers/stage1.relu/activation/c.2.0").unlink()
    (path / "layers/resnet18/layer4/activation/c.4.0").write_bytes(b"")
    _flip(path / f"_embedkit/content/{other.key}/c.0", at=-1)
    array = zarr.open_array(path, path="layers/conv/activation", mode="r+")
    array[:32] = array[:32] + 1

    with SCHEDULERS[scheduler]():
        found = open_store(path).verify()

    told = {each[:4]: each[4] for each in _told(found)}
    assert set(told) == {
        ("conv", 0, 0, 32),
        ("conv", 1, 32, 64),
        ("stage1.relu", 2, 64, 70),
        ("resnet18/layer4", 4, 64, 70),
        ("content", 0, 0, 16),
    }
    assert told["stage1.relu", 2, 64, 70] == "missing"
    assert told["conv", 0, 0, 32] == "changed: its checksum is another"
    assert told["resnet18/layer4", 4, 64, 70] != ""
    by_layer = found.damage.set_index(["layer", "block"])
    assert by_layer.loc[("content", 0), "network"] == "resnet18"
    assert by_layer.loc[("content", 0), "pass"] == other.key
    assert by_layer.loc[("conv", 0), "pass"] == one.key
    assert not found.ok
    assert "5 damaged" in repr(found)


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.5, 0.9, 0.999])
def test_a_shard_that_was_cut_short_is_found(path, fill, share):
    """Wherever a file ends, from its first byte to its last but one."""
    fill()
    data = (path / SHARD).read_bytes()
    (path / SHARD).write_bytes(data[: min(len(data) - 1, int(share * len(data)))])

    found = open_store(path).verify()

    ((layer, block, start, stop, problem),) = _told(found)
    assert (layer, block, start, stop) == ("conv", 1, 32, 64)
    assert problem.startswith(("unreadable (", "changed"))


def test_a_shard_that_is_too_long_or_from_elsewhere_is_found(path, fill):
    """Bytes behind the end, and the whole shard of another block."""
    fill()
    data = (path / SHARD).read_bytes()
    for odd in (
        data + b"\0",
        data + data[:50],
        (path / SHARD).with_name("c.0.0.0.0").read_bytes(),
    ):
        (path / SHARD).write_bytes(odd)
        assert [each[:2] for each in _told(open_store(path).verify())] == [("conv", 1)]


def test_two_shards_that_changed_places_are_found(path, fill):
    """Each is whole, but its numbers are those of other images."""
    fill()
    first, second = path / SHARD, (path / SHARD).with_name("c.0.0.0.0")
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)

    found = _told(open_store(path).verify())

    assert [each[:2] for each in found] == [("conv", 0), ("conv", 1)]


def test_other_ids_are_found(path, files, fill, table):
    """A block vouches for the images it was computed from, in their order."""
    fill()
    ids = table.index.tolist()
    ids[40], ids[41] = ids[41], ids[40]
    layout.write_columns(files, to_dataset(table.set_axis(ids)))

    assert _told(open_store(path).verify()) == [
        ("image", 1, 32, 64, "changed: other images stand there")
    ]


@pytest.mark.parametrize("how", ["cut", "gone"])
def test_ids_that_cannot_be_read_are_found(path, fill, how):
    """All blocks whose ids lay there are told."""
    fill()
    chunk = path / "image/c.0"
    if how == "cut":
        chunk.write_bytes(chunk.read_bytes()[:20])
    else:
        chunk.unlink()

    found = _told(open_store(path).verify())

    assert [each[:2] for each in found] == [("image", 0), ("image", 1), ("image", 2)]


def test_a_record_of_another_store_does_not_vouch(path, files, fill, one, schema):
    """A copied record has another identity and does not count; its block is pending."""
    fill()
    grid = schema.grid(one)
    commits = read_commits(files, one, grid)
    compact(files, one, commits | {1: replace(commits[1], identity="f" * 64)})

    found = open_store(path).verify()

    assert (found.ok, found.blocks, found.pending) == (True, 2, 1)


def test_a_stale_record_is_found(path, files, fill, one, schema):
    """A record of an earlier computation, or one that lacks a layer, has other sums."""
    fill()
    commits = read_commits(files, one, schema.grid(one))
    sums = dict(commits[2].crc32)
    del sums["conv"]
    compact(files, one, commits | {2: replace(commits[2], crc32=sums)})

    found = _told(open_store(path).verify())

    assert found == [("conv", 2, 64, 70, "changed: its checksum is another")]


def test_many_blocks_are_checked_in_windows(path, fill, monkeypatch):
    """More blocks than one graph holds: none is left out."""
    fill()
    monkeypatch.setattr(module, "_WINDOW", 2)
    (path / "layers/conv/activation/c.2.0.0.0").unlink()

    found = open_store(path).verify()

    assert found.blocks == 3
    assert [each[1] for each in _told(found)] == [2]


def test_what_a_repair_adds_is_shown(path, fill):
    """Rows that were computed again, and blocks that were repaired."""
    fill()
    found = replace(open_store(path).verify(), sampled=3, max_error=1e-6, repaired=2)

    assert "3 rows computed again, largest relative difference 1.0e-06" in repr(found)
    assert "2 repaired" in repr(found)


# every byte of a shard


@pytest.fixture(scope="module")
def shard(tmp_path_factory, one, write_blocks, table_of):
    """A complete store, a shard of it with its bytes, and what checks its block."""
    files = files_at(tmp_path_factory.mktemp("verify") / "s.zarr")
    schema, rows = StoreSchema(n_images=70, passes=(one,)), np.arange(70)
    creation.create(files, schema, to_dataset(table_of(70)), sizes=rows, mtimes=rows)
    write_blocks(files, schema, one, [2])
    record = read_commits(files, one, schema.grid(one))[2].to_json()
    name = blocks.shard(blocks.activation(one.layers[1]), 2, 3)
    return files, name, files.read(name), record


def _changed(shard, data, values):
    """Whether other bytes are detected; asserts that undetected ones change nothing."""
    files, name, original, record = shard
    files.write(name, data)
    try:
        found = check_block(files.url, record)
        if not found:
            read = arrays.read(files, "layers/conv/activation", rows=slice(64, 70))
            np.testing.assert_array_equal(read, values["conv"][64:])
    finally:
        files.write(name, original)
    assert all(each["layer"] == "conv" for each in found)
    return bool(found)


@given(data=st.data(), mask=st.integers(1, 255))
def test_a_changed_byte_is_found_or_changes_nothing(shard, values_of, one, data, mask):
    """Wherever it lies, and whatever its bits."""
    changed = bytearray(shard[2])
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= mask

    _changed(shard, bytes(changed), values_of(one, 70))


@given(data=st.data())
def test_a_block_of_other_bytes_is_found_or_changes_nothing(
    shard, values_of, one, data
):
    """A sector of the disk that went bad, or was never written."""
    changed = bytearray(shard[2])
    start = data.draw(st.integers(0, len(changed) - 1))
    noise = data.draw(st.binary(min_size=1, max_size=512))
    changed[start : start + len(noise)] = noise

    _changed(shard, bytes(changed), values_of(one, 70))


@pytest.mark.slow
def test_every_byte_of_a_shard_matters_or_does_not(shard, values_of, one):
    """Each in turn, one bit and all bits: nearly all are found, none is silent."""
    values = values_of(one, 70)
    found = 0
    for at in range(len(shard[2])):
        for mask in (1 << at % 8, 0xFF):
            changed = bytearray(shard[2])
            changed[at] ^= mask
            found += _changed(shard, bytes(changed), values)

    assert found > 1.9 * len(shard[2])
