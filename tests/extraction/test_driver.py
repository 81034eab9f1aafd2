"""The whole run: every scheduler, interruption, and what is refused."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time

import dask
import numpy as np
import pytest
import torch
import xarray as xr
from distributed import Client, LocalCluster
from PIL import Image

import embedkit as ek
from embedkit.errors import (
    IdentityMismatch,
    InputError,
    NetworkError,
    SourceError,
    StoreError,
)
from embedkit.extraction import dispatch, driver
from embedkit.extraction.block import task
from embedkit.networks.bundled.digits_data import digits_split
from embedkit.networks.taps import TapGraph
from embedkit.store.store import Store


def blocks_done(store):
    """The committed blocks of a store with one pass."""
    return store.commits(store.schema.passes[0])


def _hashes(store):
    """Hash every file of every layer, by relative path."""
    root = store.path / "layers"
    return {
        file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(root.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(scope="module")
def digits():
    """Eighty held-out digits as an array, and their labels."""
    split = digits_split()
    return np.repeat(split.test_images[:80, ..., None], 3, axis=-1)


@pytest.fixture(scope="module")
def reference(digits, tmp_path_factory):
    """The digits through the bundled network, one block after the other."""
    path = tmp_path_factory.mktemp("reference") / "digits.zarr"
    with dask.config.set(scheduler="synchronous"):
        return ek.extract(digits, "embedkit/digits", path, layers="all")


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_the_bytes_do_not_depend_on_the_local_scheduler(
    scheduler, digits, reference, tmp_path
):
    """Threads and one after the other write identical files."""
    with dask.config.set(scheduler=scheduler):
        store = ek.extract(digits, "embedkit/digits", tmp_path / "d.zarr", layers="all")

    assert store.complete
    assert _hashes(store) == _hashes(reference)


def test_the_bytes_do_not_depend_on_a_cluster_of_threads(digits, reference, tmp_path):
    """A distributed cluster inside this process writes identical files."""
    with (
        LocalCluster(
            processes=False, n_workers=2, threads_per_worker=2, dashboard_address=":0"
        ) as cluster,
        Client(cluster),
    ):
        store = ek.extract(digits, "embedkit/digits", tmp_path / "d.zarr", layers="all")

    assert _hashes(store) == _hashes(reference)


@pytest.mark.slow
def test_two_worker_processes_write_the_same_bytes(digits, reference, tmp_path):
    """Real processes, reading pixels and weights from files, write identical files."""
    with ek.connect(n_workers=2, dashboard_port=0) as client:
        store = ek.extract(digits, "embedkit/digits", tmp_path / "d.zarr", layers="all")
        workers = {name for name, runs in client.run(_loaded_networks).items() if runs}

    assert len(workers) == 2
    assert _hashes(store) == _hashes(reference)


def _loaded_networks():
    from embedkit.networks import spool

    return len(spool._loaded)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_where_it_stopped(
    digits, reference, tmp_path, monkeypatch
):
    """Ctrl-C keeps what is committed; the next call does the rest, to the same bytes."""

    def interrupt(progress):
        raise KeyboardInterrupt

    monkeypatch.setattr(dispatch, "CPU_COUNT", 1)
    path, seen = tmp_path / "cut.zarr", []
    with dask.config.set({"scheduler": "synchronous", "embedkit.window": 1}):
        with pytest.raises(KeyboardInterrupt):
            ek.extract(
                digits, "embedkit/digits", path, layers="all", on_progress=interrupt
            )
        before = blocks_done(ek.open_store(path))
        store = ek.extract(
            digits, "embedkit/digits", path, layers="all", on_progress=seen.append
        )

    assert 0 < len(before) < store.blocks[1]
    assert seen[0].images_before == 32 * len(before)
    assert len(seen) == store.blocks[1] - len(before)
    assert store.complete
    assert _hashes(store) == _hashes(reference)
    assert not list(store.path.rglob("*.partial"))
    assert not (store.path / "_embedkit" / "spool").exists()


def test_a_finished_store_is_not_touched(photos, network, tmp_path, monkeypatch):
    """The same call again computes nothing and hands the store back."""
    ek.extract(photos, network, tmp_path / "s.zarr")
    monkeypatch.setattr(driver, "locked", None)

    again = ek.extract(photos, network, tmp_path / "s.zarr")

    assert again.complete


def test_progress_adds_up(photos, network, tmp_path):
    """Images done grow to all of them, and bad ones are counted."""
    seen = []

    ek.extract(photos, network, tmp_path / "s.zarr", on_progress=seen.append)

    assert [each.images_done for each in seen] == sorted(
        each.images_done for each in seen
    )
    assert (seen[-1].images_done, seen[-1].n_images) == (40, 40)
    assert (seen[-1].n_failed, seen[-1].images_before) == (1, 0)
    assert seen[-1].seconds > 0


def test_labels_and_reasons_are_in_the_store(photos, network, tmp_path):
    """Class folders become labels; the bad image has a status and a reason."""
    store = ek.extract(photos, network, tmp_path / "s.zarr", layers="last")

    images = store.images
    x = store["fc"]

    assert images["label"].value_counts().to_dict() == {"cat": 20, "dog": 20}
    assert images.index[images["status"] == "unreadable"].tolist() == ["dog/17.png"]
    assert images.loc["dog/17.png", "error"]
    assert x.sizes == {"image": 40, "feature": 4}
    assert (
        np.isnan(x.values).all(axis=1).tolist()
        == (images["status"] == "unreadable").tolist()
    )


@pytest.mark.parametrize(
    ("pool", "dims"),
    [
        ("avg", ("image", "feature")),
        ("max", ("image", "feature")),
        ("flatten", ("image", "feature")),
        ("none", ("image", "channel", "y", "x")),
    ],
)
def test_every_pooling_has_its_shape(pool, dims, photos, network, tmp_path):
    """Pooled layers are vectors; unpooled ones are maps whose mean is the average."""
    store = ek.extract(
        photos, network, tmp_path / "s.zarr", layers=["conv2"], pool=pool
    )

    x = store["conv2"]

    assert x.dims == dims
    pooled = ek.extract(photos, network, tmp_path / "avg.zarr", layers=["conv2"])
    good = x["status"].values == "ok"
    maps = x.values[good].reshape(good.sum(), 8, -1)
    reduced = {
        "avg": maps[..., 0],
        "max": maps[..., 0],
        "flatten": maps.mean(2),
        "none": maps.mean(2),
    }[pool]
    if pool == "max":
        assert (reduced >= pooled["conv2"].values[good]).all()
    else:
        np.testing.assert_allclose(
            reduced, pooled["conv2"].values[good], rtol=1e-5, atol=1e-6
        )


def test_another_identity_is_refused_and_named(photos, network, tmp_path):
    """Other pooling, weights or images never extend a store by themselves."""
    path = tmp_path / "s.zarr"
    ek.extract(photos, network, path)
    before = _hashes(ek.open_store(path))

    with pytest.raises(IdentityMismatch, match="other pool") as pool:
        ek.extract(photos, network, path, pool="max")
    with pytest.raises(IdentityMismatch) as network_parts:
        ek.extract(photos, "embedkit/digits", path)
    (photos / "cat" / "00.png").unlink()
    with pytest.raises(IdentityMismatch, match="other images"):
        ek.extract(photos, network, path)

    assert pool.value.parts == ("pool",)
    assert {"weights", "transform"} <= set(network_parts.value.parts)
    assert _hashes(ek.open_store(path)) == before


def test_the_batch_size_of_a_store_is_its_own(photos, network, tmp_path):
    """Asking for another batch size later does not mix two in one store."""
    store = ek.extract(photos, network, tmp_path / "s.zarr", batch_size=4)

    again = ek.extract(photos, network, tmp_path / "s.zarr", batch_size=16)

    assert [each.schema.passes[0].batch_size for each in (store, again)] == [4, 4]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": "nowhere"}, SourceError, "nowhere"),
        ({"network": "resnet5O"}, NetworkError, "resnet50"),
        ({"layers": "fcc"}, NetworkError, "Did you mean 'fc'"),
        ({"batch_size": 0}, InputError, "batch_size is 0"),
        ({"pool": "median"}, (InputError, NetworkError), "median"),
    ],
)
def test_bad_input_leaves_nothing_behind(
    change, error, message, photos, network, tmp_path
):
    """A refused call writes no file at all."""
    target = tmp_path / "deep" / "s.zarr"
    call = {"images": photos, "network": network, "path": target} | change

    with pytest.raises(error, match=message):
        ek.extract(**call)

    assert not target.parent.exists()


def test_a_target_that_is_no_store_is_left_alone(photos, network, tmp_path):
    """A file or a folder of something else is refused and kept."""
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(StoreError, match=r"exists: .* no embedkit store but a file"):
        ek.extract(photos, network, tmp_path / "notes.txt")
    with pytest.raises(StoreError, match=r"exists: .* no embedkit store but a folder"):
        ek.extract(photos, network, photos)

    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert len(list(photos.rglob("*.png"))) == 40


def test_a_failure_in_a_task_reaches_the_caller_and_the_store_stays_usable(
    photos, tmp_path, network, monkeypatch
):
    """The caller sees the task's own error; mending the cause and calling again works."""

    class Fragile:
        def __call__(self, image):
            broken = "BROKEN" in os.environ and image.height < 100
            size = image.height if broken else 12
            return torch.zeros(3, size, 12)

        def __repr__(self):
            return "Fragile()"

    net = ek.load_network(network.module, transform=Fragile())
    assert net.input_shape == (3, 12, 12)
    monkeypatch.setenv("BROKEN", "yes")
    with pytest.raises(NetworkError, match="make it resize to one size"):
        ek.extract(photos, net, tmp_path / "s.zarr")
    monkeypatch.delenv("BROKEN")

    store = ek.extract(photos, net, tmp_path / "s.zarr")

    assert store.complete


