"""Search indexes: what they find, how they grow, how they are kept."""

from concurrent.futures import ThreadPoolExecutor

import dask
import numpy as np
import pytest
import xarray as xr

import embedkit as ek
from embedkit.analysis.index import tasks as index_tasks
from embedkit.errors import (
    CorruptStore,
    InputError,
    PlanError,
    RecallNotReached,
    StoreError,
)

METRICS = ("euclidean", "cosine", "inner_product")
N, D = 6000, 16
LIMITS = {
    "hnsw": None,
    "ivf_flat": N * (4 * D + 80),
    "ivf_sq8": N * (D + 30),
    "ivf_pq": N * 8 + N * D + 310 * 4 * D - N,
    "sharded": 10_000,
}


def _rows(n=N, d=D):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 30, n)
    rows = 2 * rng.normal(size=(30, d))[labels] + rng.normal(size=(n, d))
    rows[5], rows[7], rows[[8, 9]] = np.nan, np.inf, 0
    return rows.astype(np.float32)


@pytest.fixture(scope="module")
def wrapped():
    """Rows with ids, in memory."""
    ids = [f"img{i:04d}" for i in range(N)]
    return xr.DataArray(
        _rows(), dims=("image", "feature"), coords={"image": ids}, name="fc"
    )


@pytest.fixture(scope="module")
def built(wrapped):
    """One index of each kind, built once; tests do not change them."""
    made = {}

    def get(kind, metric="euclidean"):
        if (kind, metric) not in made:
            made[kind, metric] = ek.build_index(
                wrapped, metric=metric, memory_limit=LIMITS[kind]
            )
        return made[kind, metric]

    return get


def _share(found, exact):
    """Share of answers as near as the exact ones."""
    near, wanted = found["distances"].values, exact["distances"].values
    last = np.fmax.reduce(wanted, axis=1)
    reach = last + 1e-5 * np.abs(last)
    return (near <= reach[:, None]).mean()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["hnsw", "ivf_flat", "ivf_sq8", "sharded"])
def test_new_images_find_their_neighbors(built, wrapped, kind, metric):
    """The recall holds for vectors that are not in the index."""
    index = built(kind, metric)
    rng = np.random.default_rng(5)
    picked = rng.choice(np.arange(20, N), 300)
    queries = wrapped.values[picked] + 0.3 * rng.normal(size=(300, D))

    found = index.search(queries)

    asked = xr.DataArray(queries, dims=("image", "feature"))
    exact = ek.neighbors(wrapped, queries=asked, n_neighbors=10, metric=metric)
    assert index.kind == ("ivf_flat" if kind == "sharded" else kind)
    assert (len(index.faiss) > 1) == (kind == "sharded")
    assert index.recall.low >= 0.95
    assert _share(found, exact) >= 0.93
    both = found["indices"].values == exact["indices"].values
    near, wanted = found["distances"].values, exact["distances"].values
    assert (near[both] == wanted[both]).all()
    assert (np.diff(near, axis=1) >= 0).all()


@pytest.mark.parametrize("metric", METRICS)
def test_few_images_are_compared_exactly(wrapped, metric):
    """Up to a few thousand rows the answer is that of `neighbors`."""
    x = wrapped[:900]
    index = ek.build_index(x, metric=metric, n_neighbors=6)

    found = index.search(x["image"].values.tolist()[10:200])

    exact = ek.neighbors(x, n_neighbors=6, metric=metric)
    assert index.kind == "flat"
    assert index.recall.low == 1
    assert (found["indices"].values == exact["indices"].values[10:200]).all()
    assert (found["distances"].values == exact["distances"].values[10:200]).all()


@pytest.mark.parametrize("kind", ["hnsw", "ivf_flat", "sharded"])
def test_ids_leave_themselves_out(built, wrapped, kind):
    """An image finds others; its vector finds the image itself."""
    index = built(kind)

    by_id = index.search("img0123", k=4)
    by_vector = index.search(wrapped.values[123], k=5)
    by_array = index.search(wrapped[123:125], 5)

    assert "img0123" not in by_id["image"].values
    assert by_id["query"].values.tolist() == ["img0123"]
    assert by_vector["image"].values[0, 0] == "img0123"
    assert by_vector["distances"].values[0, 0] == 0
    assert (
        by_vector["image"].values[0, 1:].tolist() == by_id["image"].values[0].tolist()
    )
    assert by_array["query"].values.tolist() == ["img0123", "img0124"]
    assert by_array["image"].values[1, 0] == "img0124"
    assert by_id.attrs["recall_low"] == index.recall.low


