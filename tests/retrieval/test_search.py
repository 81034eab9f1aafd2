"""Search against a plain ranking of all rows, for every kind of query."""

import tarfile

import numpy as np
import pytest
import xarray as xr
from PIL import Image

import embedkit as ek
from embedkit.errors import IdentityMismatch, InputError, NotInStore, SourceError


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "inner_product"])
def test_a_vector_finds_what_a_plain_ranking_finds(store, brute, metric):
    """Ids, distances and labels are those of the first rows of the ranking."""
    x = store["stage3"].compute()
    query = np.linspace(0, 2, x.sizes["feature"])

    found = ek.search(store, query, layer="stage3", metric=metric, n_neighbors=12)

    order, distances = brute(x.values, query, metric=metric)
    assert found["id"].tolist() == [str(each) for each in x["image"].values[order[:12]]]
    np.testing.assert_allclose(found["distance"], distances[order[:12]], rtol=1e-12)
    assert found["label"].tolist() == [*x["label"].values[order[:12]].astype(object)]
    assert found.index.tolist() == list(range(1, 13))
    assert found.index.name == "rank"
    assert [*found.columns] == ["id", "distance", "label", "uri"]
    assert found.attrs == {"layer": x.name, "metric": metric, "searched": 100}


def test_an_id_finds_others_than_itself(store, brute):
    """The stored row is the query, and the image is not among its hits."""
    x = store["stage3"].compute()

    found = ek.search(store, "1/12", layer="stage3", n_neighbors=99)

    order, _ = brute(x.values, x.values[12], own=12)
    assert found["id"].tolist() == [str(each) for each in x["image"].values[order]]
    assert len(found) == 98  # neither itself nor the broken one


def test_a_file_is_seen_as_the_store_saw_it(store, table):
    """An image file that the store holds is found first, within its tolerance of 0."""
    x = store["stage3"]
    one = store.schema.pass_of(x.name)

    found = ek.search(store, table["path"][12], layer="stage3", n_neighbors=3)

    scale = float(np.abs(x[12]).max())
    assert found["id"].iloc[0] == "1/12"
    assert (
        found["distance"].iloc[0] <= one.tolerance * scale * x.sizes["feature"] ** 0.5
    )
    assert found["distance"].iloc[1] > 1e-3


def test_pictures_in_memory_are_the_same_as_their_files(store, table):
    """PIL image, array and path object give one result; a list tells them apart."""
    picture = Image.open(table["path"][12]).convert("RGB")
    wanted = ek.search(store, table["path"][12], n_neighbors=4)
    path = type(store.path)(table["path"][12])

    found = ek.search(store, [picture, np.asarray(picture), path], n_neighbors=4)

    assert found["query"].unique().tolist() == ["image 0", "image 1", str(path)]
    for _, part in found.groupby("query"):
        assert part["id"].tolist() == wanted["id"].tolist()
        np.testing.assert_allclose(part["distance"], wanted["distance"], atol=1e-5)


def test_several_kinds_of_queries_at_once(store):
    """Ids, vectors and rows of a layer may stand in one list; stacks are lists."""
    x = store["stage3"].compute()

    found = ek.search(store, ["0/1", x.values[1]], layer="stage3", n_neighbors=2)
    ids = ek.search(store, ["8/85", "0/1", "8/85"], layer="stage3", n_neighbors=2)
    stacked = ek.search(store, x[1:3], layer="stage3", n_neighbors=2)

    assert found["query"].tolist() == ["0/1", "0/1", "vector 1", "vector 1"]
    assert found["id"].iloc[2] == "0/1"  # a vector does not know that it is stored
    assert found["id"].iloc[0] != "0/1"
    assert ids["id"].tolist()[:2] == ids["id"].tolist()[4:]
    assert ids["id"].tolist()[2:4] == found["id"].tolist()[:2]
    assert stacked["query"].tolist() == ["vector 0"] * 2 + ["vector 1"] * 2