def test_an_empty_folder_may_become_a_store(photos, network, tmp_path):
    """A folder made beforehand is as good as none."""
    (tmp_path / "s.zarr").mkdir()

    assert ek.extract(photos, network, tmp_path / "s.zarr").complete


def test_the_last_batch_of_a_block_is_as_wide_as_the_others(
    digits, tmp_path, monkeypatch
):
    """The network always sees the same number of rows, so its kernels are the same."""
    widths = set()
    true_forward = TapGraph.forward

    def forward(self, batch):
        widths.add(len(batch))
        return true_forward(self, batch)

    monkeypatch.setattr(TapGraph, "forward", forward)

    ek.extract(digits, "embedkit/digits", tmp_path / "d.zarr", batch_size=32)

    assert len(digits) % 32
    assert widths == {32}


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_the_threads_of_torch(shared_data, tmp_path):
    """One thread and two write identical files, the last batch of a block included."""
    photos = sorted((shared_data / "clothing_cc0" / "test").rglob("*.jpg"))[:44]
    weights = shared_data / "weights" / "squeezenet1_0_imagenet_deepcompression.pt"
    network = ek.load_network("squeezenet1_0", weights=weights)
    before = torch.get_num_threads()
    hashes = []

    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with dask.config.set(scheduler="synchronous"):
                store = ek.extract(photos, network, tmp_path / f"{threads}.zarr")
            hashes.append(_hashes(store))
    finally:
        torch.set_num_threads(before)

    assert hashes[0] == hashes[1]


