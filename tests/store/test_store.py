"""Reading a store back."""

from dataclasses import replace

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from xarray.backends.zarr import ZarrArrayWrapper

from embedkit.errors import CorruptStore, InputError, NotInStore, StoreError
from embedkit.files.files import files_at
from embedkit.store import create as creation
from embedkit.store import layer_array
from embedkit.store import store as module
from embedkit.store.commits import compact
from embedkit.store.schema import StoreSchema
from embedkit.store.store import open_store
from embedkit.store.table import to_dataset


class _ComputedError(Exception):
    pass


def _no_compute(*_args, **_kwargs):
    raise _ComputedError


def test_a_layer_is_lazy_and_labelled(path, fill, values):
    """Opening computes nothing; values, labels and status are those written."""
    fill([0, 1, 2], failures={1: {"a/40.jpg": "cut short"}})
    store = open_store(path)

    with dask.config.set(scheduler=_no_compute):
        x = store["conv"]

    assert x.dims == ("image", "channel", "y", "x")
    np.testing.assert_array_equal(x.values, values["conv"])
    assert x["label"].values[:2].tolist() == ["cat", "dog"]
    assert x["status"].values[40] == "unreadable"
    assert x["error"].values[40] == "cut short"
    assert x.attrs["network"] == "tiny"
    assert len(x.indexes) == 0


@pytest.mark.parametrize("finished", [True, False])
def test_opening_a_layer_reads_no_column(path, fill, finished, monkeypatch):
    """Not even the ids: five million of them take seconds and a gigabyte to index."""
    fill()
    if finished:
        open_store(path).finish()
    read = []
    real = ZarrArrayWrapper.__getitem__
    monkeypatch.setattr(
        ZarrArrayWrapper,
        "__getitem__",
        lambda self, key: read.append(self._array.name) or real(self, key),
    )

    store = open_store(path)
    x = store["conv"]
    some = x.isel(image=store.locate(["a/1.jpg"]))

    assert set(read) <= {"/taken"}  # xarray looks at two dates to choose their type
    read.clear()
    assert (len(x.indexes), len(some.indexes)) == (0, 0)
    assert some["label"].values.tolist() == ["dog"]
    assert read == ["/label"]


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
    fill([1])
    store = open_store(path)

    x = store["stage1"]

    assert not store.complete
    assert np.isnan(x.values[:32]).all()
    assert not np.isnan(x.values[32:64]).any()
    assert x["status"].values[[0, 32, 69]].tolist() == ["pending", "ok", "pending"]
    assert "1 of 3 blocks written" in repr(store)


def test_chunks_are_whole_blocks(path, fill, monkeypatch):
    """Reads follow the shards, not the small chunks inside them."""
    fill()
    monkeypatch.setattr(layer_array, "READ_BYTES", 32 * 32)

    store = open_store(path)

    assert store["conv"].chunksizes["image"] == (32, 32, 6)
    assert store["stage1"].chunksizes["image"] == (32, 32, 6)
    monkeypatch.setattr(layer_array, "READ_BYTES", 2 * 32 * 32)
    assert store["stage1"].chunksizes["image"] == (64, 6)


def test_a_store_that_was_opened_before_it_grew_stays_as_it_was(
    path, files, fill, grow, one, schema, values
):
    """Whoever works on seventy images goes on with these seventy."""
    fill()
    store = open_store(path)

    grow(files, type(schema)(n_images=100, passes=(one,)))

    np.testing.assert_array_equal(store["conv"].values, values["conv"])
    assert len(store.images) == 70
    assert store.locate("a/69.jpg").tolist() == [69]
    with pytest.raises(NotInStore):
        store.locate("a/70.jpg")


def test_the_image_table_comes_back(path, fill, table):
    """All columns, the ids in manifest order, and how it went."""
    fill()

    images = open_store(path).images

    assert images.index.tolist() == table.index.tolist()
    assert images["note"].tolist() == table["note"].fillna("").tolist()
    assert np.isnan(images["size"].iloc[0])
    assert images["taken"].iloc[0] == np.datetime64("2024-02-29T10:00:00")
    assert set(images["status"]) == {"ok"}


def test_info_adds_up(path, fill, values):
    """Bytes, blocks and seconds are sums over what is there."""
    fill([0, 2], failures={0: {"a/1.jpg": "no image"}})

    info = open_store(path).info()

    layers = values["conv"].nbytes + values["stage1.relu"].nbytes
    assert info["nbytes"] == layers
    assert (info["blocks"], info["blocks_done"], info["complete"]) == (3, 2, False)
    assert info["unreadable"] == 1
    assert info["seconds"] == {"forward": 1.0, "total": 2.0}
    assert info["bottleneck"] == "forward"
    assert info["layers"]["conv"]["shape"] == [2, 3, 4]
    assert info["nbytes_stored"] > 1000
    assert info["peak_mem"] == 1002
    assert info["networks"]["tiny"]["pool"] == info["pool"] == "avg"
    assert info["path"] == str(path)


def test_a_store_without_blocks_has_info_too(path):
    """Nothing is measured yet."""
    info = open_store(path).info()

    assert (info["peak_mem"], info["seconds"], info["blocks_done"]) == (-1, {}, 0)


def test_finishing_writes_the_status_for_plain_xarray(path, fill):
    """Without embedkit, xarray reads the final status from the image table."""
    fill([0, 1, 2], failures={0: {"a/1.jpg": "no image"}})
    before = xr.open_zarr(path)["status"].values[:2].tolist()
    store = open_store(path)
    images = store.images
    assert not store.finished

    store.finish()

    assert store.finished
    assert before == ["pending", "pending"]
    assert xr.open_zarr(path)["status"].values[:2].tolist() == ["ok", "unreadable"]
    assert xr.open_zarr(path)["error"].values[1] == "no image"
    assert store.images.equals(images)
    assert store["conv"]["status"].values[:2].tolist() == ["ok", "unreadable"]
    store.reopen()
    assert not store.finished


