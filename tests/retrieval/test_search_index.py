"""Search by an index: the same hits as the scan, and only for the layer it was built from."""

import shutil

import numpy as np
import pandas as pd
import pytest

import embedkit as ek
from embedkit.errors import InputError, StoreError
from embedkit.networks.bundled.held_out import write_held_out
from embedkit.retrieval import indexed
from embedkit.retrieval.indexed import index_folder

ABOUT = {"index", "recall", "recall_low", "recall_high", "n_truth"}


def rows_of(store, layer="stage3"):
    """Return a layer as a store gives it."""
    return store[layer]


@pytest.fixture(scope="module")
def built(path):
    """Indexes of one layer: exact, and of lists on disk."""
    x = rows_of(ek.open_store(path))
    made = {}

    def get(kind="flat", metric="euclidean"):
        if (kind, metric) not in made:
            made[kind, metric] = ek.build_index(
                x, metric=metric, recall=0.7, n_neighbors=5, sharded=kind == "lists"
            )
        return made[kind, metric]

    return get


@pytest.mark.parametrize("kind", ["flat", "lists"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "inner_product"])
def test_an_index_finds_what_the_scan_finds(store, table, built, kind, metric):
    """Ids, vectors and files in one list; exact distances, as precise as float32 is."""
    asked = ["1/12", store["stage3"].values[20], table["path"][33], "0/1", "8/85"]
    index = built(kind, metric)

    found = ek.search(store, asked, layer="stage3", index=index, n_neighbors=5)

    exact = ek.search(store, asked, layer="stage3", metric=metric, n_neighbors=100)
    both = found.merge(exact, on=["query", "id", "label", "uri"])
    near, wanted = both["distance_x"], both["distance_y"]
    scale = np.abs(exact["distance"]).max()
    assert len(both) == len(found) == 25
    np.testing.assert_allclose(near, wanted, rtol=1e-6, atol=1e-6 * scale)
    if kind == "flat":
        first = exact[exact.index <= 5]
        assert found["id"].tolist() == first["id"].tolist()
        assert found["query"].tolist() == first["query"].tolist()
    assert found.index.tolist() == [1, 2, 3, 4, 5] * 5
    assert "1/12" not in found["id"][found["query"] == "1/12"].tolist()
    assert found["distance"].dtype == np.float64
    assert set(found.attrs) == {"layer", "metric", "searched", *ABOUT}
    assert found.attrs["layer"] == "stage3.relu_1"
    assert (found.attrs["metric"], found.attrs["searched"]) == (metric, 99)
    assert found.attrs["index"] == ("flat" if kind == "flat" else "ivf_flat")
    assert found.attrs["recall_low"] == index.recall.low


def test_an_id_leaves_itself_out_and_all_others_are_found(store, built):
    """More hits than there are images are asked for: all but it and the broken one."""
    found = ek.search(store, "8/85", layer="stage3", index=built(), n_neighbors=200)

    assert len(found) == 98
    assert not {"8/85", "0/7"} & set(found["id"])
    assert found["distance"].is_monotonic_increasing


def test_a_saved_index_is_opened_by_path(path, built, tmp_path):
    """A path of any kind does, with the same hits; where there is none it is told."""
    built("lists").save(tmp_path / "i")
    wanted = ek.search(path, "8/85", layer="stage3", index=built("lists"))

    for place in (tmp_path / "i", str(tmp_path / "i")):
        assert ek.search(path, "8/85", layer="stage3", index=place).equals(wanted)
    with pytest.raises(StoreError, match=r"there is no search index at .*gone: give"):
        ek.search(path, "8/85", layer="stage3", index=tmp_path / "gone")


def test_the_index_beside_the_store_is_found(path, built, tmp_path):
    """By convention it lies in photos.index/<layer>, outside of the store."""
    copy = shutil.copytree(path, tmp_path / "photos.zarr")
    store = ek.open_store(copy)
    place = index_folder(store, "stage3.relu_1")
    assert place == tmp_path / "photos.index" / "stage3.relu_1"
    with pytest.raises(
        InputError, match=r"none of layer stage3.relu_1 at .*photos.ind"
    ):
        ek.search(store, "8/85", layer="stage3", index="auto")
    built().save(place)

    found = ek.search(store, "8/85", layer="stage3", index="auto")

    assert found.equals(ek.search(path, "8/85", layer="stage3", index=built()))


def test_a_store_elsewhere_has_no_index_beside_it(path, s3_bucket):
    """The folder has to be named; then it answers."""
    images = ek.open_store(path).images["uri"].tolist()[:4]
    store = ek.extract(images, "embedkit/digits", f"{s3_bucket}/s", layers="stage3")

    with pytest.raises(InputError, match=r"on this machine and s3://.* does not; name"):
        index_folder(store, "stage3.relu_1")
    index = ek.build_index(rows_of(store), n_neighbors=2)
    found = ek.search(store, store["stage3"].values[2], index=index)
    assert found["id"].iloc[0] == store.images.index[2]


