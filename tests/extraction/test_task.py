"""One block, computed by itself."""

import pickle
import threading
import time
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch
from distributed.protocol import dumps

from embedkit.errors import NetworkError
from embedkit.extraction import driver
from embedkit.extraction.asked import Asked
from embedkit.extraction.block import task
from embedkit.extraction.block.task import extract_block
from embedkit.extraction.jobs import Jobs
from embedkit.files.files import files_at
from embedkit.networks.load import load_network
from embedkit.planning.stages import AHEAD, IN_TURN
from embedkit.store.commits import read_commit
from embedkit.store.ids import digest
from embedkit.store.lock import locked
from embedkit.store.store import open_store


@pytest.fixture
def prepared(tmp_path, images, network):
    """A store without blocks, and the job that would fill it, while its lock is held."""
    with ExitStack() as stack:

        def prepare(net=network, *, batch=8, threads=2, layers="all"):
            chosen = net.resolve(layers)
            asked = Asked(
                images=images,
                network=net,
                layers=chosen,
                pools=net.resolve_pools("avg", chosen),
                batch_size=batch,
            )
            files = files_at(tmp_path / f"{len(list(tmp_path.iterdir()))}.zarr")
            store = driver._created(files, [asked])
            lock = stack.enter_context(locked(files))
            networks = {net.name: net}
            jobs = Jobs(store, networks, images.source, lock)
            job = jobs.of(store.schema.passes[0])
            return store, replace(job, decode_threads=threads)

        yield prepare


def _ground_truth(network, images, layer_of_last_batch_size):
    """Forward every image by plain torch, clone by clone, in the same batches."""
    module, size = network.module, layer_of_last_batch_size
    rows = []
    for start in range(0, len(images), size):
        inputs = []
        for i in range(start, min(start + size, len(images))):
            try:
                picture = images.source.read(images.table["uri"].iloc[i])
                inputs.append(network.prepare(picture))
            except OSError:
                inputs.append(np.zeros(network.input_shape, np.float32))
        x = torch.from_numpy(np.stack(inputs))
        with torch.inference_mode():
            conv1 = module.conv1(x).clone()
            relu = torch.relu(conv1)
            conv2 = module.conv2(relu).clone()
            add = conv2 + relu
            rows.append(
                {
                    "conv1": conv1.mean((2, 3)),
                    "relu": relu.mean((2, 3)),
                    "conv2": conv2.mean((2, 3)),
                    "add": add.mean((2, 3)),
                    "relu_1": torch.relu(add).mean((2, 3)),
                }
            )
    return {name: torch.cat([each[name] for each in rows]).numpy() for name in rows[0]}


def test_stored_rows_equal_a_forward_that_clones_everything(prepared, images, network):
    """Promise 1: what is stored is what the network computed at that point."""
    store, job = prepared(batch=8)

    for block in range(store.blocks[1]):
        extract_block(job, block)

    bad = store.images["status"].to_numpy() != "ok"
    for layer, expected in _ground_truth(network, images, 8).items():
        found = store[layer].values
        np.testing.assert_allclose(found[~bad], expected[~bad], rtol=1e-6, atol=1e-7)
        assert np.isnan(found[bad]).all()


def test_one_bad_image_is_one_row_and_changes_no_other(
    prepared, photos, images, network, tmp_path
):
    """Promise 2: the rows beside a bad image have the very bits of a clean run."""
    store, job = prepared()
    for block in range(store.blocks[1]):
        extract_block(job, block)
    with_bad = store["fc"].values
    row = images.table.index.get_loc("dog/17.png")
    reason = store.images.loc["dog/17.png", "error"]

    good = (photos / "dog" / "15.png").read_bytes()
    (photos / "dog" / "17.png").write_bytes(good)
    clean = driver.extract(
        photos, network, tmp_path / "clean.zarr", layers="all", batch_size=8
    )

    others = np.arange(len(with_bad)) != row
    assert np.isnan(with_bad[row]).all()
    assert reason
    np.testing.assert_array_equal(with_bad[others], clean["fc"].values[others])
    assert not np.isnan(clean["fc"].values).any()