def test_a_finished_store_reads_no_records(path, files, fill, one, monkeypatch):
    """Its status lies in the image table, so opening a layer costs no listing of blocks."""
    fill()
    store = open_store(path)
    compact(files, one, store.commits(one))
    store.finish()
    for each in (module, layer_array):
        monkeypatch.setattr(each, "read_commits", _no_compute)

    assert set(store["conv"]["status"].values.tolist()) == {"ok"}
    assert set(store.images["status"]) == {"ok"}
    with pytest.raises(_ComputedError):
        store.commits(one)


@pytest.mark.parametrize("after", range(8))
def test_finishing_may_die_at_any_write(path, fill, dying, after):
    """The status is that of the records until all of it is in the table."""
    fill(failures={0: {"a/1.jpg": "no image"}})
    store = open_store(path)

    with dying(after):
        store.finish()

    assert store["conv"]["status"].values[:3].tolist() == ["ok", "unreadable", "ok"]
    assert store.images["error"].iloc[1] == "no image"
    store.finish()
    assert xr.open_zarr(path)["status"].values[:2].tolist() == ["ok", "unreadable"]


def test_the_layers_table_and_repr_tell_sizes(path):
    """Shapes, types and bytes are listed by layer."""
    store = open_store(path)

    assert store.layers.loc["conv", "shape"] == (2, 3, 4)
    assert store.layers.loc["stage1.relu", "nbytes"] == 70 * 8 * 4
    assert "70 images, 2 layers" in repr(store)


def test_a_long_store_is_shown_in_short(tmp_path, create, schema, one):
    """Hundreds of layers do not fill the screen."""
    layers = tuple(replace(one.layers[0], name=f"layer{i}") for i in range(15))
    create(tmp_path / "s.zarr", replace(schema, passes=(replace(one, layers=layers),)))

    shown = repr(open_store(tmp_path / "s.zarr"))

    assert "layer11" in shown
    assert "layer12" not in shown
    assert "… and 3 more" in shown


def test_the_tree_is_plain_xarray(path, fill, values):
    """The whole store opens as a tree with the ids inherited."""
    fill()

    tree = open_store(path).tree()

    node = tree["layers/conv"]
    np.testing.assert_array_equal(node["activation"].values, values["conv"])
    assert node["image"].values[0] == "a/0.jpg"


def test_lost_files_are_told_not_read_as_nan(path, fill):
    """A committed block whose shard is gone is corruption, by layer and block."""
    fill()
    (path / "layers/conv/activation/c.1.0.0.0").unlink()

    store = open_store(path)

    for _ in range(2):  # by the records, and then by the finished status
        assert store["stage1"].shape == (70, 8)
        with pytest.raises(
            CorruptStore,
            match=r"layer conv .* lost the files of 1 committed blocks \(the first is 1\)"
            ".*repair",
        ):
            store["conv"]
        store.finish()


@given(st.lists(st.integers(0, 69), max_size=20))
def test_images_are_located_in_the_order_asked(filled, rows):
    """As often as asked; the rows select the right images, lazily."""
    ids = [f"a/{row}.jpg" for row in rows]

    found = filled.locate(ids)
    some = filled["stage1"].isel(image=found)

    assert found.tolist() == rows
    assert some.chunks is not None
    assert some["image"].values.tolist() == ids


@pytest.fixture(scope="module")
def filled(tmp_path_factory, one, write_blocks, table_of):
    """A complete store that nobody changes."""
    files = files_at(tmp_path_factory.mktemp("store") / "s.zarr")
    schema, rows = StoreSchema(n_images=70, passes=(one,)), np.arange(70)
    creation.create(files, schema, to_dataset(table_of(70)), sizes=rows, mtimes=rows)
    write_blocks(files, schema, one)
    return open_store(files.url)


def test_one_image_is_located_by_its_id(filled):
    """A single id gives one row; ids may come as any sequence of text."""
    assert filled.locate("a/7.jpg").tolist() == [7]
    assert filled.locate(np.array(["a/7.jpg", "a/1.jpg"])).tolist() == [7, 1]
    assert filled.locate(filled.images.index[[3, 2]]).tolist() == [3, 2]
    assert filled.locate([]).tolist() == []


def test_images_that_are_not_there_are_named(filled):
    """The first, and how many more."""
    with pytest.raises(
        NotInStore, match=r"has no image 'b' and 1 more: ids are listed"
    ):
        filled.locate(["a/1.jpg", "b", "c"])
    with pytest.raises(NotInStore, match=r"has no image 'a\\udcff': ids"):
        filled.locate("a\udcff")
    with pytest.raises(InputError, match=r"text, found 3 \(int\) among 2: give ids"):
        filled.locate(["a/1.jpg", 3])


def test_what_is_no_store_is_refused(tmp_path):
    """Opening tells what is there instead."""
    with pytest.raises(StoreError, match="nothing is there"):
        open_store(tmp_path / "nothing")
    with pytest.raises(InputError, match="lost a slash"):
        open_store("s3:/bucket/x.zarr")


def test_only_a_folder_has_a_path(path, tmp_path, create, schema):
    """An object store has an address."""
    files = create(f"memory://{tmp_path.name}", schema)

    assert open_store(path).path == path
    assert open_store(path).url == str(path)
    assert open_store(files.url).url == files.url
    with pytest.raises(
        StoreError, match=r"has no path in the file system: use its url"
    ):
        _ = open_store(files.url).path
