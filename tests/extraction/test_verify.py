"""Stores checked through the network, and repaired."""

import os

import numpy as np
import pytest
import zarr
from PIL import Image

import embedkit as ek
from embedkit.errors import (
    CorruptStore,
    IdentityMismatch,
    IncompleteStore,
    InputError,
    StoreError,
)
from embedkit.extraction import run
from embedkit.store.lock import locked


@pytest.fixture
def store(photos, network, tmp_path):
    """A complete store of two blocks, one image of it unreadable."""
    return ek.extract(photos, network, tmp_path / "s.zarr", layers="all")


def _bytes(store):
    return {layer: store[layer].values.tobytes() for layer in store}


def _shard(store, layer, block):
    (file,) = (store.path / "layers" / layer / "activation").glob(f"c.{block}.*")
    return file


def _damages(found):
    return sorted(found.damage[["layer", "block"]].itertuples(index=False, name=None))


def test_an_undamaged_store_is_as_written(store, network):
    """Every block, and rows computed again have the very same bits."""
    found = ek.verify(store, network=network, sample=10)

    assert found.ok
    assert (found.blocks, found.pending, found.sampled) == (2, 0, 10)
    assert found.max_error == 0.0
    assert "all as written" in repr(found)
    assert "10 rows computed again" in repr(found)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "missing"])
def test_a_damaged_block_is_found_and_redone_alone(damage, store, network, monkeypatch):
    """Whatever happened to the file, repairing gives the bytes that were there."""
    before = _bytes(store)
    file = _shard(store, "conv2", 1)
    data = file.read_bytes()
    match damage:
        case "flip":
            file.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
        case "cut":
            file.write_bytes(data[:-9])
        case "empty":
            file.write_bytes(b"")
        case "missing":
            file.unlink()
    found = ek.verify(store)
    redone = []
    true_run = run.run_blocks
    monkeypatch.setattr(
        run,
        "run_blocks",
        lambda turns: true_run(iter([*(redone.append(t.block) or t for t in turns)])),
    )

    repaired = ek.verify(store.path, network=network, repair=True)

    assert _damages(found) == [("conv2", 1)]
    assert redone == [1]
    assert repaired.ok
    assert repaired.repaired == 1
    assert "1 repaired" in repr(repaired)
    after = ek.open_store(store.path)
    assert _bytes(after) == before
    assert after.finished


def test_a_number_that_was_forged_with_its_record_is_found_by_recomputing(
    store, network
):
    """A row that has other values than the network gives, although its checksum agrees."""
    array = zarr.open_array(store.path, path="layers/fc/activation", mode="r+")
    values = array[:]
    values[3] += 1e-2 * np.abs(values[3]).max()
    array[:] = values
    text = (store.path / "_embedkit" / "commits").glob("*.jsonl")
    crc = _true_checksums(store)
    for file in text:
        file.write_text(_with_checksums(file.read_text(), crc))

    plain = ek.verify(store)
    found = ek.verify(store, network=network, sample=40)

    assert plain.ok
    assert [
        (layer, start) for layer, start in found.damage[["layer", "start"]].values
    ] == [("fc", 3)]
    assert found.max_error == pytest.approx(1e-2, rel=0.2)
    assert "differs by 1.0e-02" in found.damage["problem"].iloc[0] or found.max_error


def _true_checksums(store):
    import zlib

    values = store["fc"].values
    return [
        zlib.crc32(np.ascontiguousarray(part)) for part in (values[:32], values[32:])
    ]


def _with_checksums(text, crc):
    import json

    records = [json.loads(line) for line in text.splitlines()]
    for record in records:
        record["crc32"]["fc"] = crc[record["block"]]
    return "\n".join(json.dumps(record) for record in records) + "\n"


def test_a_changed_file_is_told_from_a_wrong_number(store, network, photos):
    """A row cannot be checked against an image that is not the same any more."""
    Image.new("RGB", (9, 9)).save(photos / "cat" / "04.png")

    found = ek.verify(store, network=network, sample=40)

    row = int(store.locate("cat/04.png")[0])
    assert found.damage[["layer", "start"]].values.tolist() == [["content", row]]
    assert "has changed" in found.damage["problem"].iloc[0]


def test_named_networks_are_loaded_again(photos, tmp_path):
    """A store of a network that embedkit can load needs no help."""
    store = ek.extract(photos, "embedkit/digits", tmp_path / "s.zarr", layers="last")
    before = _bytes(store)
    _shard(store, next(iter(store)), 0).unlink()

    found = ek.verify(tmp_path / "s.zarr", repair=True, sample=5)

    assert found.ok
    assert (found.repaired, found.sampled, found.max_error) == (1, 5, 0.0)
    assert _bytes(ek.open_store(tmp_path / "s.zarr")) == before


def test_a_module_of_ones_own_has_to_be_given(store):
    """Its code is not in the store."""
    with pytest.raises(InputError, match=r"'Tiny' .* was a module of yours"):
        ek.verify(store, sample=1)


def test_another_network_cannot_vouch(store):
    """What it computes says nothing about what is stored."""
    with pytest.raises(
        IdentityMismatch, match="give the network that it was made with"
    ):
        ek.verify(store, network="embedkit/digits", sample=1)