@pytest.mark.parametrize(
    "where",
    [
        "label == '3' and width > 320",
        "label in ['3'] & (width > 320)",
        lambda table: (table["label"] == "3") & (table["width"] > 320),
        (np.arange(100) // 10 == 3) & (np.arange(100) > 32),
        "`two words` > 16 and image.str.startswith('3/')",
        "not (label != '3' or width <= 320)",
    ],
)
def test_filters_are_exact(store, brute, where):
    """The hits are the nearest among the images that pass, however the filter is said."""
    x = store["stage3"].compute()
    allowed = (np.arange(100) // 10 == 3) & (np.arange(100) > 32)

    found = ek.search(store, "8/85", layer="stage3", n_neighbors=10, where=where)

    order, _ = brute(x.values, x.values[85], allowed=allowed)
    assert found["id"].tolist() == [str(each) for each in x["image"].values[order]]
    assert found.attrs["searched"] == len(found) == 7


def test_a_filter_may_hold_the_query_itself(store, brute):
    """An image is not its own hit where the filter lets it through, or only it."""
    x = store["stage3"].compute()

    found = ek.search(store, "8/85", where="label == '8'", layer="stage3")
    alone = ek.search(store, "8/85", where="image == '8/85'", layer="stage3")

    order, _ = brute(x.values, x.values[85], allowed=np.arange(100) // 10 == 8, own=85)
    assert found["id"].tolist() == [str(each) for each in x["image"].values[order]]
    assert alone.empty
    assert [*alone.columns] == ["id", "distance", "label", "uri"]


def test_columns_are_chosen(store):
    """The asked columns stand behind id and distance, a single one too."""
    found = ek.search(store, "8/85", columns=["width", "status"], n_neighbors=2)
    single = ek.search(store, "8/85", columns="part", n_neighbors=2)

    assert [*found.columns] == ["id", "distance", "width", "status"]
    assert [*single.columns] == ["id", "distance", "part"]
    assert (store.images["width"][found["id"]] == found["width"].to_numpy()).all()


def test_the_chunks_do_not_show(store, brute, monkeypatch):
    """One row or one block at a time: the same hits and bits."""
    from embedkit.store import layer_array as home

    whole = ek.search(store, "8/85", layer="stage3", n_neighbors=30)
    monkeypatch.setattr(home, "READ_BYTES", 1)
    assert len(store["stage3"].chunksizes["image"]) == 4

    found = ek.search(store, "8/85", layer="stage3", n_neighbors=30)

    assert found.equals(whole)


def test_a_store_is_opened_by_path_and_its_last_layer_is_taken(path):
    """The path does, and the layer is the last where none is named."""
    found = ek.search(path, "8/85")

    assert found.attrs["layer"] == [*ek.open_store(path)][-1]
    assert len(found) == 10


def test_a_network_that_is_given_has_to_be_the_stores(store, table):
    """The right one gives what the restored one gives; another is refused."""
    given = ek.load_network("embedkit/digits")

    found = ek.search(store, table["path"][12], network=given)

    assert found.equals(ek.search(store, table["path"][12]))
    other = ek.load_network("embedkit/digits", weights=None)
    with pytest.raises(IdentityMismatch, match="was made with other weights"):
        ek.search(store, table["path"][12], network=other)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("8/58", "found neither an image '8/58' in .* Did you mean '8/8"),
        ("0/7", r"cannot use '0/7', .*it is unreadable \(not an image"),
        (np.zeros(3), "a vector of 3 numbers and layer .* has 64 features"),
        (np.full(64, np.nan), "cannot use 'vector 0', .* it has a NaN"),
        (np.zeros((4, 4, 3)), "must be uint8 of shape"),
        (np.array(["a"]), "a query of type array of <U1 and shape"),
        ([], "an empty list of queries"),
        (7, "a query of type int; give the id"),
        ([[1.0, 2.0]], "a query of type list"),
    ],
)
def test_what_is_no_query_is_refused(store, query, message):
    """The message says what was found, and what there is."""
    with pytest.raises(InputError, match=message):
        ek.search(store, query, layer="stage3")


def test_files_that_hold_no_image_are_told(store, table, tmp_path):
    """Broken, missing, or many in one: the reason is in the message."""
    with pytest.raises(SourceError, match=r"the query .* cannot be read: not an image"):
        ek.search(store, table["path"][7])
    with pytest.raises(SourceError, match="gone"):
        ek.search(store, tmp_path / "gone.png")
    with tarfile.open(tmp_path / "two.tar", "w") as shard:
        for row in (0, 1):
            shard.add(table["path"][row], f"{row}.png")
    with pytest.raises(InputError, match="which holds 2 images; give"):
        ek.search(store, tmp_path / "two.tar")


def test_other_arguments_are_checked(store):
    """Counts, metrics, columns and layers, each with what there is."""
    with pytest.raises(InputError, match="n_neighbors=0; choose 1 or more"):
        ek.search(store, "8/85", n_neighbors=0)
    with pytest.raises(InputError, match=r"metric='cosin'. Did you mean 'cosine'"):
        ek.search(store, "8/85", metric="cosin")
    with pytest.raises(InputError, match=r"column 'widht', .* Did you mean 'width'"):
        ek.search(store, "8/85", columns=["widht"])
    with pytest.raises(NotInStore, match="no layer 'stage4'"):
        ek.search(store, "8/85", layer="stage4")


def test_a_layer_of_maps_is_refused(images, tmp_path):
    """Layers that were stored unpooled have no one vector per image."""
    store = ek.extract(
        images[:4], "embedkit/digits", tmp_path / "m.zarr", layers="stage1", pool="none"
    )

    with pytest.raises(InputError, match="search needs dims"):
        ek.search(store, "0/1")


def test_a_module_of_ones_own_has_to_be_given(images, table, tmp_path):
    """The store cannot load it again and says so; given, it is searched with."""
    digits = ek.load_network("embedkit/digits")
    own = ek.load_network(digits.module, transform=digits.transform, name="mine")
    store = ek.extract(images[:9], own, tmp_path / "own.zarr", layers="stage3")

    with pytest.raises(InputError, match=r"'mine' of .* was a module of yours"):
        ek.search(store, table["path"][3])
    found = ek.search(store, table["path"][3], network=own)

    assert found["id"].iloc[0] == "0/3"


def test_half_precision_is_rounded_alike(images, table, tmp_path):
    """A query is rounded as the stored rows are, so that a stored image is at 0."""
    store = ek.extract(
        images[:9],
        "embedkit/digits",
        tmp_path / "half.zarr",
        layers="stage3",
        dtype="float16",
    )

    found = ek.search(store, table["path"][3])

    assert found["distance"].iloc[0] <= 2**-9 * float(np.abs(store["stage3"][3]).max())


def test_rows_that_are_not_written_yet_are_not_found(store, monkeypatch):
    """NaN rows, as of a store that is being written, are nobody's hit."""
    x = store["stage3"].copy()
    seen = xr.where(np.arange(100) < 30, x.data.T, np.nan).T
    monkeypatch.setattr(
        type(store), "__getitem__", lambda self, name: x.copy(data=seen)
    )

    found = ek.search(store, "1/12", layer="stage3", n_neighbors=99)

    assert len(found) == 28


def test_more_hits_than_there_can_be(store):
    """Any number may be asked for; no memory is taken for what is not there."""
    found = ek.search(store, "8/85", layer="stage3", n_neighbors=10**12)

    assert len(found) == 98


def test_names_that_are_none(store):
    """An empty query is no folder, a number no column."""
    with pytest.raises(InputError, match=r"neither an image '' in .* nor a file of"):
        ek.search(store, "", layer="stage3")
    with pytest.raises(InputError, match="got column 1; give names of columns"):
        ek.search(store, "8/85", layer="stage3", columns=[1])
