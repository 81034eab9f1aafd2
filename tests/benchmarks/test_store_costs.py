"""What keeping a store safe costs, as shares of the same run. Printed, never judged.

Run it alone to see the figures: ``pytest tests/benchmarks/test_store_costs.py -s``.
"""

import time

import numpy as np
import pandas as pd
import pytest

import embedkit as ek
from embedkit.extraction import run
from embedkit.extraction.block import task
from embedkit.extraction.block.task import BlockReport
from embedkit.files.local import LocalFiles
from embedkit.images.imageset import ImageSet
from embedkit.images.source import FileSource
from embedkit.store.commits import Commit, write_commit

PROTOCOL = ("read_commit", "deaths_in", "begin", "holder", "write_commit", "end")


@pytest.fixture
def spent(monkeypatch):
    """Seconds in what only the protocol needs: records, marks, the lock, syncing."""
    seconds = {}

    def timed(owner, name):
        true = getattr(owner, name)

        def call(*args, **kwargs):
            began = time.perf_counter()
            try:
                return true(*args, **kwargs)
            finally:
                seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began

        monkeypatch.setattr(owner, name, call)

    for name in PROTOCOL:
        timed(task, name)
    timed(LocalFiles, "sync")
    return seconds


@pytest.mark.slow
@pytest.mark.parametrize("layers", ["stages", "all"])
def test_commits_and_verification(layers, shared_data, tmp_path, spent, capsys):
    """256 photos through SqueezeNet: the protocol's and the check's share of the run."""
    photos = sorted((shared_data / "clothing_cc0").rglob("*.jpg"))[:256]
    weights = shared_data / "weights" / "squeezenet1_0_imagenet_deepcompression.pt"
    network = ek.load_network("squeezenet1_0", weights=weights)

    began = time.perf_counter()
    store = ek.extract(photos, network, tmp_path / "s.zarr", layers=layers)
    whole = time.perf_counter() - began
    protocol = sum(spent.values())
    began = time.perf_counter()
    found = store.verify()
    check = time.perf_counter() - began

    assert found.ok
    assert found.blocks == store.blocks[1]
    assert set(spent) == {*PROTOCOL, "sync"}
    with capsys.disabled():
        print(
            f"\n{layers}: {len(store)} layers, {found.blocks} blocks, {whole:.1f} s; "
            f"commit protocol {protocol:.2f} s = {protocol / whole:.1%}, "
            f"verify {check:.2f} s = {check / whole:.1%}"
        )


@pytest.mark.slow
def test_resuming_a_finished_store_of_a_million_images(tmp_path, monkeypatch, capsys):
    """Blocks are simulated, everything else is real: deciding that nothing is left."""
    n = 1_000_000
    ids = [f"folder{i // 1000:04d}/{i:08d}.jpg" for i in range(n)]
    table = pd.DataFrame(
        {
            "uri": [f"/data/{name}" for name in ids],
            "label": [name[:10] for name in ids],
        },
        index=pd.Index(ids, name="image"),
    )
    sizes, mtimes = np.full(n, 1000), np.full(n, 10**18)
    images = ImageSet(table, FileSource(), sizes, mtimes)
    network = ek.load_network("embedkit/digits")
    path = tmp_path / "m.zarr"
    monkeypatch.setattr(run, "run_blocks", lambda turns: _simulated(path, turns))
    # A plan would be measured on these images, which are not there.
    ek.extract(images, network, path, layers="all", plan=None)
    monkeypatch.setattr(run, "run_blocks", None)

    began = time.perf_counter()
    store = ek.extract(images, network, path, layers="all")
    seconds = time.perf_counter() - began

    assert store.complete
    assert len(store["fc"]) == n
    with capsys.disabled():
        print(f"\nresume of {n:,} images in {store.blocks[1]} blocks: {seconds:.2f} s")


def _simulated(path, turns):
    """Commit blocks that were never computed."""
    store = ek.open_store(path)
    (one,) = store.schema.passes
    grid = store.schema.grid(one)
    names = ["content", *(spec.name for spec in one.layers)]
    for turn in turns:
        rows = grid.rows(turn.block)
        for spec in one.layers:
            folder = path / "layers" / spec.name / "activation"
            (folder / f"c.{turn.block}.0").touch()
        commit = Commit(
            block=turn.block,
            identity=one.identity,
            start=rows.start,
            stop=rows.stop,
            ids="0" * 16,
            failures={},
            crc32=dict.fromkeys(names, 0),
            seconds={"total": 1.0},
            peak_mem=1,
            backend="torch",
            device="cpu",
            attempt=1,
        )
        write_commit(store.files, one, grid, commit)
        yield BlockReport(
            block=turn.block, n_images=rows.stop - rows.start, n_failed=0, seconds=1.0
        )
