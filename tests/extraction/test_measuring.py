"""What a run needs: measured, kept, and put together."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import dask
import numpy as np
import pytest
import torch
from distributed import Client, KilledWorker, LocalCluster
from torch import nn

from embedkit.errors import InputError, PlanError, StoreError
from embedkit.extraction import machines, measuring, probe, probing
from embedkit.extraction.asked import Asked
from embedkit.extraction.measuring import measure
from embedkit.extraction.probe_job import FOUND, SAID
from embedkit.files.files import files_at
from embedkit.images.open import open_images
from embedkit.networks.load import load_network


class Branches(nn.Module):
    """Cannot be traced: it looks at its values."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        x = self.conv(x)
        return x if x.sum() > 0 else -x


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """Measurements are kept among the test's files."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("EMBEDKIT_CACHE", str(folder))
    return folder


@pytest.fixture
def started(monkeypatch):
    """Measure in this process, and note the folder of each process that would start."""
    folders = []

    def run(folder, *, seconds):
        folders.append(folder)
        status = probe.main(folder)
        return f"ended with status {status}" if status else ""

    threads = torch.get_num_threads()
    monkeypatch.setattr(probing, "_run", run)
    yield folders
    torch.set_num_threads(threads)


@pytest.fixture
def ask(images, network):
    """Makes a call of `extract` of the tiny network."""

    def make(images=images, network=network, layers="all", pool="avg", **options):
        chosen = network.resolve(layers)
        return Asked(
            images=images,
            network=network,
            layers=chosen,
            pools=network.resolve_pools(pool, chosen),
            batch_size=8,
            **options,
        )

    return make


def test_everything_a_plan_counts_with_is_measured(ask, network, started):
    """Sizes are those of the network; what takes time or memory takes some."""
    found = measure([ask(dtype="float16")])

    (net,) = found.networks
    table = network.layers
    assert [each.name for each in net.layers] == list(table.index)
    assert {each.itemsize for each in net.layers} == {2}
    conv = net.layers[0]
    assert (conv.name, conv.shape, conv.raw_entries) == ("conv1", (8,), 8 * 12 * 12)
    assert conv.channels == 8
    assert conv.flops == 2 * 27 * 8 * 12 * 12
    assert net.flops == table["flops"].max()
    assert net.input_bytes == 3 * 12 * 12 * 4
    sizes = [each.batch for each in net.forward]
    assert sizes == [1, 2, 4, 8, 16, 32][: len(sizes)]
    assert len(sizes) >= 2
    assert all(each.seconds > 0 for each in net.forward)
    times = (net.load_seconds, net.transform_seconds, found.decode_seconds)
    assert min(*times, found.block_seconds) > 0
    assert min(found.write_rate, found.read_rate) > 0
    assert found.speedup[0] == (1, 1.0)
    assert 0 <= found.held_seconds < 1
    assert found.reserved > 50 * 10**6


def test_what_is_known_starts_no_process(ask, started):
    """The second call has the same numbers; `refresh` asks for new ones."""
    first = measure([ask()])
    second = measure([ask()])

    assert second == first
    assert len(started) == 1
    measure([ask()], refresh=True)
    assert len(started) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"pool": "max"},
        {"layers": ["conv1"]},
        {"dtype": "float16"},
        {"backend": "torch_channels_last"},
        {"decode": "pil-rgb-1-draft-12"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_question_is_measured_anew(ask, started, change):
    """What was measured answers the very same question alone."""
    measure([ask()])

    measure([ask(**change)])

    assert len(started) == 2


def test_images_of_another_kind_are_measured_anew(ask, started, images):
    """Fewer of the same are the same kind; pixels in memory are another."""
    measure([ask()])

    measure([ask(images[:30])])
    assert len(started) == 1
    measure([ask(open_images(np.zeros((3, 9, 9, 3), np.uint8)))])
    assert len(started) == 2


@pytest.mark.parametrize("damage", ["", "{", '{"format": 0, "networks": []}'])
def test_a_damaged_file_of_the_cache_counts_as_none(ask, started, cache, damage):
    """It is written again."""
    first = measure([ask()])
    (file,) = (cache / "measurements").iterdir()
    file.write_text(damage)

    second = measure([ask()])

    assert len(started) == 2
    assert second.layers == first.layers
    assert json.loads(file.read_text())["format"] == 1


def test_a_cache_that_cannot_be_written_is_no_error(ask, started, cache):
    """It is measured every time."""
    cache.write_text("a file where the folder should be")

    measure([ask()])
    measure([ask()])

    assert len(started) == 2


def test_networks_are_measured_each_for_itself(ask, started):
    """Layers of the second stand behind its name, and it alone is new the next time."""
    other = load_network("embedkit/digits")
    measure([ask()])

    found = measure([ask(), ask(network=other)])

    assert len(started) == 2
    assert [net.name for net in found.networks] == ["Tiny", other.name]
    assert all(
        layer.name.startswith(f"{other.name}/") for layer in found.networks[1].layers
    )


def test_a_network_that_cannot_be_traced_is_measured(ask, started, network):
    """Its layers are the calls of its modules."""
    other = load_network(Branches(), transform=network.transform)
    assert not other.traced

    (net,) = measure([ask(network=other)]).networks

    assert [each.name for each in net.layers] == ["conv#0", "forward#0"]
    assert len(net.forward) >= 2


class _Items:
    """A dataset, of which item 2 fails."""

    def __init__(self, pixels, broken=None):
        self.pixels, self.broken = pixels, broken

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, row):
        if row == 2:
            raise ValueError("lost")
        return self.pixels[row], row


@pytest.mark.parametrize("kind", ["array", "lazy", "dataset"])
def test_images_of_this_process_are_sent(ask, started, kind):
    """A few rows of an array, a dataset with its item that fails."""
    pixels = np.random.default_rng(0).integers(0, 256, (100, 20, 20, 3), np.uint8)
    lazy = dask.array.from_array(pixels, chunks=(7, 20, 20, 3))
    given = {"array": pixels, "lazy": lazy, "dataset": _Items(pixels)}[kind]

    found = measure([ask(open_images(given))])

    assert found.decode_seconds > 0
    assert found.networks[0].transform_seconds > 0


def test_a_dataset_that_cannot_be_sent_is_refused(ask, started):
    """It says what to do."""
    pixels = np.zeros((3, 9, 9, 3), np.uint8)
    images = open_images(_Items(pixels, broken=(each for each in "generator")))

    with pytest.raises(InputError, match=r"cannot be sent .*without open files"):
        measure([ask(images)])


def test_images_that_cannot_be_read_leave_zeros(ask, started, tmp_path):
    """The rest can still be measured: a run tells which they are."""
    (tmp_path / "a.png").write_bytes(b"no picture")

    (net,) = measure([ask(open_images([tmp_path / "a.png"]))]).networks

    assert net.transform_seconds == 0
    assert all(each.seconds > 0 for each in net.forward)


def test_nothing_is_left_behind(ask, started, tmp_path, monkeypatch):
    """Neither beside the store, whose folder is not made, nor among temporary files."""
    place = tmp_path / "results"
    place.mkdir()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    seen = []
    true = probe.measure_shards

    def spy(job, *given, **options):
        true(job, *given, **options)
        seen.extend(each.name for each in place.iterdir())

    monkeypatch.setattr(probe, "measure_shards", spy)

    measure([ask()], where=files_at(place / "deep" / "s.zarr"))

    assert len(seen) == 1
    assert seen[0].startswith(".s.zarr.")
    assert list(place.iterdir()) == list(temporary.iterdir()) == []


def test_a_place_that_cannot_be_written_is_told(ask, started, tmp_path):
    """The error is the one that a run would give, in this process too."""
    (tmp_path / "file").write_text("no folder")

    with pytest.raises(StoreError, match=r"cannot create a store at .*file"):
        measure([ask()], where=files_at(tmp_path / "file" / "s.zarr"))


def test_blocks_of_an_object_store_are_written_beside_it(ask, started, s3_bucket):
    """And deleted."""
    found = measure([ask()], where=files_at(f"{s3_bucket}/s.zarr"))

    assert found.write_rate > 0
    assert files_at(s3_bucket).names() == []


def test_memory_of_this_process_is_no_place(ask, started):
    """Another process could not reach it."""
    assert measure([ask()], where=files_at("memory://here")).write_rate > 0


def _cut(folder, name):
    """Take away what was found from some name on, and end within a line."""
    lines = (folder / FOUND).read_text().splitlines(keepends=True)
    kept = lines[: next(i for i, line in enumerate(lines) if f'["{name}"' in line)]
    (folder / FOUND).write_text("".join(kept) + '["forw')


@pytest.mark.parametrize(
    ("name", "doing"),
    [
        ("reserved", "starting"),
        ("loaded", "loading the network"),
        ("pixels", "reading images"),
        ("forward", "the first forward pass"),
        ("shards", "writing a block"),
    ],
)
def test_a_process_that_dies_early_is_told(ask, monkeypatch, started, name, doing):
    """What it was doing, how it ended, and what to do."""
    true = probing._run

    def dies(folder, *, seconds):
        true(folder, seconds=seconds)
        _cut(folder, name)
        (folder / SAID).write_text("first\nlast words\n\n")
        return "was ended by signal 9, as when memory runs out"

    monkeypatch.setattr(probing, "_run", dies)

    with pytest.raises(
        PlanError,
        match=rf"'Tiny' cannot be measured: .* signal 9.* while {doing} \(last words\): "
        "give workers more memory",
    ):
        measure([ask()])


def test_a_process_that_dies_of_a_large_batch_has_told_enough(
    ask, monkeypatch, started
):
    """The batches before it count."""
    true = probing._run

    def dies(folder, *, seconds):
        true(folder, seconds=seconds)
        _cut(folder, "forward_held")
        return "was ended by signal 9, as when memory runs out"

    monkeypatch.setattr(probing, "_run", dies)

    found = measure([ask()])

    assert len(found.networks[0].forward) >= 2
    assert found.speedup == ((1, 1.0),)


def test_workers_of_a_kind_are_measured_once(ask, started):
    """Two that are alike are one kind, and its limits are theirs."""
    with (
        LocalCluster(
            processes=False,
            n_workers=2,
            threads_per_worker=3,
            memory_limit="3GiB",
            dashboard_address=":0",
        ) as cluster,
        Client(cluster) as client,
    ):
        (kind,) = machines.machines()
        found = measure([ask()])
        assert kind.address in client.scheduler_info()["workers"]

    assert (kind.threads, kind.limit) == (3, 3 * 2**30)
    assert len(started) == 1
    assert found.networks[0].name == "Tiny"
    measure([ask()])
    assert len(started) == 2, "this process is another kind of worker"


def test_of_unlike_workers_each_is_measured(ask, started, monkeypatch):
    """And the most demanding numbers count."""
    here = machines.machine_here()
    two = (here, replace(here, cores=here.cores + 1))
    monkeypatch.setattr(measuring, "machines", lambda: two)

    found = measure([ask()])

    assert len(started) == 2
    each = []
    for kind in two:
        monkeypatch.setattr(measuring, "machines", lambda kind=kind: (kind,))
        each.append(measure([ask()]))
    assert len(started) == 2
    assert found.reserved == max(one.reserved for one in each)
    assert found.write_rate == min(one.write_rate for one in each)


def test_a_worker_that_dies_is_told(ask, started, monkeypatch):
    """Which one, and what to do."""

    class Dying:
        def scatter(self, given, **options):
            return given

        def submit(self, *given, **options):
            return self

        def result(self):
            raise KilledWorker("measure", SimpleNamespace(address="tcp://a"), 3)

    monkeypatch.setattr(machines, "active_client", Dying)

    with pytest.raises(PlanError, match="worker tcp://a died while it was measured"):
        machines.on_worker("tcp://a", abs, -1)


def test_a_kind_of_worker_is_told_by_what_speed_depends_on():
    """All of it can be written as JSON, and where it is does not count."""
    here = machines.machine_here(2, 10**9)

    assert replace(here, address="tcp://a").kind == here.kind
    assert json.loads(json.dumps(here.kind))["threads"] == 2
    assert dict(here.versions).keys() >= {"python", "torch", "zarr", "numpy"}
    assert math.isclose(here.limit, 10**9)
