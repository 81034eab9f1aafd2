"""What a run needs: measured, kept, and put together."""

import json

import dask
import numpy as np
import pytest
from torch import nn

from embedkit.errors import InputError, StoreError
from embedkit.extraction.measure import probe
from embedkit.extraction.measure.measuring import keys_of, measure
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


pytestmark = pytest.mark.usefixtures("cache")


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
    assert sizes == [1, 2, 8, 32, 128][: len(sizes)]
    assert len(sizes) >= 2
    assert all(each.seconds > 0 for each in net.forward)
    times = (net.load_seconds, net.transform_seconds, found.decode_seconds)
    assert min(*times, found.block_seconds) > 0
    assert min(found.write_rate, found.read_rate) > 0
    assert found.speedup[0] == (1, 1.0)
    assert 0 < found.keep_seconds < 1e-6
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


def test_a_measurement_says_under_which_keys_it_is_kept(ask, started, cache):
    """The same for the same call, whether it is known or not."""
    other = load_network("embedkit/digits")
    looks = [ask(), ask(network=other)]

    first = measure(looks)
    second = measure(looks)

    assert first.keys == second.keys == keys_of(looks)
    names = {each.stem for each in (cache / "measurements").iterdir()}
    assert set(first.keys) == names
    assert set(keys_of([ask(pool="max")])).isdisjoint(names)


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


@pytest.mark.slow
def test_blocks_of_an_object_store_are_written_beside_it(ask, started, s3_bucket):
    """And deleted."""
    found = measure([ask()], where=files_at(f"{s3_bucket}/s.zarr"))

    assert found.write_rate > 0
    assert files_at(s3_bucket).names() == []


def test_memory_of_this_process_is_no_place(ask, started):
    """Another process could not reach it."""
    assert measure([ask()], where=files_at("memory://here")).write_rate > 0
