"""Stores in an object store: written by threads and by worker processes, read, repaired."""

import uuid

import dask
import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from torch import nn
from zarr.storage import ObjectStore

import embedkit as ek
from embedkit.errors import IdentityMismatch, StoreError
from embedkit.extraction import dispatch
from embedkit.files.files import files_at
from embedkit.store.lock import locked


@pytest.fixture(params=["memory", "s3"])
def url(request):
    """A place that is no path: in this process, and in a server."""
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    return request.getfixturevalue("s3_bucket") + "/deep/photos.zarr"


@pytest.fixture(scope="module")
def pixels():
    """A hundred noisy pictures in memory."""
    rng = np.random.default_rng(2)
    return rng.integers(0, 256, (100, 12, 12, 3), dtype=np.uint8)


def _same(store, other):
    for layer in other:
        assert store[layer].values.tobytes() == other[layer].values.tobytes(), layer
        assert (
            store[layer]["status"].values.tolist()
            == other[layer]["status"].values.tolist()
        )


@pytest.mark.slow
def test_a_run_in_this_process(url, photos, network, tmp_path):
    """Same numbers, statuses and table as on a file system; nothing else is left."""
    store = ek.extract(photos, network, url, layers="all")

    local = ek.extract(photos, network, tmp_path / "s.zarr", layers="all")
    _same(store, local)
    assert store.url == url
    assert store.finished
    assert store.images.drop(columns="uri").equals(local.images.drop(columns="uri"))
    names = files_at(url).names("_embedkit")
    assert not [
        name
        for name in names
        if "spool" in name or "lock" in name or "attempts" in name
    ]
    assert store.verify().ok
    assert store.info()["nbytes_stored"] > 10_000
    assert ek.extract(photos, network, url, layers="all").complete
    with pytest.raises(StoreError, match="no path in the file system"):
        _ = store.path


@pytest.mark.slow
def test_the_life_of_a_store(url, pixels, network, tmp_path, monkeypatch):
    """Interrupted, resumed, grown, given layers, results, damaged, repaired."""

    def interrupt(progress):
        raise KeyboardInterrupt

    monkeypatch.setattr(dispatch, "CPU_COUNT", 1)
    with dask.config.set({"scheduler": "synchronous", "embedkit.window": 1}):
        with pytest.raises(KeyboardInterrupt):
            ek.extract(pixels[:80], network, url, layers="last", on_progress=interrupt)
        assert ek.open_store(url).blocks == (1, 3)
        assert np.isnan(ek.open_store(url)["fc"].values).any()
        ek.extract(pixels[:80], network, url, layers="last")
    ek.extract(pixels, network, url, layers="last")
    store = ek.extract(pixels, network, url, layers="all")

    whole = ek.extract(pixels, network, tmp_path / "w.zarr", layers="all")
    _same(store, whole)
    nn = ek.neighbors(store["fc"], n_neighbors=3)
    store.save("neighbors/fc", nn)
    store.save("neighbors/fc", nn)
    np.testing.assert_array_equal(
        ek.open_store(url).load("neighbors/fc")["indices"].values, nn["indices"].values
    )
    assert store.locate(["0003", "0099"]).tolist() == [3, 99]
    with pytest.raises(IdentityMismatch, match="gone"):
        ek.extract(pixels[:10], network, url, layers="all")
    files = files_at(url)
    shard = next(name for name in files.names("layers/conv2") if "/c.1" in name)
    files.delete(f"layers/conv2/{shard}")
    found = ek.verify(url, network=network, images=ek.open_images(pixels), repair=True)
    assert (found.ok, found.repaired) == (True, 1)
    _same(ek.open_store(url), whole)


def test_one_driver_at_a_time(url, photos, network):
    """The lock is a conditional put."""
    ek.extract(photos, network, url, layers="last")

    with locked(files_at(url)), pytest.raises(StoreError, match="is being written by"):
        ek.extract(photos, network, url, layers="all")


@pytest.mark.slow
def test_a_beginning_that_was_killed_is_begun_anew(url, photos, network, monkeypatch):
    """Nothing can be renamed there: what lies under the mark does not count."""

    class _KilledError(BaseException):
        pass

    def killed(*_args):
        raise _KilledError

    with monkeypatch.context() as patched:
        patched.setattr("embedkit.store.layout._settle", killed)
        with pytest.raises(_KilledError):
            ek.extract(photos, network, url, layers="last")
    with pytest.raises(StoreError):
        ek.open_store(url)

    assert ek.extract(photos, network, url, layers="last").finished


