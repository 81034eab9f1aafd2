"""Analyses kept beside the data."""

import numpy as np
import pytest
import xarray as xr

from embedkit.errors import InputError, NotInStore, StoreError
from embedkit.files.files import files_at
from embedkit.files.local import LocalFiles
from embedkit.store import arrays, results
from embedkit.store.store import open_store


@pytest.fixture
def store(path, fill):
    """A complete store."""
    fill()
    return open_store(path)


def test_a_result_is_kept_and_comes_back_labelled(store):
    """Values and parameters survive; the table's columns are attached anew."""
    result = store["conv"].mean(["channel", "y", "x"]).to_dataset(name="mean")

    store.save("means/conv", result.assign_attrs(kind="mean", k=3))
    again = store.load("means/conv")

    np.testing.assert_array_equal(again["mean"].values, result["mean"].values)
    assert again.attrs == {"kind": "mean", "k": 3}
    assert again["label"].values[1] == "dog"
    assert store.results == ["means/conv"]
    assert again["mean"].chunks is not None
    assert "label" not in arrays.open_dataset(store.files, "results/means/conv")


def test_saving_again_replaces(store, path):
    """The last result of a name is the one that is kept, whatever its shape."""
    store.save("score", xr.DataArray([1.0, 2.0], dims="layer", name="a"))
    store.save("score", xr.DataArray(3.0, attrs={"of": "all"}))
    again = store.load("score")

    assert list(again.data_vars) == ["value"]
    assert (float(again["value"]), again.attrs) == (3.0, {"of": "all"})
    assert not list(path.rglob("*.partial"))
    assert list(xr.open_datatree(path)["results/score"].data_vars) == ["value"]


def test_text_of_any_kind_is_kept(store):
    """Fixed-width text and objects have no Zarr v3 type; they become variable-length."""
    result = xr.Dataset(
        {
            "fixed": ("k", np.array(["a", "bé"])),
            "objects": ("k", np.array(["a", "b"], object)),
            "number": ("k", np.arange(2, dtype=np.uint8)),
        },
        coords={"k": ["first", "second"]},
    )

    store.save("words", result)
    again = store.load("words").compute()

    assert again["fixed"].values.tolist() == ["a", "bé"]
    assert again["objects"].values.tolist() == ["a", "b"]
    assert again["k"].values.tolist() == ["first", "second"]
    assert again["number"].dtype == np.uint8


def test_a_variable_named_like_a_column_is_not_lost(store):
    """A cluster's label stays beside the image's label, which is renamed."""
    clusters = xr.Dataset(
        {"label": ("image", np.arange(70))},
        coords={"image_label": ("image", store.images["label"].to_numpy(object))},
    )

    store.save("cluster/conv", clusters)
    again = store.load("cluster/conv")

    assert again["label"].values.tolist() == list(range(70))
    assert again["image_label"].values[:2].tolist() == ["cat", "dog"]


def test_saved_results_open_with_plain_xarray(store, path):
    """A result is an ordinary group."""
    store.save("probe/label", xr.Dataset({"accuracy": ("layer", [0.5, 0.7])}))

    plain = xr.open_zarr(path, group="results/probe/label")
    assert plain["accuracy"].values.tolist() == [0.5, 0.7]
    assert "results" in xr.open_datatree(path, engine="zarr").children


def test_a_result_in_another_order_keeps_its_own_ids(store):
    """Rows that are not the store's rows are never given the store's ids."""
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


def test_a_result_on_other_rows_does_not_spoil_the_tree(store, path):
    """Plain xarray still opens the whole store, and the result comes back as it was."""
    some = store["stage1"].compute()[::-2].to_dataset(name="x")

    store.save("some", some)
    tree = xr.open_datatree(path, engine="zarr")

    assert tree["results/some"].sizes["row"] == 35
    assert store.load("some").sizes["image"] == 35
    np.testing.assert_array_equal(store.load("some")["x"].values, some["x"].values)


def test_a_result_without_ids_has_the_rows_of_the_store(store):
    """As many rows and no other ids: they are the store's images."""
    store.save("x", xr.Dataset({"x": ("image", np.arange(70))}))
    store.save("y", xr.Dataset({"y": ("image", np.arange(7))}))

    assert store.load("x")["image"].values[3] == "a/3.jpg"
    assert "image" not in store.load("y").coords


def test_coordinates_on_other_dimensions_are_kept(store):
    """A coordinate that is called like a column but is no column stays."""
    result = xr.Dataset(
        {"score": (("image", "part"), np.zeros((70, 2)))},
        coords={"note": ("part", ["first", "second"])},
    )

    store.save("score", result)
    again = store.load("score")

    assert again["note"].values.tolist() == ["first", "second"]
    assert again["image_note"].values[0] == "é"


