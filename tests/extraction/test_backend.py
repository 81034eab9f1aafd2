"""What executes a network: asked for, measured, kept with the store."""

import os
import platform
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from distributed import Client, KilledWorker, LocalCluster

import embedkit as ek
from embedkit.errors import InputError
from embedkit.extraction import backend
from embedkit.networks.backend_choice import Choice, Trial


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """Converted networks are kept among the test's files, and measured anew."""
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path / "cache"))
    backend._measured.cache_clear()


@pytest.mark.parametrize("name", ["torch_channels_last", "openvino"])
def test_another_backend_gives_the_same_numbers_within_the_tolerance(
    name, images, network, tmp_path
):
    """Rows, labels and reasons too; the records and the store say who did it."""
    reference = ek.extract(images, network, tmp_path / "a.zarr", layers="all")

    store = ek.extract(images, network, tmp_path / "b.zarr", layers="all", backend=name)

    (one,) = store.schema.passes
    assert one.backend == one.about["backend"] == name
    assert {each.backend for each in store.commits(one).values()} == {name}
    assert store.images.equals(reference.images)
    for layer in store:
        scale = np.nanmax(np.abs(reference[layer].values))
        np.testing.assert_allclose(
            store[layer].values, reference[layer].values, atol=one.tolerance * scale
        )
    assert ek.verify(store, network=network, images=images, sample=10).ok


def test_a_run_goes_on_with_the_backend_that_it_began_with(images, network, tmp_path):
    """Asking for another changes nothing; new layers have the one asked for."""
    path = tmp_path / "s.zarr"
    ek.extract(images, network, path, layers=["conv1"], backend="torch_channels_last")

    store = ek.extract(images, network, path, layers=["conv1", "fc"])

    assert [one.backend for one in store.schema.passes] == [
        "torch_channels_last",
        "torch",
    ]


def test_auto_takes_the_fastest_and_keeps_the_figures(
    images, network, tmp_path, monkeypatch
):
    """It is measured once a call, on a full batch of the images themselves."""
    calls = []

    def choose(net, layers, *, pool, batch):
        calls.append((layers, pool, batch))
        trials = {
            "torch": Trial(images_per_second=1.0, max_error=0.0),
            "torch_channels_last": Trial(images_per_second=2.0, max_error=1e-7),
        }
        return Choice(backend="torch_channels_last", images=len(batch), table=trials)

    monkeypatch.setattr(backend, "fastest_backend", choose)

    store = ek.extract(
        images,
        network,
        tmp_path / "s.zarr",
        layers=["fc"],
        backend="auto",
        batch_size=16,
    )

    ((layers, pools, batch),) = calls
    assert (layers, pools, batch.shape) == (["fc"], {"fc": "avg"}, (16, 3, 12, 12))
    first = network.prepare(images.source.read(images.table["uri"].iloc[0]))
    np.testing.assert_array_equal(batch[0], first)
    (one,) = store.schema.passes
    assert one.backend == "torch_channels_last"
    assert "torch_channels_last: 2.0 images/s" in one.about["measured"]
    assert "largest relative error 1.0e-07" in one.about["measured"]


def test_auto_really_measures(images, network, tmp_path):
    """Whatever wins here is right; every backend has its figures or its reason."""
    store = ek.extract(images, network, tmp_path / "s.zarr", backend="auto")

    (one,) = store.schema.passes
    for name in ("torch", "torch_channels_last", "torch_fused", "openvino", "cuda_amp"):
        assert f"  {name}: " in one.about["measured"]
    again = ek.extract(images, network, tmp_path / "s.zarr", backend="auto")
    assert again.schema == store.schema
    assert ek.verify(store, network=network, images=images, sample=10).ok


def test_an_unknown_backend_is_refused(images, network, tmp_path):
    """The nearest one is named, and nothing is written."""
    with pytest.raises(InputError, match=r"no backend 'openvno'.*'openvino'"):
        ek.extract(images, network, tmp_path / "s.zarr", backend="openvno")

    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.slow
def test_auto_measures_where_blocks_will_run(images, network, tmp_path):
    """A worker process measures, with its own number of threads; the store tells which."""
    with (
        LocalCluster(
            processes=True, n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        threads = client.run(torch.set_num_threads, 3)
        pids = set(client.run(os.getpid).values())

        store = ek.extract(images, network, tmp_path / "s.zarr", backend="auto")

    assert len(threads) == 2
    (one,) = store.schema.passes
    last = one.about["measured"].splitlines()[-1]
    found = re.fullmatch(r"  measured in process (\d+) on (.+), threads: 3", last)
    assert int(found[1]) in pids
    assert found[2] == platform.node()
    assert "torch: " in one.about["measured"]


def test_without_a_cluster_this_process_measures(images, network, tmp_path):
    """So its threads are those that blocks will have."""
    store = ek.extract(images, network, tmp_path / "s.zarr", backend="auto")

    (one,) = store.schema.passes
    told = f"process {os.getpid()} on {platform.node()}, threads: {torch.get_num_threads()}"
    assert one.about["measured"].endswith(f"  measured in {told}")


def test_a_worker_that_dies_of_a_backend_leaves_the_reference(
    images, network, tmp_path, monkeypatch
):
    """Measuring is a service: without it, blocks run on PyTorch as it is."""

    def dies(client, *given):
        raise KilledWorker("_choose_there", SimpleNamespace(address="tcp://gone"), 3)

    monkeypatch.setattr(backend, "_on_a_worker", dies)
    with (
        LocalCluster(
            processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster),
    ):
        store = ek.extract(images, network, tmp_path / "s.zarr", backend="auto")

    (one,) = store.schema.passes
    assert one.backend == "torch"
    assert (
        "the worker that measured backends died (KilledWorker" in one.about["measured"]
    )