def test_pixels_that_were_in_memory_have_to_be_given(network, tmp_path):
    """A store does not hold its images."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 12, 12, 3), np.uint8)
    store = ek.extract(pixels, network, tmp_path / "s.zarr", layers="last")

    with pytest.raises(InputError, match="made from an array"):
        ek.verify(store, network=network, sample=3)
    found = ek.verify(store, network=network, sample=3, images=ek.open_images(pixels))

    assert (found.ok, found.sampled) == (True, 3)


def test_both_networks_of_a_store_are_checked(store, photos, network):
    """One may be given; the other is loaded by its name."""
    both = ek.extract(
        photos, "embedkit/digits", store.path, layers="last", add_network=True
    )
    _shard(both, "embedkit/digits/fc", 0).unlink()
    _shard(both, "fc", 1).unlink()

    found = ek.verify(both, network=network, repair=True, sample=4)

    assert found.ok
    assert (found.repaired, found.sampled) == (2, 8)


def test_a_store_whose_ids_are_damaged_cannot_be_repaired(store, network):
    """Nothing says which rows are whose."""
    array = zarr.open_array(store.path, path="image", mode="r+")
    array[5] = "someone/else.png"

    assert _damages(store.verify()) == [("image", 0)]
    with pytest.raises(CorruptStore, match="which rows are whose"):
        ek.verify(store, network=network, repair=True)


def test_a_repair_without_the_images_is_refused_and_changes_nothing(
    store, photos, network, tmp_path
):
    """Good rows of the block would become NaN, in the undamaged layers too."""
    before = {layer: store[layer].values.tobytes() for layer in store}
    _shard(store, "fc", 1).unlink()
    away = (photos / "dog").rename(tmp_path / "away")

    with pytest.raises(StoreError, match=r"images of its damaged blocks are gone"):
        ek.verify(store, network=network, repair=True)

    assert _damages(ek.verify(store)) == [("fc", 1)]
    away.rename(photos / "dog")
    assert ek.verify(store, network=network, repair=True).ok
    assert _bytes(ek.open_store(store.path)) == before


def test_damage_of_a_whole_shard_is_repaired_too(network, tmp_path):
    """Zarr reads the shard that it replaces, even where all of it is replaced."""
    pixels = np.random.default_rng(0).integers(0, 256, (96, 12, 12, 3), np.uint8)
    store = ek.extract(pixels, network, tmp_path / "s.zarr", layers="all")
    before = _bytes(store)
    for layer, block in (("fc", 0), ("conv1", 1)):
        file = _shard(store, layer, block)
        file.write_bytes(file.read_bytes()[:100])

    found = ek.verify(
        store, network=network, images=ek.open_images(pixels), repair=True
    )

    assert (found.ok, found.repaired) == (True, 2)
    assert _bytes(ek.open_store(store.path)) == before


def test_hashes_of_images_are_repaired_like_layers(store, network):
    """The array that tells changed images apart is one of the block's."""
    before = _bytes(store)
    (one,) = store.schema.passes
    file = store.path / "_embedkit" / "content" / one.key / "c.0"
    data = file.read_bytes()
    file.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])

    found = ek.verify(store, network=network, repair=True)

    assert (found.ok, found.repaired) == (True, 1)
    assert _bytes(ek.open_store(store.path)) == before


def test_rows_whose_images_are_all_away_are_findings(store, network, photos):
    """A folder that has moved is no crash."""
    photos.rename(photos.with_name("elsewhere"))

    found = ek.verify(store, network=network, sample=5)

    assert len(found.damage) == 5
    assert set(found.damage["problem"]) == {"its image file has changed"}


def test_a_store_in_use_is_not_repaired(store, network):
    """Two writers would undo each other's work."""
    _shard(store, "fc", 1).unlink()

    with (
        locked(store.files),
        pytest.raises(StoreError, match=f"by process {os.getpid()}"),
    ):
        ek.verify(store, network=network, repair=True)


def test_missing_blocks_are_no_damage(store, network):
    """They are counted, and reading a committed block whose file is gone is refused."""
    (one,) = store.schema.passes
    from embedkit.store.commits import withdraw

    withdraw(store.files, one, store.schema.grid(one), [0])

    found = ek.verify(store)

    assert found.ok
    assert (found.blocks, found.pending) == (1, 1)
    assert "1 not written yet" in repr(found)
    _shard(store, "fc", 1).unlink()
    store.reopen()
    with pytest.raises(CorruptStore, match="embedkit verify --repair"):
        _ = ek.open_store(store.path)["fc"]


def test_incomplete_is_an_error_of_a_repair(store, network, monkeypatch):
    """A block that cannot be computed any more ends the repair with its reason."""
    _shard(store, "fc", 1).unlink()

    def broken(self, image):
        raise ZeroDivisionError("broken by hand")

    monkeypatch.setattr(type(network), "prepare", broken)

    with pytest.raises(IncompleteStore, match="ZeroDivisionError: broken by hand"):
        ek.verify(store, network=network, repair=True)