@pytest.mark.parametrize(
    "pair", [("a", "a/b"), ("a/b", "a"), ("a/b/c", "a/b")], ids=str
)
def test_results_do_not_nest(store, pair):
    """Saving above or below another result would endanger it and is refused."""
    first, second = pair
    store.save(first, xr.DataArray(1.0))

    with pytest.raises(InputError, match="one would lie inside the other"):
        store.save(second, xr.DataArray(2.0))

    assert store.results == [first]


def test_an_error_that_is_not_the_disks_leaves_no_litter(store, path):
    """Attributes that cannot be stored raise, and the folder stays clean."""
    with pytest.raises(TypeError):
        store.save("bad", xr.DataArray(1.0, attrs={"odd": {1, 2}}))

    assert not list(path.rglob("*.partial"))
    assert store.results == []


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "/",
            "a//b",
            ".hidden",
            "_b",
            "a/.b",
            "../up",
            "zarr.json",
            "a/zarr.json",
        ),
        *("a\nb", "a\0b"),
    ],
    ids=repr,
)
def test_a_bad_result_name_is_refused(store, name):
    """Names stay inside the results folder."""
    before = store.files.names()

    with pytest.raises(InputError, match="cannot name a result"):
        store.save(name, xr.Dataset())

    assert store.files.names() == before


def test_a_layer_may_start_with_an_underscore(store):
    """Networks name layers like that, and results are named by layer."""
    store.save("neighbors/_fc", xr.DataArray(1.0))

    assert store.results == ["neighbors/_fc"]


def test_an_unknown_result_is_answered_with_what_there_is(store):
    """The message has the nearest names."""
    with pytest.raises(NotInStore, match=r"no result 'x' in .*There is none"):
        store.load("x")
    store.save("map/conv", xr.Dataset({"map": ("image", np.zeros(70))}))

    with pytest.raises(NotInStore, match="Did you mean 'map/conv'"):
        store.load("map/cnov")


def test_a_result_that_cannot_be_written_leaves_the_old_one(store, path, monkeypatch):
    """When the disk fills up, the earlier result is still there, and no litter."""
    store.save("score", xr.DataArray(1.0))

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xr.Dataset, "to_zarr", full)
    with pytest.raises(StoreError, match=r"cannot save result 'score'.*No space left"):
        results.save(store.files, "score", xr.DataArray(2.0))

    assert float(store.load("score")["value"]) == 1.0
    assert not list(path.rglob("*.partial"))


def test_saving_may_die_at_any_write(store, dying):
    """The store stays readable, and what counts as a result is one, old or new."""
    store.save("score", xr.DataArray([1.0, 2.0], dims="k"))
    after, done = 0, ["killed"]
    while done[-1:] == ["killed"]:
        with dying(after) as done:
            store.save("score", xr.DataArray([3.0, 4.0], dims="k"))
        for name in open_store(store.path).results:
            found = store.load(name)["value"].values.tolist()
            assert found in ([1.0, 2.0], [3.0, 4.0])
        xr.open_datatree(store.path)
        after += 1

    assert after > 5
    assert store.load("score")["value"].values.tolist() == [3.0, 4.0]
    store.files.clean()
    assert store.verify().ok


def test_in_an_object_store_a_half_written_result_is_none(
    tmp_path, create, schema, monkeypatch
):
    """Without its mark, which comes last, a result is not there."""
    files = create(f"memory://{tmp_path.name}", schema)
    results.save(files, "a/b", xr.DataArray(1.0))

    def died(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(arrays, "set_attributes", died)
        with pytest.raises(KeyboardInterrupt):
            results.save(files, "a/b", xr.DataArray(2.0))

    assert results.names(files) == []
    results.save(files, "a/b", xr.DataArray(3.0))
    assert float(results.load(files, "a/b")["value"]) == 3.0


def test_a_read_only_object_store_is_one_clear_error(
    tmp_path, create, schema, monkeypatch
):
    """The message names the result, the place and what to do."""
    files = create(f"memory://{tmp_path.name}", schema)

    def denied(*_args):
        raise PermissionError(13, "Access Denied")

    monkeypatch.setattr(type(files), "delete_tree", denied)
    with pytest.raises(
        StoreError, match=r"'x' in memory://.*: Access Denied: make the"
    ):
        results.save(files, "x", xr.DataArray(1.0))


def test_listing_results_of_a_place_without_any(tmp_path):
    """No folder of results is no error."""
    assert results.names(files_at(tmp_path)) == []
    assert isinstance(files_at(tmp_path), LocalFiles)
