"""Duplicates of a store: by distance, by bytes, by a measured threshold."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import embedkit as ek
from embedkit.errors import InputError
from embedkit.images.altered import altered


@pytest.fixture
def nn(store):
    """Five neighbors of each digit."""
    return ek.neighbors(store["stage3"], n_neighbors=5)


def test_files_of_the_same_bytes_are_one_group(store, nn):
    """Without any distance the copied file is the only duplicate, and its copy goes."""
    found = ek.duplicates(nn, threshold=0, store=store)

    assert np.flatnonzero(found["group"] == 0).tolist() == [3, 50]
    assert np.flatnonzero(~found["keep"]).tolist() == [50]
    assert found["distance"].values[[3, 50]].tolist() == [0, 0]
    assert found.attrs["n_groups"] == found.attrs["n_duplicates"] == 1
    assert found["group"].dims == ("image",)
    assert "label" in found.coords


def test_unreadable_files_of_the_same_bytes_are_one_group(nn):
    """Rows without numbers are joined by what is given as equal; zeros are not."""
    exact = np.zeros(100, np.uint64)
    exact[[7, 90]] = 5

    found = ek.duplicates(nn, threshold=0, exact=exact)

    assert found["group"].values[[7, 90]].tolist() == [1, 1]  # 3 and 50 come first
    assert found["keep"].values[[7, 90]].tolist() == [False, True]
    assert found["distance"].values[[7, 90]].tolist() == [0, 0]


def test_a_measured_threshold_comes_with_its_worth(store, nn):
    """ "auto" is what duplicate_threshold gives for the same layer and metric."""
    control = ek.duplicate_threshold(store, layer="stage3")

    found = ek.duplicates(nn, threshold="auto", store=store)
    given = ek.duplicates(nn, threshold=control, store=store)

    assert found.identical(given)
    assert found.attrs["threshold"] == control.threshold
    assert found.attrs["control"] == control.to_json()


def test_leaks_are_counted_by_pairs_of_splits(store, nn):
    """The twins are in two parts: both leak, in one group of that pair."""
    found = ek.duplicates(nn, threshold=0, store=store, split="part")

    assert np.flatnonzero(found["leak"]).tolist() == [3, 50]
    assert found.attrs["leaks"] == [
        {"splits": ["test", "train"], "groups": 1, "images": 2}
    ]


def test_what_to_keep_can_be_preferred(store, nn):
    """The wider of the twins is kept, by a column or by values."""
    by_name = ek.duplicates(nn, threshold=0, store=store, prefer="width")
    by_value = ek.duplicates(nn, threshold=0, store=store, prefer=-np.arange(100))

    assert np.flatnonzero(~by_name["keep"]).tolist() == [3]
    assert np.flatnonzero(~by_value["keep"]).tolist() == [50]


def test_the_chunks_of_the_neighbors_do_not_show(store):
    """Groups of a layer in one chunk are those of it in many."""
    x = store["stage3"]
    whole, pieces = (
        ek.duplicates(
            ek.neighbors(x.chunk(image=size), n_neighbors=5), threshold=3.0, store=store
        )
        for size in (100, 9)
    )

    assert whole.attrs["n_groups"] > 3
    assert whole.identical(pieces)


def test_the_result_can_be_saved(store, nn, tmp_path):
    """Groups, leaks and the threshold's worth come back from the store."""
    import shutil

    copy = ek.open_store(shutil.copytree(store.path, tmp_path / "copy.zarr"))
    found = ek.duplicates(nn, threshold="auto", store=store, split="part")

    copy.save("duplicates/stage3", found)
    loaded = copy.load("duplicates/stage3").compute()

    for name in ("group", "keep", "distance", "leak"):
        np.testing.assert_array_equal(loaded[name], found[name])
    assert loaded.attrs["leaks"] == found.attrs["leaks"]
    assert loaded.attrs["control"] == found.attrs["control"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": -1}, "threshold=-1; give a distance of 0 or more"),
        ({"threshold": float("nan")}, "threshold=nan; give a distance"),
        ({"threshold": True}, "threshold=True; give a distance"),
        ({"threshold": "best"}, "threshold='best'; give a distance or 'auto'"),
        ({"threshold": "auto"}, r"threshold='auto' for euclidean .* store=None; pass"),
        (
            {"threshold": 1, "split": "prat"},
            r"no column 'prat' for split. Did you mean",
        ),
        ({"threshold": 1, "split": [1, 2]}, r"split of shape \(2,\) for 100 images"),
        ({"threshold": 1, "prefer": "label"}, "prefer of .*; give numbers"),
        (
            {"threshold": 1, "exact": [1.5]},
            r"exact for each of 100 .* float64 of shape",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(nn, options, message):
    """Each message says what was given and what is needed."""
    with pytest.raises(InputError, match=message):
        ek.duplicates(nn, **options)


def test_other_neighbors_are_refused(store, nn):
    """Inner products, another layer's threshold, another store's images."""
    products = ek.neighbors(store["stage3"], n_neighbors=3, metric="inner_product")
    control = ek.duplicate_threshold(store, layer="stage3", metric="cosine")

    with pytest.raises(InputError, match="by inner product, which is no distance"):
        ek.duplicates(products, threshold=1)
    with pytest.raises(InputError, match="for cosine distances in stage3"):
        ek.duplicates(nn, threshold=control)
    with pytest.raises(InputError, match="neighbors of 50 images and a store of 100"):
        ek.duplicates(nn.isel(image=slice(50)), threshold=1, store=store)
    with pytest.raises(InputError, match="two orders of images"):
        ek.duplicates(nn.isel(image=slice(None, None, -1)), threshold=1, store=store)


@pytest.mark.slow
def test_copies_that_were_planted_are_found_as_leaks(shared_data, tmp_path):
    """Of 24 altered photos in another split nearly all are found, and little else."""
    weights = shared_data / "weights" / "squeezenet1_0_imagenet_deepcompression.pt"
    photos = sorted((shared_data / "clothing_cc0" / "train").rglob("*.jpg"))[::6]
    copies = []
    for row in range(24):
        kind = ("jpeg", "resize", "crop", "light")[row % 4]
        copy = altered(
            Image.open(photos[4 * row]), kind, rng=np.random.default_rng(row)
        )
        copies.append(tmp_path / f"{row}.png")
        copy.save(copies[-1])
    table = pd.DataFrame(
        {
            "path": [*photos, *copies],
            "split": ["train"] * len(photos) + ["test"] * len(copies),
        }
    )
    table["path"] = table["path"].astype(str)
    network = ek.load_network("squeezenet1_0", weights=weights)
    store = ek.extract(
        table, network, tmp_path / "photos.zarr", layers="features.12.cat"
    )
    nn = ek.neighbors(store["features.12.cat"], n_neighbors=5, metric="cosine")

    found = ek.duplicates(nn, threshold="auto", store=store, split="split")

    group = found["group"].values
    together = [
        group[len(photos) + row] == group[4 * row] >= 0 for row in range(len(copies))
    ]
    assert sum(together) >= 22
    assert found["leak"].values.sum() >= 44
    assert found.attrs["n_groups"] <= 27
    (pair,) = found.attrs["leaks"]
    assert pair["splits"] == ["test", "train"]
    assert pair["groups"] >= 22


def test_a_store_is_one_that_is_open(nn, path):
    """A path is none."""
    with pytest.raises(
        InputError, match=r"store of type \w+; give what open_store ret"
    ):
        ek.duplicates(nn, threshold=1, store=str(path))