@pytest.mark.parametrize("kind", ["hnsw", "ivf_flat", "sharded"])
def test_zero_and_unreadable_queries(built, kind):
    """Under cosine zero is at distance 1 of all; what is not finite finds nothing."""
    index = built(kind, "cosine")
    queries = np.stack([np.zeros(D), np.full(D, np.nan), _rows()[20]])

    found = index.search(queries, 3)

    assert found["image"].values[0].tolist() == ["img0000", "img0001", "img0002"]
    assert (found["distances"].values[0] == 1).all()
    assert (found["indices"].values[1] == -1).all()
    assert np.isnan(found["distances"].values[1]).all()
    assert found["image"].values[1].tolist() == ["", "", ""]
    assert found["image"].values[2, 0] == "img0020"


def test_zero_rows_are_found_under_cosine():
    """They are at distance 1, before whatever points the other way."""
    rows = -np.abs(_rows()[10:5010])
    rows[[3, 4]] = 0
    x = xr.DataArray(rows, dims=("image", "feature"))

    found = ek.build_index(x, metric="cosine").search(np.ones(D), 3)

    assert found["indices"].values[0, :2].tolist() == [3, 4]
    assert (found["distances"].values[0, :2] == 1).all()


@pytest.mark.slow
def test_product_codes_are_measured_again(wrapped):
    """Where only codes fit, many candidates are compared in float64."""
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(12000, 8)) @ rng.normal(size=(8, 64))).astype(np.float32)
    x = xr.DataArray(rows, dims=("image", "feature"))

    index = ek.build_index(x, memory_limit=12000 * 18 + 438 * 64 * 4, recall=0.9)

    assert index.kind == "ivf_pq"
    assert index.recall.low >= 0.9
    found = index.search(rows[40:60], 1)
    assert found["indices"].values[:, 0].tolist() == list(range(40, 60))


@pytest.mark.parametrize("kind", ["hnsw", "ivf_flat", "sharded"])
@pytest.mark.parametrize("metric", METRICS)
def test_added_images_are_found(wrapped, kind, metric):
    """They get the next row numbers, and everything is as if built with them."""
    index = ek.build_index(
        wrapped[:5000], metric=metric, memory_limit=LIMITS[kind], recall=0.9
    )

    index.add(wrapped[5000:])

    assert len(index) == N - 2
    vectors = wrapped.values[[5100, 40]]
    found = index.search(vectors, 1)["image"].values[:, 0].tolist()
    assert metric == "inner_product" or found == ["img5100", "img0040"]
    again = index.search(["img5100", "img0040"], 3)
    assert "img5100" not in again["image"].values[0]
    with pytest.raises(InputError, match="the id 'img0100', which is in the index"):
        index.add(wrapped[100:101])


@pytest.mark.parametrize("kind", ["flat", "ivf_flat", "sharded"])
def test_removed_images_are_gone(wrapped, kind):
    """Others keep their row numbers; the id may be added again."""
    size = 3000 if kind == "flat" else N
    index = ek.build_index(wrapped[:size], memory_limit=LIMITS.get(kind), recall=0.9)
    near = index.search("img0200", 3)["image"].values[0].tolist()

    index.remove([*near[:2], "img0300"])

    assert len(index) == size - 5
    assert index.search("img0200", 1)["image"].values[0, 0] == near[2]
    with pytest.raises(InputError, match="no image 'img0300' that can be found"):
        index.search("img0300")


def test_a_graph_cannot_forget(built):
    """It says what to do instead."""
    with pytest.raises(InputError, match=r"cannot take rows out of a graph .* anew"):
        built("hnsw").remove(["img0001"])


def test_longer_rows_do_not_fit_inner_products(built, wrapped):
    """An order that would be wrong is refused."""
    index = built("ivf_flat", "inner_product")
    more = (3 * wrapped[20:30]).assign_coords(image=[f"x{i}" for i in range(10)])

    with pytest.raises(
        InputError, match="times as long as this index of inner products"
    ):
        index.add(more)


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf_flat", "sharded"])
def test_saved_and_opened(wrapped, tmp_path, kind):
    """The same answers, also after growing and saving again."""
    size = 3000 if kind == "flat" else 5000
    index = ek.build_index(wrapped[:size], memory_limit=LIMITS.get(kind), recall=0.9)
    place = tmp_path / "deep" / "index"
    queries = wrapped.values[size : size + 50]

    index.save(place)
    opened = ek.open_index(place)

    assert repr(opened) == repr(index)
    assert opened.search(queries).identical(index.search(queries))
    opened.add(wrapped[size:])
    opened.save(place)
    third = ek.open_index(place)
    assert third.search(queries).identical(opened.search(queries))
    assert len(third) == N - 2
    assert not [each for each in place.iterdir() if each.name.startswith(".")]
    if kind != "hnsw":
        third.remove(["img0100"])
        third.save(place)
        assert len(ek.open_index(place)) == N - 3


