"""Images at URLs: the same numbers as from files, in threads and in worker processes."""

import shutil
import uuid
from urllib.parse import quote

import dask
import numpy as np
import pytest

import embedkit as ek
from embedkit.errors import IdentityMismatch, InputError
from embedkit.extraction import dispatch
from embedkit.files.files import files_at


@pytest.fixture
def bucket(s3_bucket, photos):
    """The pictures in an object store."""
    _upload(photos, s3_bucket)
    return s3_bucket


@pytest.fixture
def site(web, photos):
    """The URLs of the pictures on a web server."""
    folder, url = web
    shutil.copytree(photos, folder, dirs_exist_ok=True)
    names = files_at(photos).names()
    return [f"{url}/{quote(name)}" for name in names]


def _upload(photos, url):
    place, here = files_at(url), files_at(photos)
    for name in here.names():
        place.write(name, here.read(name))


def _same(store, other):
    for layer in other:
        assert store[layer].values.tobytes() == other[layer].values.tobytes(), layer
    assert store.images["status"].tolist() == other.images["status"].tolist()
    assert store.images.index.tolist() == other.images.index.tolist()


def test_a_bucket_is_what_the_folder_is(bucket, photos, network, tmp_path):
    """Same bytes, labels and statuses; the store verifies, and is complete."""
    store = ek.extract(bucket, network, tmp_path / "u.zarr", layers="all")

    local = ek.extract(photos, network, tmp_path / "s.zarr", layers="all")
    _same(store, local)
    here, there = (each.images.drop(columns="uri") for each in (local, store))
    assert there.equals(here)
    assert ek.verify(store, network=network).ok
    assert ek.extract(bucket, network, tmp_path / "u.zarr", layers="all").complete


def test_web_addresses_are_what_the_files_are(site, photos, network, tmp_path):
    """Same bytes and statuses; the store verifies, and is complete."""
    store = ek.extract(site, network, tmp_path / "u.zarr", layers="all")

    local = ek.extract(photos, network, tmp_path / "s.zarr", layers="all")
    _same(store, local)
    assert store.images["uri"].tolist() == site
    assert ek.verify(store, network=network).ok
    assert ek.extract(site, network, tmp_path / "u.zarr", layers="all").complete


def test_an_interrupted_run_goes_on(site, photos, network, tmp_path, monkeypatch):
    """With what is at the URLs then, which is the same."""

    def interrupt(progress):
        raise KeyboardInterrupt

    monkeypatch.setattr(dispatch, "CPU_COUNT", 1)
    with dask.config.set({"scheduler": "synchronous", "embedkit.window": 1}):
        with pytest.raises(KeyboardInterrupt):
            ek.extract(site, network, tmp_path / "u.zarr", on_progress=interrupt)
        store = ek.extract(site, network, tmp_path / "u.zarr")

    _same(store, ek.extract(photos, network, tmp_path / "s.zarr"))


def test_a_store_of_files_goes_on_with_their_urls(bucket, photos, network, tmp_path):
    """Images are told by their ids and contents, wherever they lie."""
    ek.extract(photos, network, tmp_path / "s.zarr", layers="last")

    store = ek.extract(bucket, network, tmp_path / "s.zarr", layers="all")

    assert store.complete
    assert store.images["uri"].str.startswith("s3://").all()
    _same(store, ek.extract(photos, network, tmp_path / "t.zarr", layers="all"))


def test_a_changed_object_is_found(bucket, network, tmp_path):
    """By its content, and only that row is another one then."""
    before = ek.extract(bucket, network, tmp_path / "u.zarr")["fc"].values
    files = files_at(bucket)
    files.write("cat/00.png", files.read("cat/02.png"))

    with pytest.raises(IdentityMismatch, match=r"1 changed \('cat/00.png'\)"):
        ek.extract(bucket, network, tmp_path / "u.zarr")
    after = ek.extract(bucket, network, tmp_path / "u.zarr", update=True)["fc"].values

    assert not np.array_equal(after[0], before[0])
    assert np.array_equal(after[1:], before[1:], equal_nan=True)


def test_an_image_that_was_away_is_mended(bucket, photos, network, tmp_path):
    """A row of NaN with the reason, until it can be read."""
    urls = [f"{bucket}/{name}" for name in files_at(photos).names()]
    files_at(bucket).delete("cat/00.png")

    store = ek.extract(urls, network, tmp_path / "u.zarr")
    assert store.images["error"].iloc[0] == "there is no such file at this URL"
    _upload(photos, bucket)
    store = ek.extract(urls, network, tmp_path / "u.zarr")

    _same(store, ek.extract(photos, network, tmp_path / "s.zarr"))


@pytest.mark.slow
def test_worker_processes_read_urls(bucket, site, photos, network, tmp_path):
    """By the environment that they inherit; memory:// is not theirs to see."""
    memory = f"memory://{uuid.uuid4().hex}"
    _upload(photos, memory)
    with ek.connect(n_workers=2, dashboard_port=0):
        stored = ek.extract(bucket, network, tmp_path / "b.zarr", layers="all")
        shown = ek.extract(site, network, tmp_path / "w.zarr", layers="all")
        with pytest.raises(InputError, match=r"memory of this process, which worker"):
            ek.extract(memory, network, tmp_path / "m.zarr")

    local = ek.extract(photos, network, tmp_path / "s.zarr", layers="all")
    _same(stored, local)
    _same(shown, local)
