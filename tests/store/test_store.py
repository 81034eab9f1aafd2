"""Reading a store back."""

import dask
import numpy as np
import pytest
import xarray as xr

from embedkit.errors import CorruptStore, InputError, NotInStore, StoreError
from embedkit.store import arrays, results
from embedkit.store.store import open_store


class _ComputedError(Exception):
    pass


def _no_compute(*_args, **_kwargs):
    raise _ComputedError


def test_a_layer_is_lazy_and_labelled(path, fill, values):
    """Opening computes nothing; values, labels and status are those written."""

    fill(path, [0, 1, 2], failures={1: {"a/40.jpg": "cut short"}})
    store = open_store(path)

    with dask.config.set(scheduler=_no_compute):
        x = store["conv"]

    assert x.dims == ("image", "channel", "y", "x")
    np.testing.assert_array_equal(x.values, values["conv"])
    assert x["label"].values[:2].tolist() == ["cat", "dog"]
    assert x["status"].values[40] == "unreadable"
    assert x["error"].values[40] == "cut short"
    assert x.attrs["network"] == "tiny"


def test_a_store_is_a_mapping_in_network_order(path):
    """Names, aliases and length behave as those of a dict."""
    store = open_store(path)

    assert list(store) == ["stage1.relu", "conv"]
    assert len(store) == 2
    assert "stage1" in store
    assert "stage2" not in store
    assert store["stage1"].name == "stage1.relu"
    assert store.get("stage2") is None


def test_an_unknown_layer_is_answered_with_the_nearest(path):
    """The message has the asked name, the store and what is near."""
    with pytest.raises(NotInStore, match=r"no layer 'stage1.relo' in .*Did you mean"):
        open_store(path)["stage1.relo"]


def test_an_unfinished_store_reads_as_nan_and_pending(path, fill):
    """Committed blocks can be used; the others are NaN and say so."""
    fill(path, [1])
    store = open_store(path)

    x = store["stage1"]

    assert not store.complete
    assert np.isnan(x.values[:32]).all()
    assert not np.isnan(x.values[32:64]).any()
    assert x["status"].values[[0, 32, 69]].tolist() == ["pending", "ok", "pending"]
    assert "1 of 3 blocks written" in repr(store)


def test_chunks_are_whole_blocks(path, fill):
    """Reads follow the shards, not the small chunks inside them."""
    fill(path, [0, 1, 2])

    x = open_store(path)["conv"]

    assert all(rows % 32 == 0 for rows in x.chunksizes["image"][:-1])


def test_the_image_table_comes_back(path, fill, table):
    """All columns, the ids in manifest order, and how it went."""
    fill(path, [0, 1, 2])

    images = open_store(path).images

    assert images.index.tolist() == table.index.tolist()
    assert images["note"].tolist() == table["note"].fillna("").tolist()
    assert set(images["status"]) == {"ok"}


def test_info_adds_up(path, fill, values):
    """Bytes, blocks and seconds are sums over what is there."""
    fill(path, [0, 2], failures={0: {"a/1.jpg": "no image"}})

    info = open_store(path).info()

    assert info["nbytes"] == sum(each.nbytes for each in values.values())
    assert (info["blocks"], info["blocks_done"], info["complete"]) == (3, 2, False)
    assert info["unreadable"] == 1
    assert info["seconds"] == {"forward": 1.0, "total": 2.0}
    assert info["layers"]["conv"]["shape"] == [2, 3, 4]
    assert info["nbytes_stored"] > 1000


def test_finishing_writes_the_status_for_plain_xarray(path, fill):
    """Without embedkit, xarray reads the final status from the image table."""
    fill(path, [0, 1, 2], failures={0: {"a/1.jpg": "no image"}})
    before = xr.open_zarr(path)["status"].values[:2].tolist()

    open_store(path).finish()

    assert before == ["pending", "pending"]
    assert xr.open_zarr(path)["status"].values[:2].tolist() == ["ok", "unreadable"]
    assert xr.open_zarr(path)["error"].values[1] == "no image"


def test_a_layer_may_start_with_an_underscore(path):
    """Networks name layers like that, and results are named by layer."""
    store = open_store(path)

    store.save("neighbors/_fc", xr.DataArray(1.0))

    assert store.results == ["neighbors/_fc"]


def test_the_layers_table_and_repr_tell_sizes(path):
    """Shapes, types and bytes are listed by layer."""
    store = open_store(path)

    assert store.layers.loc["conv", "shape"] == (2, 3, 4)
    assert store.layers.loc["stage1.relu", "nbytes"] == 70 * 8 * 4
    assert "70 images, 2 layers" in repr(store)


def test_the_tree_is_plain_xarray(path, fill, values):
    """The whole store opens as a tree with the ids inherited."""
    fill(path, [0, 1, 2])

    tree = open_store(path).tree()

    node = tree["layers/conv"]
    np.testing.assert_array_equal(node["activation"].values, values["conv"])
    assert node["image"].values[0] == "a/0.jpg"


def test_a_result_is_kept_and_comes_back_labelled(path, fill):
    """Values and parameters survive; the table's columns are attached anew."""
    fill(path, [0, 1, 2])
    store = open_store(path)
    result = store["conv"].mean(["channel", "y", "x"]).to_dataset(name="mean")

    store.save("means/conv", result.assign_attrs(kind="mean", k=3))
    again = open_store(path).load("means/conv")

    np.testing.assert_array_equal(again["mean"].values, result["mean"].values)
    assert again.attrs == {"kind": "mean", "k": 3}
    assert again["label"].values[1] == "dog"
    assert store.results == ["means/conv"]


