"""A store that grows: more images, more passes, and deaths on the way."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from embedkit.files.files import files_at
from embedkit.store import arrays, blocks, layout
from embedkit.store.commits import compact, withdraw
from embedkit.store.schema import StoreSchema
from embedkit.store.store import open_store


@pytest.fixture
def grown(one):
    """The same pass over seventy-five images."""
    return StoreSchema(n_images=75, passes=(one,))


@pytest.fixture
def both(schema, one, other):
    """Two networks over the seventy images."""
    return replace(schema, passes=(one, other))


def _ids(n):
    return [f"a/{i}.jpg" for i in range(n)]


def test_a_grown_store_keeps_its_rows_and_waits_for_the_new(
    files, path, fill, grow, grown, values
):
    """Old rows are as they were, bit by bit; new ones are pending, with their columns."""
    fill()

    grow(files, grown)
    store = open_store(path)

    assert (len(store.images), store.blocks, store.complete) == (75, (2, 3), False)
    x = store["conv"]
    np.testing.assert_array_equal(x.values[:70], values["conv"])
    assert np.isnan(x.values[70:]).all()
    assert x["status"].values[[0, 63, 64, 74]].tolist() == [
        *("ok", "ok", "pending", "pending"),
    ]
    assert store.images["uri"].tolist() == [f"/photos/{i}.jpg" for i in range(75)]
    assert store.locate(["a/74.jpg", "a/0.jpg"]).tolist() == [74, 0]
    assert xr.open_datatree(path)["layers/conv/activation"].shape[0] == 75


def test_the_block_that_grew_is_written_anew(
    files, path, fill, grow, grown, one, write_blocks, values_of
):
    """After it, the store is complete and every byte is vouched for."""
    fill()
    grow(files, grown)

    write_blocks(files, grown, one, [2])
    store = open_store(path)

    assert store.complete
    assert store.verify().ok
    np.testing.assert_array_equal(store["conv"], values_of(one, 75)["conv"])


def test_many_more_images_come_in_new_blocks(files, path, fill, grow, one):
    """Blocks that were full stay committed, gathered or not."""
    fill()
    compact(files, one, open_store(path).commits(one))
    grow(files, StoreSchema(n_images=200, passes=(one,)))

    assert list(open_store(path).commits(one)) == [0, 1]
    assert open_store(path).verify().ok
    assert open_store(path).verify().pending == 5


def test_growing_a_finished_store(files, path, fill, grow, grown, one, write_blocks):
    """Its status is withdrawn first, and written again at the end."""
    fill()
    open_store(path).finish()

    open_store(path).reopen()
    grow(files, grown)
    assert set(open_store(path).images["status"][64:]) == {"pending"}
    write_blocks(files, grown, one, [2])
    open_store(path).finish()

    assert open_store(path).finished
    assert set(xr.open_zarr(path)["status"].values.tolist()) == {"ok"}


def _check_seventy(path, values):
    """Check that readers of a half-grown store see it as it was before."""
    store = open_store(path)
    assert store.schema.n_images == 70
    for name in store:
        np.testing.assert_array_equal(store[name].values, values[name])
    images = store.images
    assert images.index.tolist() == _ids(70)
    assert images["uri"].tolist() == [f"/photos/{i}.jpg" for i in range(70)]
    assert images["label"].tolist() == ["cat", "dog"] * 35
    assert images["size"].tolist()[1:] == list(range(1, 70))
    assert images["taken"].notna().all()
    assert set(images["status"]) == {"ok"}
    assert store.locate(_ids(70)).tolist() == list(range(70))
    assert store.verify().ok


@pytest.mark.slow
def test_growing_may_die_at_any_write(
    files, path, fill, grow, grown, values, dying, tmp_path
):
    """Until its last write, readers see the old rows; doing it again finishes it."""
    fill()
    after, done = 0, ["killed"]
    while done[-1:] == ["killed"]:
        copy = tmp_path / f"copy{after}.zarr"
        shutil.copytree(path, copy)
        with dying(after) as done:
            grow(files_at(copy), grown)
        if done[-1:] == ["killed"]:
            _check_seventy(copy, values)
            tree = xr.open_datatree(copy)
            assert tree.sizes["image"] in (70, 75)
            grow(files_at(copy), grown)
        store = open_store(copy)
        assert store.images.index.tolist() == _ids(75)
        assert store["conv"].shape[0] == xr.open_datatree(copy).sizes["image"] == 75
        assert store.locate(_ids(75)).tolist() == list(range(75))
        shutil.rmtree(copy)
        after += 1

    assert after > 20


def test_a_second_network_stands_behind_its_name(
    files, path, fill, both, other, write_blocks, values, values_of
):
    """Layers of both are there, each with its own blocks, status and aliases."""
    fill()

    layout.add_passes(files, both)
    before = open_store(path)
    status = before["resnet18/layer4"]["status"].values
    write_blocks(files, both, other)
    store = open_store(path)

    assert set(status.tolist()) == {"pending"}
    assert set(before["conv"]["status"].values.tolist()) == {"ok"}
    assert list(store) == ["stage1.relu", "conv", "resnet18/layer4"]
    assert (store.complete, store.blocks) == (True, (8, 8))
    x = store["resnet18/stage4"]
    assert (x.name, x.dtype, x.attrs["network"]) == (
        *("resnet18/layer4", np.float16, "resnet18"),
    )
    np.testing.assert_array_equal(x, values_of(other, 70)["resnet18/layer4"])
    np.testing.assert_array_equal(store["conv"], values["conv"])
    assert store.layers["network"].tolist() == ["tiny", "tiny", "resnet18"]
    assert store.verify().ok
    tree = xr.open_datatree(path)
    assert tree["layers/resnet18/layer4/activation"].shape == (70, 5)
    group = xr.open_zarr(path, group="layers/resnet18/layer4")
    np.testing.assert_array_equal(group["activation"], x)


def test_failures_of_one_network_do_not_spoil_the_other(
    files, path, fill, both, other, write_blocks
):
    """Each layer has the status of its own pass; the table that of both."""
    fill(failures={0: {"a/1.jpg": "cut short"}})
    layout.add_passes(files, both)
    write_blocks(files, both, other, failures={4: {"a/65.jpg": "too small"}})

    def status(store):
        return {
            name: np.flatnonzero(store[name]["status"].values != "ok").tolist()
            for name in ("conv", "resnet18/layer4")
        }

    store = open_store(path)
    before = status(store)
    images = store.images
    store.finish()

    assert before == status(open_store(path)) == {"conv": [1], "resnet18/layer4": [65]}
    assert np.flatnonzero(images["status"] != "ok").tolist() == [1, 65]
    assert images["error"].iloc[[1, 65]].tolist() == ["cut short", "too small"]
    assert open_store(path).images.equals(images)
    assert xr.open_zarr(path)["error"].values[65] == "too small"


@pytest.mark.slow
def test_adding_a_pass_may_die_at_any_write(
    path, fill, both, schema, values, dying, tmp_path
):
    """Until its last write, the store is as it was; doing it again finishes it."""
    fill()
    after, done = 0, ["killed"]
    while done[-1:] == ["killed"]:
        copy = tmp_path / f"copy{after}.zarr"
        shutil.copytree(path, copy)
        with dying(after) as done:
            layout.add_passes(files_at(copy), both)
        if done[-1:] == ["killed"]:
            assert open_store(copy).schema == schema
            _check_seventy(copy, values)
            xr.open_datatree(copy)
            layout.add_passes(files_at(copy), both)
        assert open_store(copy).schema == both
        tree = xr.open_datatree(copy)
        assert tree["layers/resnet18/layer4/activation"].shape == (70, 5)
        shutil.rmtree(copy)
        after += 1

    assert after > 5


def test_a_pass_that_was_only_begun_does_not_hinder_growth(
    files, path, fill, grow, grown, other, dying, both
):
    """Layers that nobody asked for again would not grow: they are taken out."""
    fill()
    with dying(8) as done:
        layout.add_passes(files, both)
    assert done[-1] == "killed"
    assert "layers/resnet18/layer4/activation/zarr.json" in files.names()

    grow(files, grown)

    tree = xr.open_datatree(path)
    assert tree.sizes["image"] == 75
    assert "layers/resnet18/layer4/activation/zarr.json" not in files.names()
    layout.add_passes(files, replace(grown, passes=(*grown.passes, other)))
    assert open_store(path)["resnet18/layer4"].shape == (75, 5)


def test_both_networks_grow(files, path, fill, both, other, grow, write_blocks, one):
    """Every array of every pass gets the new rows."""
    fill()
    layout.add_passes(files, both)
    write_blocks(files, both, other)
    grown = replace(both, n_images=75)

    grow(files, grown)

    store = open_store(path)
    assert [store[name].shape[0] for name in store] == [75] * 3
    assert [len(store.commits(each)) for each in (one, other)] == [2, 4]
    for each in (one, other):
        content = arrays.read(files, blocks.content_array(each))
        assert content.shape == (75,)
        assert (content[70:] == 0).all()


def test_withdrawn_blocks_are_pending_and_can_be_written_again(
    files, path, fill, schema, one, write_blocks
):
    """A changed image costs its block, and nothing else."""
    fill()

    withdraw(files, one, schema.grid(one), [1])
    store = open_store(path)
    assert store["conv"]["status"].values[[31, 32, 63, 64]].tolist() == [
        *("ok", "pending", "pending", "ok"),
    ]
    assert store.verify().pending == 1
    write_blocks(files, schema, one, [1])

    assert open_store(path).complete
    assert open_store(path).verify().ok


@pytest.fixture
def saved(path, fill):
    """A store with a result of its images, one of some of them, and one of none."""
    fill()
    store = open_store(path)
    x = store["stage1"].compute()
    store.save("all", x.to_dataset(name="x"))
    store.save("some", x[::-2].to_dataset(name="x"))
    store.save("bare", xr.DataArray(np.arange(7), dims="image"))
    store.save("one", xr.DataArray(1.0))
    return store


def test_results_stay_with_the_images_they_are_of(saved, files, path, grow, grown):
    """Rows never move: a result of seventy images is that of the first seventy."""
    before = {name: saved.load(name).compute() for name in saved.results}

    grow(files, grown)
    store = open_store(path)
    tree = xr.open_datatree(path)

    assert store.results == ["all", "bare", "one", "some"]
    assert tree["results/all/x"].sizes == {"row": 70, "feature": 8}
    for name, then in before.items():
        now = store.load(name).compute()
        np.testing.assert_array_equal(now.to_array(), then.to_array())
        assert now.sizes == then.sizes
        assert now.attrs == then.attrs
        if "image" in then.coords:
            assert now["image"].values.tolist() == then["image"].values.tolist()
    assert store.load("all")["label"].values.tolist() == ["cat", "dog"] * 35
    store.save("all", store["stage1"].compute().to_dataset(name="x"))
    assert store.load("all")["image"].values[-1] == "a/74.jpg"
    assert xr.open_datatree(path)["results/all"].sizes["image"] == 75


def test_a_result_of_a_store_that_grew_meanwhile(saved, files, path, grow, grown):
    """Whoever opened it before saves and loads what belongs to the rows of then."""
    grow(files, grown)

    saved.save("late", xr.Dataset({"x": ("image", np.arange(70))}))
    store = open_store(path)
    store.save("new", xr.Dataset({"x": ("image", np.arange(75))}))

    assert xr.open_datatree(path)["results/late/x"].sizes == {"row": 70}
    assert store.load("late")["image"].values[-1] == "a/69.jpg"
    assert saved.load("late")["image"].values[-1] == "a/69.jpg"
    assert "image" not in saved.load("new").coords
    assert store.load("new")["image"].values[-1] == "a/74.jpg"


@pytest.mark.slow
def test_growing_beside_results_may_die_at_any_write(
    saved, path, grow, grown, dying, tmp_path
):
    """Results can be loaded at any moment, and the tree opens."""
    after, done = 0, ["killed"]
    while done[-1:] == ["killed"]:
        copy = tmp_path / f"copy{after}.zarr"
        shutil.copytree(path, copy)
        with dying(after) as done:
            grow(files_at(copy), grown)
        for _ in range(2):
            store = open_store(copy)
            for name in saved.results:
                now, then = store.load(name).compute(), saved.load(name).compute()
                np.testing.assert_array_equal(now.to_array(), then.to_array())
                if "image" in then.coords:
                    np.testing.assert_array_equal(now["image"], then["image"])
            xr.open_datatree(copy)
            grow(files_at(copy), grown)
        assert xr.open_datatree(copy).sizes["image"] == 75
        shutil.rmtree(copy)
        after += 1
