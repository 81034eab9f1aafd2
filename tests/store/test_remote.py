"""The whole life of a small store, in a folder, in memory and in an object store."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from embedkit.errors import CorruptStore, NotInStore, StoreError
from embedkit.files.files import files_at
from embedkit.store import arrays, attempts, layout
from embedkit.store.commits import compact, read_commit, withdraw
from embedkit.store.lock import holder, locked
from embedkit.store.manifest import seal, sealed, unseal
from embedkit.store.schema import StoreSchema
from embedkit.store.store import open_store


@pytest.fixture
def alive(place, create, schema):
    """An empty store in each kind of place."""
    return create(place, schema)


@pytest.mark.slow
def test_a_store_lives_the_same_everywhere(
    alive, schema, one, other, write_blocks, grow, values_of
):
    """Written, read, extended twice, checked, tidied and checked again."""
    write_blocks(alive, schema, one, [0, 1])
    store = open_store(alive.url)
    assert (store.blocks, store.finished) == ((2, 3), False)
    write_blocks(alive, schema, one, [2], failures={2: {"a/66.jpg": "cut short"}})
    store = open_store(alive.url)
    np.testing.assert_array_equal(store["conv"], values_of(one, 70)["conv"])
    assert store["conv"]["status"].values[66] == "unreadable"
    store.finish()

    result = store["conv"].mean(["channel", "y", "x"]).to_dataset(name="mean")
    store.save("means/conv", result.assign_attrs(k=3))
    assert store.load("means/conv")["label"].values[1] == "dog"
    mean = store.load("means/conv")["mean"].values

    store.reopen()
    grown = StoreSchema(n_images=75, passes=(one,))
    grow(alive, grown)
    write_blocks(alive, grown, one, [2])
    both = replace(grown, passes=(one, other))
    layout.add_passes(alive, both)
    write_blocks(alive, both, other)

    store = open_store(alive.url)
    assert (store.complete, store.blocks) == (True, (8, 8))
    for each in (one, other):
        for spec in each.layers:
            expected = values_of(each, 75)[spec.name]
            np.testing.assert_array_equal(store[spec.name], expected)
            assert store[spec.name]["image"].values[74] == "a/74.jpg"
    np.testing.assert_array_equal(store.load("means/conv")["mean"], mean)
    for each in (one, other):
        compact(alive, each, store.commits(each))
    store.finish()
    assert store.finished
    assert store.verify().ok
    assert store.locate(["a/74.jpg", "a/0.jpg"]).tolist() == [74, 0]
    tree = store.tree()
    assert tree.sizes["image"] == 75
    assert tree["layers/resnet18/layer4/activation"].shape == (75, 5)
    assert set(tree["status"].values.tolist()) == {"ok"}
    assert not any(name.startswith("/_") for name in tree.groups)
    assert alive.names("_embedkit/commits") == sorted(
        f"{each.key}.jsonl" for each in (one, other)
    )


def test_damage_is_found_everywhere(alive, schema, one, write_blocks):
    """A changed byte, a short, an empty and a missing file."""
    write_blocks(alive, schema, one)
    folder = "layers/conv/activation"
    data = bytearray(alive.read(f"{folder}/c.0.0.0.0"))
    data[20] ^= 255
    alive.write(f"{folder}/c.0.0.0.0", bytes(data))
    alive.write(f"{folder}/c.1.0.0.0", bytes(data[:100]))
    alive.write(f"{folder}/c.2.0.0.0", b"")
    alive.delete("layers/stage1.relu/activation/c.1.0")

    found = open_store(alive.url).verify()

    told = set(zip(found.damage["layer"], found.damage["block"], strict=True))
    assert told == {("conv", 0), ("conv", 1), ("conv", 2), ("stage1.relu", 1)}
    with pytest.raises(
        CorruptStore, match=r"layer stage1.relu of .* has lost the files"
    ):
        open_store(alive.url)["stage1"]


def test_blocks_are_withdrawn_everywhere(alive, schema, one, write_blocks):
    """A record that is gone makes its block pending, fresh or gathered."""
    write_blocks(alive, schema, one)
    grid = schema.grid(one)
    compact(alive, one, open_store(alive.url).commits(one))
    assert read_commit(alive, one, grid, 1) is None  # no fresh one

    withdraw(alive, one, grid, [1])

    store = open_store(alive.url)
    assert list(store.commits(one)) == [0, 2]
    assert store["conv"]["status"].values[[0, 40]].tolist() == ["ok", "pending"]


def test_the_lock_excludes_everywhere(alive):
    """One holder at a time, and none when it is let go."""
    with locked(alive) as lock:
        assert holder(alive) == lock.token
        with pytest.raises(StoreError, match="is being written by process"):
            locked(alive).__enter__()

    assert holder(alive) is None
    assert "_embedkit/lock.json" not in alive.names()


def test_marks_and_seals_everywhere(alive, one):
    """Deaths are counted, and what the store was brought in line with is remembered."""
    attempts.begin(alive, one, 3)
    attempts.end(alive, attempts.begin(alive, one, 4))
    seal(alive, "abc")

    assert attempts.deaths(alive, one) == {3: 1}
    assert attempts.deaths_in(alive, one, 3)[0].startswith("process ")
    assert sealed(alive) == "abc"
    attempts.forget(alive, one)
    unseal(alive)
    assert (attempts.deaths(alive, one), sealed(alive)) == ({}, None)


@pytest.mark.slow
def test_results_everywhere(alive, schema, one, write_blocks):
    """Saved, replaced, listed, and none of an unknown name."""
    write_blocks(alive, schema, one)
    store = open_store(alive.url)

    store.save("a/b", xr.DataArray([1.0, 2.0, 3.0], dims="k"))
    store.save("a/b", xr.DataArray(["x", "y"], dims="k"))
    store.save("c", store["stage1"].compute()[::-1].to_dataset(name="x"))

    assert store.results == ["a/b", "c"]
    assert store.load("a/b")["value"].values.tolist() == ["x", "y"]
    assert store.load("c")["image"].values[0] == "a/69.jpg"
    assert store.tree()["results/a/b"].sizes["k"] == 2
    with pytest.raises(NotInStore, match="Did you mean 'a/b'"):
        store.load("a/x")


def test_columns_everywhere(alive, schema, table):
    """Ids by row, and a column that changes from numbers to text."""
    assert arrays.read_text(alive, "image", rows=np.array([0, 69])) == [
        *("a/0.jpg", "a/69.jpg"),
    ]
    assert open_store(alive.url).images["uri"].tolist() == table["uri"].tolist()
    assert open_store(alive.url).schema == schema


def test_info_counts_bytes_everywhere(alive, schema, one, write_blocks):
    """What is stored, and what it would be uncompressed."""
    write_blocks(alive, schema, one, [0])

    info = open_store(alive.url).info()

    assert info["path"] == alive.url
    assert info["nbytes"] == 70 * 4 * (8 + 24)
    assert info["nbytes_stored"] == alive.nbytes() > 3000


def test_creating_twice(alive, create, schema):
    """In a folder the second is refused; in an object store it is the same again."""
    if isinstance(alive.for_zarr(), str):
        with pytest.raises(StoreError, match="cannot create a store at"):
            create(alive, schema)
    else:
        create(alive, schema)
    assert open_store(alive.url).schema == schema
    assert files_at(alive.url) == alive