def test_saving_again_replaces(path):
    """The last result of a name is the one that is kept, whatever its shape."""
    store = open_store(path)

    store.save("score", xr.DataArray([1.0, 2.0], dims="layer", name="a"))
    store.save("score", xr.DataArray(3.0, attrs={"of": "all"}))
    again = store.load("score")

    assert list(again.data_vars) == ["value"]
    assert (float(again["value"]), again.attrs) == (3.0, {"of": "all"})
    assert not list(path.rglob("*.partial"))


def test_a_variable_named_like_a_column_is_not_lost(path):
    """A cluster's label stays beside the image's label, which is renamed."""
    store = open_store(path)
    clusters = xr.Dataset(
        {"label": ("image", np.arange(70))},
        coords={"image_label": ("image", store.images["label"].to_numpy(object))},
    )

    store.save("cluster/conv", clusters)
    again = store.load("cluster/conv")

    assert again["label"].values.tolist() == list(range(70))
    assert again["image_label"].values[:2].tolist() == ["cat", "dog"]


def test_saved_results_open_with_plain_xarray(path):
    """A result is an ordinary group."""
    store = open_store(path)

    store.save("probe/label", xr.Dataset({"accuracy": ("layer", [0.5, 0.7])}))

    plain = xr.open_zarr(path, group="results/probe/label")
    assert plain["accuracy"].values.tolist() == [0.5, 0.7]
    assert "results" in xr.open_datatree(path, engine="zarr").children


def test_a_result_in_another_order_keeps_its_own_ids(path, fill):
    """Rows that are not the store's rows are never given the store's ids."""
    fill(path, [0, 1, 2])
    store = open_store(path)
    x = store["stage1"].compute()
    backwards = x[::-1].to_dataset(name="x")
    some = x[:10].to_dataset(name="x")

    store.save("backwards", backwards)
    store.save("some", some)

    assert store.load("backwards")["image"].values[0] == "a/69.jpg"
    assert (
        store.load("some")["image"].values.tolist() == x["image"].values[:10].tolist()
    )
    assert store.load("some")["label"].values[1] == "dog"


def test_a_result_on_other_rows_does_not_spoil_the_tree(path, fill):
    """Plain xarray still opens the whole store, and the result comes back as it was."""
    fill(path, [0, 1, 2])
    store = open_store(path)
    some = store["stage1"].compute()[::-2].to_dataset(name="x")

    store.save("some", some)
    tree = xr.open_datatree(path, engine="zarr")

    assert tree["results/some"].sizes["row"] == 35
    assert store.load("some").sizes["image"] == 35
    np.testing.assert_array_equal(store.load("some")["x"].values, some["x"].values)


def test_lost_files_are_told_not_read_as_nan(path, fill):
    """A committed block whose shard is gone is corruption, by layer and block."""
    fill(path, [0, 1, 2])
    arrays.shard_path(path, open_store(path).schema.layers[1], 1).unlink()
    (path / "layers/conv/activation/c/1").rename(path / "gone")

    store = open_store(path)

    assert store["stage1"].shape == (70, 8)
    with pytest.raises(CorruptStore, match=r"layer conv .* lost the files of 1 commit"):
        store["conv"]


def test_coordinates_on_other_dimensions_are_kept(path):
    """A coordinate that is called like a column but is no column stays."""
    store = open_store(path)
    result = xr.Dataset(
        {"score": (("image", "part"), np.zeros((70, 2)))},
        coords={"note": ("part", ["first", "second"])},
    )

    store.save("score", result)
    again = store.load("score")

    assert again["note"].values.tolist() == ["first", "second"]
    assert again["image_note"].values[0] == "é"


@pytest.mark.parametrize("pair", [("a", "a/b"), ("a/b", "a"), ("a/b/c", "a/b")])
def test_results_do_not_nest(path, pair):
    """Saving above or below another result would endanger it and is refused."""
    store = open_store(path)
    first, second = pair
    store.save(first, xr.DataArray(1.0))

    with pytest.raises(InputError, match="one would lie inside the other"):
        store.save(second, xr.DataArray(2.0))

    assert store.results == [first]


def test_an_error_that_is_not_the_disks_leaves_no_litter(path):
    """Attributes that cannot be stored raise, and the folder stays clean."""
    store = open_store(path)

    with pytest.raises(TypeError):
        store.save("bad", xr.DataArray(1.0, attrs={"odd": {1, 2}}))

    assert not list(path.rglob("*.partial"))
    assert store.results == []


@pytest.mark.parametrize("name", ["", "/", "a//b", ".hidden", "_b", "a/.b", "../up"])
def test_a_bad_result_name_is_refused(path, name):
    """Names stay inside the results folder."""
    with pytest.raises(InputError, match="cannot name a result"):
        open_store(path).save(name, xr.Dataset())


def test_an_unknown_result_is_answered_with_what_there_is(path):
    """The message has the nearest names."""
    store = open_store(path)
    store.save("map/conv", xr.Dataset({"map": ("image", np.zeros(70))}))

    with pytest.raises(NotInStore, match="Did you mean 'map/conv'"):
        store.load("map/cnov")


def test_a_result_that_cannot_be_written_leaves_the_old_one(path, monkeypatch):
    """When the disk fills up, the earlier result is still there, and no litter."""
    store = open_store(path)
    store.save("score", xr.DataArray(1.0))

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xr.Dataset, "to_zarr", full)
    with pytest.raises(StoreError, match=r"cannot save result 'score'.*No space left"):
        results.save(path, "score", xr.DataArray(2.0))

    assert float(store.load("score")["value"]) == 1.0
    assert not list(path.rglob("*.partial"))