def test_a_store_that_cannot_be_written_any_more_says_so(
    photos, network, tmp_path, monkeypatch
):
    """A full disk in a task is one clear error, with what to do."""

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(task, "write_block", full)

    with pytest.raises(
        StoreError, match=r"block \d cannot .*No space left .*make room"
    ):
        ek.extract(photos, network, tmp_path / "s.zarr")


def test_a_death_just_before_the_end_is_made_good(
    photos, network, tmp_path, monkeypatch
):
    """All blocks committed, but the final status not written: the next call writes it."""

    class _KilledError(Exception):
        pass

    def killed(self):
        raise _KilledError

    path = tmp_path / "s.zarr"
    with monkeypatch.context() as patched:
        patched.setattr(Store, "finish", killed)
        with pytest.raises(_KilledError):
            ek.extract(photos, network, path)
    before = set(xr.open_zarr(path)["status"].values.tolist())

    store = ek.extract(photos, network, path)

    assert before == {"pending"}
    assert set(xr.open_zarr(path)["status"].values.tolist()) == {"ok", "unreadable"}
    assert store.finished
    assert not (path / "_embedkit" / "spool").exists()


def test_a_store_made_anew_in_the_same_process_follows_its_own_batch_size(
    digits, tmp_path, monkeypatch
):
    """Nothing is remembered of a deleted store at the same path."""
    sizes = []
    true_forward = TapGraph.forward

    def forward(self, batch):
        sizes.append(len(batch))
        return true_forward(self, batch)

    monkeypatch.setattr(TapGraph, "forward", forward)
    ek.extract(digits, "embedkit/digits", tmp_path / "d.zarr", batch_size=32)
    shutil.rmtree(tmp_path / "d.zarr")
    sizes.clear()

    ek.extract(digits, "embedkit/digits", tmp_path / "d.zarr", batch_size=5)

    assert max(sizes) == 5


