"""``embedkit search`` and ``embedkit duplicates`` on a store of digits."""

import shutil

import pytest
from PIL import Image

import embedkit as ek


@pytest.fixture
def digit(digits):
    """One of the digits as a file."""
    return sorted((digits / "5").iterdir())[4]


def test_hits_are_those_of_the_function(run, store, digit):
    """Table and document hold what `search` returns, with the filter."""
    arguments = (
        "search",
        store,
        digit,
        "-l",
        "stage3",
        "-k",
        4,
        "--where",
        "label=='5'",
    )

    text = run(*arguments).out
    found = run(*arguments, "--json").json

    wanted = ek.search(
        store, digit, layer="stage3", n_neighbors=4, where="label=='5'", metric="cosine"
    )
    assert [each["id"] for each in found["hits"]] == wanted["id"].tolist()
    assert [each["rank"] for each in found["hits"]] == [1, 2, 3, 4]
    assert (found["metric"], found["searched"], found["where"]) == (
        "cosine",
        10,
        "label=='5'",
    )
    assert all(each in text for each in wanted["id"])
    assert "10 searched" in text
    assert f"to {digit}:" in text


def test_fewer_hits_than_asked_are_said(run, store):
    """A narrow filter finds few; several queries have a table each; columns are added."""
    fives = [each for each in ek.open_store(store).images.index if "5/" in str(each)]

    text = run(
        *("search", store, fives[0], fives[1], fives[0], "-k", 20),
        *("--where", "label=='5'", "--column", "status"),
    ).out

    assert text.count("only 9 images can be found") == 2
    assert text.count(f"to {fives[0]}:") == 1
    assert "status" in text


def test_a_sheet_is_drawn(run, store, digit, tmp_path):
    """The picture has room for the query and its hits; a lost file is a grey tile."""
    ids = [str(each) for each in ek.open_store(store).images.index]
    name = next(each for each in ids if each.endswith(digit.name))

    said = run("search", store, digit, name, "-k", 7, "--sheet", tmp_path / "s.png").out

    assert f"drawn into {tmp_path / 's.png'}" in said
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.width > picture.height


def test_nothing_found_is_nothing_drawn(run, store, digits, tmp_path):
    """A query that is the only image allowed finds nothing."""
    name = str(ek.open_store(store).images.index[0])

    said = run(
        *("search", store, name, "--where", f"image == '{name}'"),
        *("--sheet", tmp_path / "s.png"),
    ).out

    assert "only 0 images can be found" in said
    assert "nothing to draw" in said
    assert not (tmp_path / "s.png").exists()


def test_the_network_can_be_named(run, store, digit):
    """The right one is taken; random weights are another network."""
    right = run("search", store, digit, "-n", "embedkit/digits", "--json").json
    wrong = run(
        *("search", store, digit, "-n", "embedkit/digits", "--weights", "none"),
        expect=1,
    ).err

    assert right["hits"][0]["distance"] == pytest.approx(0, abs=1e-6)
    assert "was made with other weights" in wrong


def test_a_query_that_is_lost_is_a_grey_tile(run, digits, tmp_path):
    """The store still has its row; the sheet says that there is no picture."""
    folder = shutil.copytree(digits, tmp_path / "photos")
    path = tmp_path / "own.zarr"
    store = ek.extract(folder, "embedkit/digits", path, layers="stage3")
    name = str(store.images.index[0])
    (folder / name).unlink()

    said = run("search", path, name, "-k", 3, "--sheet", tmp_path / "s.png").out

    assert "drawn into" in said


def test_duplicates_are_listed_and_saved(run, store):
    """Groups within a distance, the one to keep first, and the same in the store."""
    arguments = ("duplicates", store, "-l", "stage3", "--threshold", 0.02)

    text = run(*arguments).out
    found = run(*arguments, "--json").json

    saved = ek.open_store(store).load(found["result"]).compute()
    assert found["result"] == "duplicates/stage3.relu_1"
    assert found["n_groups"] == len(found["groups"]) == saved.attrs["n_groups"] > 0
    kept = saved["image"].values[saved["keep"].values]
    assert all(names[0] in kept for names in found["groups"])
    assert not any(name in kept for names in found["groups"] for name in names[1:])
    assert f"{found['n_groups']} groups within 0.02 by cosine" in text


@pytest.mark.slow
def test_a_measured_threshold_and_leaks_are_said(run, store):
    """Precision and recall with intervals; leaks by pairs of splits."""
    arguments = ("duplicates", store, "-l", "stage3", "--split", "label", "-k", 3)

    text = run(*arguments).out
    found = run(*arguments, "--json").json

    assert "threshold measured on 50 altered copies: precision" in text
    assert "images have a duplicate in another split" in text
    assert found["threshold"] == found["control"]["threshold"] > 0
    assert found["n_leaks"] >= 0
    assert isinstance(found["leaks"], list)


def test_many_groups_are_cut_and_saturation_is_said(run, store):
    """A generous distance: the list is cut, and more neighbors are advised."""
    text = run("duplicates", store, "-l", "stage3", "--threshold", 0.02, "-k", 1).out
    wide = run("duplicates", store, "-l", "stage3", "--threshold", 2, "-k", 1).out

    assert "more groups" in text + wide
    assert "a larger -k may join more groups" in wide


def test_a_threshold_is_a_number_or_auto(run, store):
    """Anything else is refused by the command line itself."""
    said = run("duplicates", store, "--threshold", "near", expect=2).err

    assert "'near' is neither 'auto' nor a number" in said


def test_groups_are_shown_where_they_cannot_be_saved(run, store, monkeypatch):
    """A store that cannot be written is no reason to lose what was found."""
    from embedkit.errors import StoreError
    from embedkit.store.store import Store

    def refuse(self, name, result):
        raise StoreError("read only")

    monkeypatch.setattr(Store, "save", refuse)

    done = run("duplicates", store, "-l", "stage3", "--threshold", 0.002)

    assert "Not saved: read only" in done.err
    assert "saved as" not in done.out


def test_the_network_of_a_measured_threshold_is_checked(run, store):
    """Another network than the store's is refused."""
    said = run(
        *("duplicates", store, "-l", "stage3", "-n", "embedkit/digits"),
        *("--weights", "none"),
        expect=1,
    ).err

    assert "was made with other weights" in said
