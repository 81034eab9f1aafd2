"""Worker processes against threads on the same cores. Printed, never judged.

Every layout computes the same store, byte for byte; what differs is who waits for whom.
"""

import dask
import numpy as np
import pytest
from distributed import Client

import embedkit as ek

LAYERS = ["layer1", "layer2", "layer3", "layer4", "fc"]


@pytest.mark.slow
def test_processes_and_threads(jpegs, arm, race, threads, cores, full, capsys):
    """ResNet-18's stages from JPEG files to disk, by layout. Starting is not timed."""
    network = ek.load_network("resnet18", weights="none")
    photos = jpegs[: 256 if full else 8]

    def extract(path):
        return ek.extract(photos, network, path, layers=LAYERS, batch_size=16)

    def in_process(place):
        with threads(cores), dask.config.set(scheduler="synchronous"):
            return extract(place / "s.zarr")

    def on_cluster(processes, each):
        def work(place):
            with clusters[processes, each].as_current():
                return extract(place / "s.zarr")

        return arm(f"{processes} processes, {each} threads", work)

    layouts = sorted({(1, 1), (1, cores), (cores, 1)})
    clusters = {layout: _cluster(*layout) for layout in layouts}
    try:
        arms = [arm(f"this process, {cores} threads", in_process)]
        arms += [on_cluster(*layout) for layout in layouts]
        for each in arms[1:]:  # imports, and the network in every process
            each.work(_made(photos[0].parent / each.name))
        results = race(arms)
    finally:
        for client in clusters.values():
            client.close()

    first = results[arms[0].name]
    for each in arms[1:]:
        for layer in first.layers.index:
            np.testing.assert_allclose(
                results[each.name][layer], first[layer], rtol=1e-4, atol=1e-5
            )
    with capsys.disabled():
        print(f"\nresnet18, 5 layers, {len(photos)} images, {cores} cores")
        for each in arms:
            print(f"  {each.name}: {len(photos) / each.best:.1f} images/s")


def _cluster(processes, each):
    return Client(
        n_workers=processes,
        threads_per_worker=each,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        set_as_default=False,
    )


def _made(folder):
    folder.mkdir()
    return folder