def test_a_store_that_another_process_made_first_is_joined(
    photos, network, tmp_path, monkeypatch
):
    """Two that start at once: the slower one goes on in the store of the faster."""
    true_create = driver.create

    def create_late(*args, **kwargs):
        true_create(*args, **kwargs)  # the other process, just before us
        true_create(*args, **kwargs)

    monkeypatch.setattr(driver, "create", create_late)

    assert ek.extract(photos, network, tmp_path / "s.zarr").complete


def test_images_of_the_same_names_and_sizes_are_told_apart(network, tmp_path):
    """Uncompressed pictures all have one size; what is in them counts."""
    for folder, seed in (("a", 0), ("b", 1)):
        rng = np.random.default_rng(seed)
        (tmp_path / folder).mkdir()
        for i in range(3):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{i}.bmp")

    ek.extract(tmp_path / "a", network, tmp_path / "s.zarr")

    with pytest.raises(IdentityMismatch, match="other images"):
        ek.extract(tmp_path / "b", network, tmp_path / "s.zarr")


def test_a_moved_folder_is_the_same_images(photos, network, tmp_path):
    """Where the pictures lie has no part in what they are."""
    ek.extract(photos, network, tmp_path / "s.zarr")
    moved = photos.rename(tmp_path / "moved")

    assert ek.extract(moved, network, tmp_path / "s.zarr").complete


def test_an_error_on_a_cluster_cancels_what_has_not_started(
    digits, tmp_path, monkeypatch
):
    """After a task failed, blocks that were waiting are not begun."""
    started = []

    def failing(job, block, number):
        started.append(block)
        time.sleep(0.2)
        raise NetworkError(f"block {block} failed")

    monkeypatch.setattr(task, "extract_block", failing)
    many = np.concatenate([digits] * 8)  # twenty blocks
    with (
        LocalCluster(
            processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster),
        dask.config.set({"embedkit.window": 20, "embedkit.retries": 0}),
    ):
        with pytest.raises(NetworkError, match="failed"):
            ek.extract(many, "embedkit/digits", tmp_path / "d.zarr", layers="last")
        time.sleep(1.5)

    assert len(started) <= 4


@pytest.mark.slow
def test_the_window_widens_when_workers_join(digits, tmp_path):
    """Blocks in flight follow the cluster as it is, not as it was at the start."""
    many = np.concatenate([digits] * 16)  # twenty blocks of 64
    with (
        LocalCluster(
            processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
        dask.config.set({"embedkit.window": 2}),
    ):
        widths = []

        def watch(progress):
            widths.append(sum(len(each) for each in client.processing().values()))
            if len(widths) == 2:
                cluster.scale(3)
                client.wait_for_workers(3)

        ek.extract(
            many,
            "embedkit/digits",
            tmp_path / "d.zarr",
            layers="last",
            on_progress=watch,
        )

    assert len(widths) == 20
    assert max(widths[:2]) <= 2 < max(widths)


_WITHOUT_EMBEDKIT = """
import json, sys
sys.modules["embedkit"] = None  # any import of it now fails
import xarray as xr
path = sys.argv[1]
tree = xr.open_datatree(path)
layer = xr.open_zarr(path, group="layers/fc")
print(json.dumps({
    "groups": sorted(tree["layers"].children),
    "labels": tree["label"].values.tolist()[:2],
    "first": layer["activation"].values[0].tolist(),
    "dims": list(layer["activation"].dims),
    "by_id": tree["layers/fc"].sel(image="cat/00.png")["activation"].values.tolist(),
}))
"""


@pytest.mark.slow
def test_plain_xarray_reads_a_store_without_embedkit(photos, network, tmp_path):
    """Promise 5: a process that cannot import embedkit opens the tree and a layer."""
    store = ek.extract(photos, network, tmp_path / "s.zarr", layers="all")

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _WITHOUT_EMBEDKIT, str(store.path)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["groups"] == sorted(store)
    assert found["labels"] == ["cat", "cat"]
    assert found["dims"] == ["image", "feature"]
    assert found["first"] == store["fc"].values[0].tolist() == found["by_id"]


def test_a_store_made_from_an_array_has_its_own_ids(digits, tmp_path):
    """Pixels in memory need no files; the spooled copy does not stay."""
    store = ek.extract(
        digits[:40], "embedkit/digits", tmp_path / "d.zarr", layers="last"
    )

    assert store.images.index[0] == "0000"
    assert not list(store.path.rglob("pixels-*"))
    assert xr.open_zarr(store.path)["status"].values.tolist() == ["ok"] * 40
