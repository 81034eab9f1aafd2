"""Tests of queries that are files: at URLs, and decoded as the store's images were."""

import shutil

import numpy as np
import pytest
from PIL import Image

import embedkit as ek
from embedkit.errors import SourceError


def test_a_query_may_be_a_url(store, table, web):
    """The image behind it finds what the file finds."""
    folder, url = web
    name = shutil.copy(table["path"].iloc[23], folder / "query.png").name

    hits = ek.search(store, f"{url}/{name}", n_neighbors=3)

    expected = ek.search(store, table["path"].iloc[23], n_neighbors=3)
    assert hits["id"].tolist() == expected["id"].tolist()
    assert hits["id"].iloc[0] == table["name"].iloc[23]
    np.testing.assert_array_equal(hits["distance"], expected["distance"])


def test_a_url_that_is_not_there_is_an_error(store, web):
    """With the reason, and the query's name."""
    with pytest.raises(SourceError, match=r"query 'http.*none\.png' cannot be read"):
        ek.search(store, f"{web[1]}/none.png")


@pytest.mark.slow
def test_a_query_is_decoded_as_the_store_was(tmp_path, monkeypatch):
    """Where JPEGs were decoded small, one of them is at no distance from itself."""
    rng = np.random.default_rng(0)
    for number in range(3):
        noise = rng.integers(0, 255, (1200, 1200, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.jpg", quality=95)
    network = ek.load_network("resnet18", weights="none")
    store = ek.extract(
        sorted(tmp_path.glob("*.jpg")),
        network,
        tmp_path / "s.zarr",
        layers="last",
        decode="fast",
        batch_size=1,
    )

    hits = ek.search(store, tmp_path / "1.jpg", network=network)

    assert hits["id"].iloc[0] == "1.jpg"
    row = store["last" if "last" in store else next(iter(store))].values[1]
    assert hits["distance"].iloc[0] <= 1e-5 * np.linalg.norm(row)