def test_damage_is_told(wrapped, tmp_path):
    """Missing, changed and cut files, and what is no index."""
    ek.build_index(wrapped[:5000], recall=0.9).save(tmp_path / "i")
    part = next((tmp_path / "i").glob("part-*"))
    rows = next((tmp_path / "i").glob("rows-*"))
    manifest = tmp_path / "i" / "index.json"
    good = part.read_bytes()

    part.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(CorruptStore, match=r"part-\w+\.faiss is not what was saved"):
        ek.open_index(tmp_path / "i")
    part.unlink()
    with pytest.raises(CorruptStore, match=r"part-\w+\.faiss is missing"):
        ek.open_index(tmp_path / "i")
    part.write_bytes(good)
    rows.write_bytes(rows.read_bytes()[:-4])
    with pytest.raises(CorruptStore, match=r"has 319996 bytes instead of 320000"):
        ek.open_index(tmp_path / "i")
    rows.unlink()
    with pytest.raises(CorruptStore, match=r"rows-\w+\.raw is missing"):
        ek.open_index(tmp_path / "i")
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(StoreError, match=r"has format 9 .* this one reads 1: update"):
        ek.open_index(tmp_path / "i")
    manifest.write_text("{")
    with pytest.raises(CorruptStore, match=r"index.json is not what was saved"):
        ek.open_index(tmp_path / "i")
    with pytest.raises(
        StoreError, match=r"no search index at .*nowhere: give the folder"
    ):
        ek.open_index(tmp_path / "nowhere")


def test_only_folders(wrapped):
    """A URL has no files that FAISS could map."""
    with pytest.raises(InputError, match="got s3://bucket/i; give a folder"):
        ek.build_index(wrapped[:100]).save("s3://bucket/i")


def test_many_queries_go_to_the_workers(built, wrapped, client, monkeypatch):
    """With the same answers as here."""
    monkeypatch.setattr(index_tasks, "MANY", 100)
    monkeypatch.setattr(index_tasks, "_BATCH", 64)
    queries = wrapped.values[1000:1300]

    for kind in ("hnsw", "sharded"):
        index = built(kind)
        found = index.search(queries)
        monkeypatch.setattr(index_tasks, "MANY", 1000)
        assert index.search(queries).identical(found)
        monkeypatch.setattr(index_tasks, "MANY", 100)


def test_many_queries_without_a_cluster(built, wrapped, monkeypatch):
    """Are answered here."""
    monkeypatch.setattr(index_tasks, "MANY", 10)

    assert built("hnsw").search(wrapped.values[20:40]).sizes["query"] == 20


def test_lists_do_not_depend_on_chunks(wrapped):
    """Lists are a function of the rows and the seed."""
    queries = wrapped.values[3000:3200]
    options = {"memory_limit": LIMITS["ivf_flat"], "recall": 0.9}

    here = ek.build_index(wrapped, **options)
    with dask.config.set(scheduler="synchronous"):
        lazy = ek.build_index(wrapped.chunk(image=777), **options)

    assert lazy.recall == here.recall
    assert lazy.search(queries).identical(here.search(queries))


def test_a_recall_that_is_out_of_reach_is_refused(wrapped, monkeypatch):
    """With what was reached."""
    monkeypatch.setattr(
        "embedkit.analysis.index.build._ladder",
        lambda *_: [ek.build_index(wrapped[:50])._made.effort],
    )

    with pytest.raises(
        RecallNotReached, match=r"recall=0.99 and reached 0\.\d+ \["
    ) as e:
        ek.build_index(wrapped, recall=0.99, memory_limit=LIMITS["ivf_flat"])
    assert e.value.recall[1] <= e.value.recall[0] <= e.value.recall[2]


def test_repr_states_what_is_known(built, wrapped):
    """Rows, type, bytes, recall with its interval, speed."""
    text = repr(built("sharded"))

    assert text.startswith("<Index ivf_flat in ")
    assert "files, euclidean: 5,998 images x 16 features" in text
    assert f"recall@10 {built('sharded').recall} (95 % of " in text
    assert text.endswith("queries/s>")
    assert repr(ek.build_index(wrapped[:100])).endswith("; exact>")
    assert built("hnsw").nbytes > built("ivf_flat").nbytes > built("ivf_sq8").nbytes


def test_wrong_questions(built, wrapped):
    """Each has its message."""
    index = built("ivf_flat")

    with pytest.raises(InputError, match="rows of 15 features and the index has 16"):
        index.search(wrapped.values[0, :15])
    with pytest.raises(InputError, match=r"no image 'img99'.*Did you mean 'img"):
        index.search("img99")
    with pytest.raises(InputError, match="k=0; choose 1 or more"):
        index.search("img0001", 0)
    with pytest.raises(InputError, match=r"shape \(2, 3, 4\)"):
        index.search(np.zeros((2, 3, 4)))
    with pytest.raises(InputError, match="needs dims"):
        index.search(wrapped.rename(feature="other"))


