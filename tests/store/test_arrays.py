"""Zarr and xarray, without knowing what a store holds."""

import numpy as np
import pytest
import xarray as xr
import zarr

from embedkit.errors import StoreError
from embedkit.files.files import files_at
from embedkit.store import arrays

TEXT = np.dtypes.StringDType()


@pytest.fixture
def empty(place):
    """A group without arrays, in each kind of place."""
    arrays.make_group(place)
    return place


def _make(files, name, values, **options):
    arrays.make(
        files,
        name,
        shape=values.shape,
        chunks=(4, *values.shape[1:]),
        dtype=values.dtype,
        fill="" if values.dtype.kind == "T" else 0,
        **options,
    )
    arrays.write(files, name, values)


def test_rows_come_back_by_slice_and_by_number(empty):
    """Numbers and text, whole or in part."""
    numbers = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    words = np.array([f"é{i}" for i in range(10)], TEXT)
    _make(empty, "a/x", numbers)
    _make(empty, "words", words)

    np.testing.assert_array_equal(arrays.read(empty, "a/x"), numbers)
    np.testing.assert_array_equal(
        arrays.read(empty, "a/x", rows=slice(3, 7)), numbers[3:7]
    )
    rows = np.array([0, 5, 9])
    np.testing.assert_array_equal(arrays.read(empty, "a/x", rows=rows), numbers[rows])
    assert arrays.read_text(empty, "words", rows=rows) == ["é0", "é5", "é9"]
    assert all(type(each) is str for each in arrays.read_text(empty, "words"))


def test_the_files_of_an_array_lie_in_one_folder(empty):
    """No folder a row of chunks: half as many entries."""
    _make(empty, "x", np.ones((10, 3)))

    assert empty.names("x") == ["c.0.0", "c.1.0", "c.2.0", "zarr.json"]


def test_chunks_of_zeros_are_written(empty):
    """What equals the fill value is data all the same."""
    _make(empty, "x", np.zeros((8, 2)))

    assert empty.names("x") == ["c.0.0", "c.1.0", "zarr.json"]


def test_text_of_the_fill_value_is_written_too(empty):
    """A column of empty text has its chunks."""
    _make(empty, "x", np.array([""] * 8, TEXT))

    assert empty.names("x") == ["c.0", "c.1", "zarr.json"]


def test_growing_keeps_what_is_there(empty):
    """More rows come behind, as zeros; given back, the old ones are as they were."""
    values = np.arange(12.0).reshape(6, 2)
    _make(empty, "x", values)

    arrays.resize(empty, "x", 9)

    found = arrays.read(empty, "x")
    assert found.shape == (9, 2)
    np.testing.assert_array_equal(found[:6], values)
    assert (found[6:] == 0).all()

    arrays.resize(empty, "x", 6)

    np.testing.assert_array_equal(arrays.read(empty, "x"), values)


def test_the_kind_of_an_array_tells_what_can_be_written_to_it(empty):
    """Type and attributes; None where there is no array."""
    _make(empty, "x", np.ones(4, np.int16), attributes={"units": "m"})
    _make(empty, "words", np.array(["a"], TEXT))

    assert arrays.kind(empty, "x") == (np.dtype(np.int16), {"units": "m"})
    assert arrays.kind(empty, "words") == (TEXT, {})
    assert arrays.kind(empty, "nothing") is None


def test_making_an_array_again_replaces_it(empty):
    """The old shape and its files are gone."""
    _make(empty, "x", np.ones((20, 2)))

    _make(empty, "x", np.array(["a"], TEXT))

    assert empty.names("x") == ["c.0", "zarr.json"]
    assert arrays.read_text(empty, "x") == ["a"]


def test_hidden_arrays_are_read_but_not_seen(empty):
    """Without metadata of the groups above it, an array is out of the tree."""
    _make(empty, "_embedkit/content/x", np.arange(4))
    _make(empty, "y", np.arange(4), dims=("image",))
    arrays.hide(empty, "_embedkit/content/x")
    arrays.consolidate(empty)

    tree = arrays.open_tree(empty)

    assert tree.groups == ("/",)
    assert list(tree.variables) == ["y"]
    assert arrays.read(empty, "_embedkit/content/x").tolist() == [0, 1, 2, 3]
    assert "_embedkit/content/x/c.0" in empty.names()


def test_arrays_below_a_group_are_listed_by_path(empty):
    """At any depth, and none beside the group."""
    for name in ("layers/a/activation", "layers/b/c/activation", "other/x", "y"):
        _make(empty, name, np.arange(4))

    assert sorted(arrays.arrays_below(empty, "layers")) == [
        *("layers/a/activation", "layers/b/c/activation"),
    ]


def test_attributes_are_added_and_replaced(empty):
    """What is not named stays, and so do the gathered metadata."""
    _make(empty, "x", np.arange(4), dims=("image",))
    arrays.consolidate(empty)
    arrays.set_attributes(empty, {"a": 1, "b": 2})
    arrays.set_attributes(empty, {"b": 3})

    assert arrays.attributes(empty) == {"a": 1, "b": 3}
    group = zarr.open_group(arrays._target(empty), mode="r")
    assert list(group.metadata.consolidated_metadata.metadata) == ["x"]


def test_groups_are_found_by_an_attribute(empty):
    """At any depth below a group; others, arrays among them, are passed over."""
    for name in ("results/a", "results/b/c", "other/d", "results/e"):
        arrays.make_group(empty, name)
    for name in ("results/a", "results/b/c", "other/d"):
        arrays.set_attributes(empty, {"mark": name}, group=name)
    _make(empty, "results/x", np.arange(4), attributes={"odd": 1})

    found = sorted(arrays.groups_with(empty, "results", attribute="mark"))

    assert found == ["a", "b/c"]
    assert list(arrays.groups_with(empty, "nothing", attribute="mark")) == []


def test_a_group_that_vanishes_meanwhile_is_passed_over(tmp_path, monkeypatch):
    """Another process may replace a result while results are listed."""
    files = files_at(tmp_path)
    arrays.make_group(files, "results/a")
    arrays.set_attributes(files, {"mark": 1}, group="results/a")
    monkeypatch.setattr(type(files), "names", lambda *_: ["a/zarr.json", "b/zarr.json"])

    assert list(arrays.groups_with(files, "results", attribute="mark")) == ["a"]


def test_what_is_no_group_is_named(tmp_path):
    """Nothing, a file, a folder and broken metadata each end in one clear error."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn/zarr.json").write_text('{"zarr_format": 3, "node_')

    with pytest.raises(StoreError, match=r"no store at .*nothing: nothing is there"):
        arrays.attributes(files_at(tmp_path / "nothing"))
    for name, kind in (("file", "file"), ("folder", "folder"), ("torn", "folder")):
        with pytest.raises(
            StoreError, match=f"{name} is no .* store but a {kind} with"
        ):
            arrays.attributes(files_at(tmp_path / name))


def test_a_dataset_is_written_and_opened_lazily(empty):
    """Without an index, and without Dask unless that is asked for."""
    text = np.array(["a", "b", "c"], TEXT)
    dataset = xr.Dataset({"x": ("image", np.arange(3.0)), "image": ("image", text)})

    arrays.write_dataset(empty, "g", dataset.drop_indexes("image"))
    arrays.consolidate(empty, ["g"])
    plain = arrays.open_dataset(empty, "g")
    chunked = arrays.open_dataset(empty, "g", chunks={})

    assert len(plain.indexes) == 0
    assert plain["x"].chunks is None
    assert chunked["x"].chunks == ((3,),)
    xr.testing.assert_equal(plain.compute(), dataset.drop_indexes("image"))
