"""``embedkit index`` and ``embedkit search --index`` on a store of digits."""

import pytest

import embedkit as ek


@pytest.fixture
def some(store):
    """An id of the store."""
    return str(ek.open_store(store).images.index[5])


def test_an_index_is_built_and_saved_beside_the_store(run, store):
    """What is printed is the index that is there, of the last layer by default."""
    text = run("index", store).out
    told = run("index", store, "-k", 5, "--recall", 0.8, "--json").json

    index = ek.open_index(store.with_name("digits.index") / "fc")
    assert repr(index) in text
    assert f"saved in {store.with_name('digits.index') / 'fc'}" in text
    assert told["folder"] == str(store.with_name("digits.index") / "fc")
    assert (told["layer"], told["kind"], told["metric"]) == ("fc", "flat", "cosine")
    assert (told["n_images"], told["n_neighbors"], told["recall"]) == (99, 5, 1.0)


def test_a_plan_is_told_and_nothing_built(run, store):
    """In words or as a document; what is no size is refused."""
    text = run("index", store, "--dry-run").out
    told = run("index", store, "--dry-run", "--memory-limit", "1MB", "--json").json

    assert text.startswith("flat of 0 B over 100 images of 10 features, exact: 3 tasks")
    assert (told["kind"], told["n_images"]) == ("flat", 100)
    assert not store.with_name("digits.index").exists()
    said = run("index", store, "--memory-limit", "much", expect=1).err
    assert "memory_limit='much'; give bytes" in said


def test_search_asks_the_index(run, store, some, tmp_path):
    """Its metric holds, its recall is said, and the hits are those of the scan."""
    out = tmp_path / "mine"
    run("index", store, "-l", "stage3", "--metric", "euclidean", "-o", out)

    text = run("search", store, some, "-l", "stage3", "--index", out).out
    found = run("search", store, some, "-l", "stage3", "--index", out, "--json").json

    exact = ek.search(store, some, layer="stage3", metric="euclidean")
    assert "euclidean in stage3.relu_1, 99 searched by an index (flat), recall" in text
    assert [each["id"] for each in found["hits"]] == exact["id"].tolist()
    assert (found["index"], found["metric"]) == ("flat", "euclidean")
    assert found["recall_low"] == 1.0


def test_the_index_beside_the_store_is_asked(run, store, some):
    """``auto`` finds it; with a condition the search is exact and says so."""
    before = run("search", store, some, "--index", "auto", expect=1).err
    run("index", store)

    text = run("search", store, some, "--index", "auto").out
    narrow = run(
        *("search", store, some, "--index", "auto", "--where", "label == '1'")
    ).out

    assert "index='auto' and there is none of layer fc at" in before
    assert "nearest by cosine in fc, 99 searched by an index" in text
    assert "searched exactly, without the index, as there is a condition" in narrow


def test_another_metric_is_refused(run, store, some):
    """The message names both metrics and the folder."""
    run("index", store)

    said = run(
        *("search", store, some, "--index", "auto", "--metric", "euclidean"), expect=1
    ).err

    assert "metric='euclidean' and the index at" in said
    assert "orders by 'cosine'" in said


def test_the_folder_is_checked_before_anything_is_built(run, store):
    """Neither inside the store nor in an object store."""
    for out in (store, store / "inner", "s3://bucket/index"):
        said = run("index", store, "-o", out, expect=1).err

        assert f"an index cannot be saved in {out}; give a folder" in said
    assert not (store / "inner").exists()
    assert not store.with_name("digits.index").exists()


def test_a_recall_is_a_share(run, store):
    """Whole recall is what neighbors and search give without an index."""
    said = run("index", store, "--recall", 1, expect=2).err

    assert "1.0 is not in the range 0<x<1" in said