def test_wrong_builds(wrapped):
    """Each has its message."""
    for recall in (0, 1.0, np.nan):
        with pytest.raises(
            InputError, match="choose one between 0 and 1, or use neigh"
        ):
            ek.build_index(wrapped, recall=recall)
    with pytest.raises(InputError, match="n_neighbors=6000 for 6000 images"):
        ek.build_index(wrapped, n_neighbors=N)
    with pytest.raises(InputError, match="metric='l2'; choose one of"):
        ek.build_index(wrapped, metric="l2")
    twice = wrapped.assign_coords(image=["a"] * N)
    with pytest.raises(
        InputError, match="distinct image ids and 'a' is there 6000 times"
    ):
        ek.build_index(twice)
    with pytest.raises(
        PlanError, match=r"memory_limit=1000 bytes .* raise it, or pass"
    ):
        ek.build_index(wrapped, memory_limit=1000, sharded=False)


def test_options_that_are_none(wrapped):
    """Sizes, seeds, recalls and files, each with its message."""
    for limit in (0, -1, 1.5, True, "much"):
        with pytest.raises(InputError, match=r"memory_limit=.*; give bytes, or a size"):
            ek.build_index(wrapped, memory_limit=limit)
    with pytest.raises(InputError, match="sharded='no'; choose 'auto', True or Fal"):
        ek.build_index(wrapped, sharded="no")
    with pytest.raises(InputError, match="seed=-1; choose 0 or more"):
        ek.build_index(wrapped, seed=-1)
    with pytest.raises(InputError, match="recall=much; choose one between 0 and 1"):
        ek.build_index(wrapped, recall="much")
    with pytest.raises(InputError, match="got 1 images; give two or more"):
        ek.build_index(wrapped[:1])


def test_questions_that_are_none(built, wrapped, tmp_path):
    """Nothing, numbers for ids, files for folders."""
    index = ek.build_index(wrapped[:100])

    with pytest.raises(InputError, match="empty list of queries; give vectors"):
        index.search([])
    with pytest.raises(InputError, match=r"array of shape \(\) and object; give one"):
        index.search(None)
    with pytest.raises(InputError, match="remove got 5; give ids of images"):
        index.remove(5)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="file, which is a file; give a folder"):
        index.save(tmp_path / "file")
    with pytest.raises(StoreError, match=r"no search index at .*file: give the folder"):
        ek.open_index(tmp_path / "file")
    with pytest.raises(InputError, match="open_index got s3://b/i; give a folder"):
        ek.open_index("s3://b/i")
    assert index.search(np.zeros((0, D))).sizes["query"] == 0


@pytest.mark.parametrize("limit", [None, 100 * N, 10_000])
@pytest.mark.parametrize("count", [0, 30])
def test_where_few_rows_can_be_found_they_are_compared(limit, count):
    """Nearly all images are unreadable, or zero under cosine: no structure is needed."""
    rows = np.full((N, 4), np.nan, np.float32)
    rows[100 : 100 + count] = np.random.default_rng(0).normal(size=(count, 4))
    x = xr.DataArray(rows, dims=("image", "feature"))

    index = ek.build_index(x, memory_limit=limit)
    blank = ek.build_index(0 * x.fillna(0), metric="cosine", memory_limit=limit)

    found = index.search(np.zeros(4), 40)["indices"].values[0]
    exact = np.argsort(np.linalg.norm(rows[100 : 100 + count], axis=1)) + 100
    assert index.kind == blank.kind == "flat"
    assert found.tolist() == exact.tolist() + [-1] * (40 - count)
    assert blank.search(np.ones(4), 3)["indices"].values.tolist() == [[0, 1, 2]]


def test_threads_share_an_index(built, wrapped):
    """How hard one of them tries is nothing to another."""
    index = built("hnsw")
    queries = wrapped.values[1000:1100]
    alone = {k: index.search(queries, k)["indices"].values for k in (3, 400)}

    with ThreadPoolExecutor(4) as pool:
        asked = [3, 400] * 6
        found = pool.map(lambda k: index.search(queries, k)["indices"].values, asked)
        pairs = list(zip(asked, found, strict=True))

    assert all((got == alone[k]).all() for k, got in pairs)


def test_integers_are_vectors(built):
    """Whole numbers are converted."""
    assert built("hnsw").search(np.ones(D, int), 2).sizes["neighbor"] == 2


def test_more_neighbors_than_rows(wrapped):
    """What is missing is -1, NaN and no name."""
    found = ek.build_index(wrapped[10:13], n_neighbors=2).search("img0011", 5)

    assert found["indices"].values[0, 2:].tolist() == [-1, -1, -1]
    assert found["image"].values[0, 2:].tolist() == ["", "", ""]