class Wandering(nn.Module):
    """Cannot be traced: its layers are calls of modules, with a number sign in them."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU()

    def forward(self, x):
        if x.sum() > 1e9:
            return x
        return self.relu(self.relu(self.conv(x)) - 0.1), x.mean((2, 3))


@pytest.mark.slow
def test_names_with_a_number_sign(url, photos, network, tmp_path):
    """Layers called ``path#call`` and images with odd names are stored under their names."""
    (photos / "cat" / "00.png").rename(photos / "cat" / "a#b%2F c?.png")
    wandering = ek.load_network(Wandering(), transform=network.transform)
    layers = ["conv#0", "relu#0", "relu#1", "forward#0.1"]
    local = ek.extract(photos, wandering, tmp_path / "s.zarr", layers=layers)

    store = ek.extract(photos, wandering, url, layers=layers[:2])
    store = ek.extract(photos, wandering, url, layers=layers)

    assert list(store) == layers
    assert set(files_at(url).names("layers")) >= {
        f"{each}/zarr.json" for each in layers
    }
    _same(store, local)
    again = ek.open_store(url)
    assert again["relu"].name == "relu#1"
    assert again.verify().ok
    tree = xr.open_datatree(
        ObjectStore(files_at(url).for_zarr(), read_only=True), engine="zarr"
    )
    for each in layers:
        assert tree[f"layers/{each}"].to_dataset().sizes["image"] >= 40
    row = again.locate("cat/a#b%2F c?.png")[0]
    np.testing.assert_array_equal(again["conv#0"][row], local["conv#0"][row])
    nn_ = ek.neighbors(again["relu#1"], n_neighbors=3)
    again.save("neighbors/relu#1", nn_)
    found = ek.open_store(url).load("neighbors/relu#1")
    np.testing.assert_array_equal(found["indices"].values, nn_["indices"].values)
    shard = next(
        name for name in files_at(url).names("layers/relu#1") if "/c" in f"/{name}"
    )
    files_at(url).delete(f"layers/relu#1/{shard}")
    mended = ek.verify(
        url, network=wandering, images=ek.open_images(photos), repair=True
    )
    assert (mended.ok, mended.repaired) == (True, 1)
    _same(ek.open_store(url), local)


@pytest.mark.slow
def test_worker_processes_write_to_s3(s3_bucket, photos, network, tmp_path):
    """Real processes, a real server: the same numbers as on a file system."""
    url = f"{s3_bucket}/w.zarr"
    with ek.connect(n_workers=2, dashboard_port=0):
        store = ek.extract(photos, network, url, layers="all")
        total = store["fc"].sum(skipna=True).compute()

    local = ek.extract(photos, network, tmp_path / "s.zarr", layers="all")
    _same(store, local)
    assert float(total) == pytest.approx(float(local["fc"].sum(skipna=True)), rel=1e-5)


@pytest.mark.slow
def test_plain_xarray_reads_it(s3_bucket, photos, network):
    """No lock-in in the cloud either: zarr's own store, xarray's own reader."""
    url = f"{s3_bucket}/x.zarr"
    store = ek.extract(photos, network, url, layers="all")
    plain = ObjectStore(files_at(url).for_zarr(), read_only=True)

    tree = xr.open_datatree(plain, engine="zarr")

    np.testing.assert_array_equal(
        tree["layers/fc/activation"].values, store["fc"].values
    )
    assert tree["label"].values.tolist() == store.images["label"].tolist()
    assert zarr.open_group(plain, mode="r").attrs["embedkit"]["format"] == 2


def test_a_missing_bucket_is_told(s3_server, photos, network):
    """It is not made, and nobody takes it for an empty place; reading says it too."""
    with pytest.raises(StoreError, match=r"bucket does not exist.*check the place"):
        ek.extract(photos, network, "s3://no-such-bucket-here/s.zarr")
    with pytest.raises(StoreError, match=r"cannot look into s3://no-such.*bucket"):
        ek.open_store("s3://no-such-bucket-here/s.zarr")