def test_a_condition_is_searched_exactly(store, built):
    """The index is set aside, the attributes say so, and its metric holds."""
    arguments = {"layer": "stage3", "where": "label == '8'"}

    found = ek.search(store, "8/85", index=built("lists", "cosine"), **arguments)

    exact = ek.search(store, "8/85", metric="cosine", **arguments)
    pd.testing.assert_frame_equal(found, exact)
    assert found.attrs == {**exact.attrs, "index": None}


def test_the_metric_is_that_of_the_index(store, built):
    """Naming it is allowed, another is refused."""
    index = built("flat", "cosine")

    named = ek.search(store, "8/85", layer="stage3", index=index, metric="cosine")

    assert named.equals(ek.search(store, "8/85", layer="stage3", index=index))
    with pytest.raises(
        InputError, match="metric='euclidean' and the index orders by 'cosine'; leave"
    ):
        ek.search(store, "8/85", layer="stage3", index=index, metric="euclidean")


def test_an_index_of_something_else_is_refused(store, built, tmp_path):
    """Other features, ids, orders or rows; the message names the index and the layer."""
    x = rows_of(store)
    layer = "layer stage3.relu_1 of .*digits.zarr"
    order = x[::-1]
    other = (x + 1).assign_coords(x.coords)
    for wrong, message in (
        (x[:, :9], f"the index has 9 features and {layer} has 64; give an index"),
        (order, f"the index has image '9/99' in row 0 and {layer} has '0/0'; build"),
        (other, f"the index holds another row for image '0/0' than {layer}: it was"),
    ):
        index = ek.build_index(wrong, n_neighbors=3)
        with pytest.raises(InputError, match=message):
            ek.search(store, "8/85", layer="stage3", index=index)
    built().save(tmp_path / "i")
    with pytest.raises(InputError, match=r"the index at .*i has 64 features and layer"):
        ek.search(store, "8/85", layer="fc", index=tmp_path / "i")
    with pytest.raises(InputError, match="index of type int; give what build_index"):
        ek.search(store, "8/85", layer="stage3", index=7)


def test_images_that_the_index_does_not_know_are_told(store):
    """What was built from a part, or of more, is refused until it has all."""
    x = rows_of(store)
    index = ek.build_index(x[:80], n_neighbors=3)
    more = ek.build_index(
        x.isel(image=[*range(100), 0]).assign_coords(
            image=("image", np.array([*x["image"].values, "new"], object))
        ),
        n_neighbors=3,
    )

    with pytest.raises(
        InputError, match=r"knows 80 images and .* has 100; add the others .*x\[80:\]"
    ):
        ek.search(store, "8/85", layer="stage3", index=index)
    with pytest.raises(InputError, match=r"knows 101 images and .* has 100; build it"):
        ek.search(store, "8/85", layer="stage3", index=more)
    index.add(x[80:])
    found = ek.search(store, "8/85", layer="stage3", index=index)

    assert (
        found["id"].tolist() == ek.search(store, "8/85", layer="stage3")["id"].tolist()
    )


def test_images_taken_out_of_the_index_are_not_found(store):
    """They can still be asked for, by their row."""
    index = ek.build_index(rows_of(store), n_neighbors=3)
    first = ek.search(store, "8/85", layer="stage3", index=index)
    index.remove([first["id"].iloc[0], "8/85"])

    found = ek.search(store, "8/85", layer="stage3", index=index, n_neighbors=9)

    assert found["id"].tolist() == first["id"].tolist()[1:]
    assert found.attrs["searched"] == 97


def test_a_removed_image_makes_the_index_old(tmp_path):
    """After an update the index would find what the store has no more."""
    folder = write_held_out(tmp_path / "photos")
    for file in [each for each in folder.rglob("*.png") if each.parent.name > "1"]:
        file.unlink()
    path = tmp_path / "s.zarr"
    store = ek.extract(folder, "embedkit/digits", path, layers="stage3")
    index = ek.build_index(rows_of(store), n_neighbors=3)
    gone = str(store.images.index[1])
    assert len(ek.search(store, gone, index=index)) == 10
    (folder / gone).unlink()
    store = ek.extract(folder, "embedkit/digits", path, layers="stage3", update=True)

    with pytest.raises(InputError, match=f"finds image '{gone}', which is removed in"):
        ek.search(store, np.zeros(64), index=index)
    anew = ek.build_index(rows_of(store), n_neighbors=3)
    found = ek.search(store, np.zeros(64), index=anew, n_neighbors=500)

    assert gone not in found["id"].tolist()
    assert len(found) == len(anew) == len(index) - 1