def test_a_committed_block_is_not_computed_again(prepared, monkeypatch):
    """The record is looked for first; with it, nothing else is opened."""
    _store, job = prepared()
    first = extract_block(job, 0)

    monkeypatch.setattr(task, "opened", None)
    second = extract_block(job, 0)

    assert not first.skipped
    assert second.skipped
    assert (second.n_images, second.n_failed) == (first.n_images, first.n_failed)


def test_the_commit_record_tells_what_happened(prepared):
    """Rows, failures, checksums, seconds by stage and the device are recorded."""
    store, job = prepared()

    report = extract_block(job, 0)
    (one,) = store.schema.passes
    commit = read_commit(store.files, one, store.schema.grid(one), 0)

    assert (commit.start, commit.stop) == (0, 32)
    assert set(commit.crc32) == {*store, "content"}
    assert set(commit.seconds) == {*AHEAD, *IN_TURN, "total"}
    assert all(seconds > 0 for seconds in commit.seconds.values())
    assert commit.seconds["total"] == pytest.approx(
        sum(commit.seconds[stage] for stage in IN_TURN)
    )
    assert (commit.backend, commit.device, commit.attempt) == ("torch", "cpu", 1)
    assert commit.peak_mem > 10 * 2**20
    assert commit.ids == digest(store.images.index[:32].tolist())
    assert report.n_images == 32


def test_what_travels_is_small(prepared):
    """A task is a number and a job of less than 1 kB; its answer is less still."""
    _, job = prepared()

    assert len(pickle.dumps((job, 0, 1))) < 1000
    assert sum(len(each) for each in dumps(extract_block(job, 0))) < 1000


def test_a_network_is_loaded_once_for_all_blocks(prepared, monkeypatch):
    """Twenty tasks in five threads open the store's schema and network once or so."""
    _store, job = prepared()
    task.opened.cache_clear()

    extract_block(job, 0)
    extract_block(job, 1)

    assert task.opened.cache_info().misses == 1


def test_decoding_goes_on_during_the_forward(prepared, monkeypatch):
    """While one batch is in the network, images of the next ones are prepared."""
    _store, job = prepared(batch=4)
    given = task.opened(job)
    (look,) = given.looks
    network, taps = look.network, look.taps
    in_forward, overlapped = threading.Event(), threading.Event()
    true_forward, true_prepare = type(taps).forward, type(network).prepare

    def forward(self, batch):
        in_forward.set()
        overlapped.wait(0.5)
        result = true_forward(self, batch)
        in_forward.clear()
        return result

    def prepare(self, image):
        time.sleep(0.002)
        if in_forward.is_set():
            overlapped.set()
        return true_prepare(self, image)

    monkeypatch.setattr(type(taps), "forward", forward)
    monkeypatch.setattr(type(network), "prepare", prepare)
    extract_block(job, 0)

    assert overlapped.is_set()


def test_a_transform_that_gives_many_shapes_is_named_with_the_image(prepared, network):
    """The message has the image, both shapes, and what to do."""

    def as_it_is(image):
        return torch.zeros(3, image.height, image.width)

    net = load_network(network.module, transform=as_it_is)
    _, job = prepared(net)

    with pytest.raises(
        NetworkError, match=r"gave shape \(3, 9, 16\) for image 'cat/00"
    ):
        extract_block(job, 0)


def test_opening_again_sees_the_block(prepared):
    """A block counts for readers as soon as its record is there."""
    store, job = prepared()

    extract_block(job, 1)

    assert open_store(store.path).blocks == (1, 2)


def test_what_travels_for_two_networks_is_small_too(tmp_path, images, network):
    """Two passes that share the reading of images still make less than 1 kB."""
    module = torch.nn.Sequential(network.module)
    other = load_network(module, transform=network.transform, name="another")
    path = tmp_path / "s.zarr"
    store = driver.extract(images, [network, other], path)

    with locked(store.files) as lock:
        networks = {"Tiny": network, "another": other}
        job = Jobs(store, networks, images.source, lock).of(*store.schema.passes)

    assert len(job.parts) == 2
    assert len(pickle.dumps((job, 0, 1))) < 1000
