"""Workers with little memory: the run finishes, in smaller batches."""

import numpy as np
import pytest
from distributed import Client, LocalCluster
from PIL import Image

import embedkit as ek

BATCH = 32


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Sixty-four noisy pictures."""
    folder = tmp_path_factory.mktemp("small") / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(4)
    for i in range(64):
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture
def on_a_worker(pictures, tmp_path):
    """Extract on one worker process with so much memory."""
    net = ek.load_network("resnet18", weights="none")

    def run(limit, name):
        with (
            LocalCluster(
                n_workers=1,
                threads_per_worker=1,
                processes=True,
                memory_limit=limit,
                dashboard_address=":0",
            ) as cluster,
            Client(cluster),
        ):
            return ek.extract(
                pictures,
                net,
                tmp_path / name,
                layers=["maxpool", "layer4", "fc"],
                batch_size=BATCH,
                plan=None,
            )

    return run


@pytest.mark.slow
def test_a_worker_short_of_memory_halves_its_batches_and_finishes(on_a_worker):
    """The values are those of a worker with room, within the store's tolerance."""
    roomy = on_a_worker(0, "roomy.zarr")
    peak = roomy.info()["peak_mem"]

    tight = on_a_worker(int(peak / 0.85), "tight.zarr")

    (one,) = tight.schema.passes
    commits = tight.commits(one)
    assert tight.complete
    assert one.batch_size == BATCH
    assert commits[0].halvings[0].batch_size == BATCH // 2
    assert commits[0].halvings[0].row == BATCH
    assert commits[0].halvings[0].why.endswith("in use")
    assert all(each.halvings for each in commits.values())
    assert min(each.peak_mem for each in commits.values()) < peak
    for layer in tight:
        found, expected = tight[layer].values, roomy[layer].values
        largest = np.abs(expected).max(axis=1, keepdims=True)
        assert (np.abs(found - expected) <= one.tolerance * largest).all()
    assert not any(each.halvings for each in roomy.commits(one).values())