def test_lists_that_end_too_early_are_told(store, built, monkeypatch):
    """An index that looks at few lists finds few; nothing is left out silently."""
    index = built("lists")
    whole = type(index).search

    def cut(self, q, k):
        found = whole(self, q, k)
        found["indices"][:, 3:] = -1
        return found

    monkeypatch.setattr(type(index), "search", cut)

    with pytest.raises(
        InputError, match=r"n_neighbors=9 and the index finds only 3 of its 99 .*'8/85'"
    ):
        ek.search(store, "8/85", layer="stage3", index=index, n_neighbors=9)
    found = ek.search(store, "8/85", layer="stage3", index=index, n_neighbors=3)
    assert len(found) == 3


def test_an_index_is_compared_with_a_layer_once(store, monkeypatch):
    """The second search of the same content reads no ids; other content is compared."""
    index = ek.build_index(rows_of(store), n_neighbors=3)
    calls = []
    check = indexed._check_images
    monkeypatch.setattr(
        indexed, "_check_images", lambda *given: calls.append(check(*given))
    )

    for _ in range(3):
        ek.search(store, "8/85", layer="stage3", index=index)
    before = len(calls)
    index.remove(["8/85"])
    ek.search(store, "8/85", layer="stage3", index=index)

    assert (before, len(calls)) == (1, 2)


@pytest.mark.parametrize("saved", [False, True])
def test_an_image_that_was_replaced_makes_the_index_stale(tmp_path, saved):
    """One file in the middle has other pixels: same ids, first and last row."""
    folder = write_held_out(tmp_path / "photos")
    for file in [each for each in folder.rglob("*.png") if each.parent.name > "1"]:
        file.unlink()
    path = tmp_path / "s.zarr"
    store = ek.extract(folder, "embedkit/digits", path, layers="stage3")
    index = ek.build_index(rows_of(store), n_neighbors=3)
    if saved:
        index.save(tmp_path / "i")
        index = tmp_path / "i"
    name = str(store.images.index[5])
    (folder / name).write_bytes((folder / str(store.images.index[-1])).read_bytes())
    store = ek.extract(folder, "embedkit/digits", path, layers="stage3", update=True)

    with pytest.raises(
        InputError,
        match=rf"is stale: 1 of its \d+ images .* in layer .*'{name}' the fi",
    ):
        ek.search(store, np.zeros(64), index=index)
    anew = ek.build_index(rows_of(store), n_neighbors=3)
    assert len(ek.search(store, np.zeros(64), index=anew)) == 10


def test_an_image_that_became_readable_makes_the_index_stale(tmp_path):
    """An index cannot find what was no row when it was built."""
    folder = write_held_out(tmp_path / "photos")
    for file in [each for each in folder.rglob("*.png") if each.parent.name > "0"]:
        file.unlink()
    files = sorted(folder.rglob("*.png"))
    whole = files[4].read_bytes()
    files[4].write_bytes(b"no picture")
    path = tmp_path / "s.zarr"
    store = ek.extract(folder, "embedkit/digits", path, layers="stage3")
    index = ek.build_index(rows_of(store), n_neighbors=3)
    assert len(ek.search(store, np.zeros(64), index=index)) == 10
    files[4].write_bytes(whole)
    store = ek.extract(folder, "embedkit/digits", path, layers="stage3", update=True)

    with pytest.raises(
        InputError, match=rf"is stale: 1 of .*{files[4].name}' the first"
    ):
        ek.search(store, np.zeros(64), index=index)


@pytest.mark.parametrize("taken", [False, True])
def test_an_index_grows_with_its_store(tmp_path, taken):
    """New rows are added, old ones are the same: nothing is stale, saved or not."""
    folder = write_held_out(tmp_path / "photos")
    later = [each for each in folder.rglob("*.png") if each.parent.name > "1"]
    kept = {each: each.read_bytes() for each in later}
    for file in later:
        file.unlink()
    path = tmp_path / "s.zarr"
    store = ek.extract(folder, "embedkit/digits", path, layers="stage3")
    index = ek.build_index(rows_of(store), n_neighbors=3)
    if taken:
        index.remove([str(store.images.index[2])])
    first = store.schema.n_images
    for file, content in list(kept.items())[:40]:
        file.write_bytes(content)
    store = ek.extract(folder, "embedkit/digits", path, layers="stage3", update=True)
    index.add(rows_of(store)[first:])
    index.save(tmp_path / "i")

    for given in (index, tmp_path / "i"):
        found = ek.search(store, np.zeros(64), index=given, n_neighbors=500)
        assert len(found) == first + 40 - taken


def test_rows_are_read_only_where_the_content_is_another(store, monkeypatch):
    """An index of today's layer is believed by that word, and one without it is not."""
    calls = []
    compared = indexed.changed_rows
    monkeypatch.setattr(
        indexed, "changed_rows", lambda *given: calls.append(given) or compared(*given)
    )
    x = rows_of(store)

    for rows in (x, x.drop_attrs()):
        index = ek.build_index(rows, n_neighbors=3)
        ek.search(store, "8/85", layer="stage3", index=index)

    assert len(calls) == 1
