"""Layers computed together, from map to map, or each from the images: one and the same."""

import os
from pathlib import Path

import pytest
import torch
import zarr
from torch import nn

import embedkit as ek
from embedkit.errors import IncompleteStore, InputError
from embedkit.extraction.block import task
from embedkit.extraction.run import fill
from embedkit.extraction.strategy import by_layer, maps

LAYERS = ["conv1", "conv2", "relu_1", "fc"]


@pytest.fixture(autouse=True)
def _one_after_the_other(monkeypatch):
    """Blocks run in this thread: what a test sees of the maps does not depend on luck."""
    import dask

    with dask.config.set(scheduler="sync"):
        yield


@pytest.fixture
def turns(monkeypatch):
    """What was computed from what: ``(tap, start)``, with the maps that lay there."""
    seen = []

    def seen_fill(store, *args, only=None, **kwargs):
        for key in [] if only is None else only.keys:
            one = next(one for one in store.schema.passes if one.key == key)
            origin = only.origins.get(key)
            names = " ".join(spec.tap for spec in one.layers)
            name = f"map {names}" if "/_embedkit/maps/" in store.url else names
            seen.append((name, None if origin is None else origin.layer))
        return fill(store, *args, only=only, **kwargs)

    monkeypatch.setattr(by_layer, "fill", seen_fill)
    return seen


def scratch(path):
    """The maps that lie beside a store."""
    folder = Path(path) / "_embedkit" / "maps"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def shards(path):
    """The bytes of every file of every layer."""
    root = Path(path) / "layers"
    files = (file for file in root.rglob("*") if file.is_file())
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in files}


@pytest.fixture
def fused(photos, network, tmp_path):
    """A store in one pass."""
    return ek.extract(photos, network, tmp_path / "fused.zarr", layers=LAYERS)


@pytest.mark.parametrize("way", ["staged", "lazy"])
def test_stores_are_the_same_byte_by_byte(way, photos, network, tmp_path, fused):
    """Shards, chunks, status, errors; also what cannot be read; nothing is left behind."""
    store = ek.extract(
        photos, network, tmp_path / "s.zarr", layers=LAYERS, strategy=way
    )

    assert shards(store.path) == shards(fused.path)
    assert list(store) == list(fused)
    assert store.images.equals(fused.images)
    assert store.finished
    assert store.verify().ok
    assert ek.verify(store, network=network, sample=10).ok
    assert scratch(store.path) == []
    assert not (store.path / "_embedkit" / "spool").exists()
    assert {one.about["strategy"] for one in store.schema.passes} == {way}
    assert "strategy" not in fused.info()["networks"]["Tiny"]


def test_the_staged_way_goes_from_map_to_map(photos, network, tmp_path, turns):
    """But round the inside of the shortcut, which needs what is before it, too."""
    ek.extract(photos, network, tmp_path / "s.zarr", layers=LAYERS, strategy="staged")

    assert turns == [
        *[("map conv1", None), ("conv1", "conv1"), ("conv2", "conv1")],
        *[("map relu", "conv1"), ("map relu_1", "relu"), ("relu_1", "relu_1")],
        ("fc", "relu_1"),
    ]


def test_the_lazy_way_begins_at_the_images_each_time(photos, network, tmp_path, turns):
    """One turn a layer."""
    ek.extract(photos, network, tmp_path / "s.zarr", layers=LAYERS, strategy="lazy")

    assert turns == [(layer, None) for layer in LAYERS]


def test_a_map_that_is_asked_for_is_gone_on_from(photos, network, tmp_path, turns):
    """No other is made."""
    ek.extract(
        photos,
        network,
        tmp_path / "s.zarr",
        layers=["relu", "relu_1", "fc"],
        pool="none",
        strategy="staged",
    )

    assert turns == [("relu", None), ("relu_1", "relu"), ("fc", "relu_1")]


def test_float16_maps_are_not_gone_on_from(photos, network, tmp_path, turns):
    """They lack bits; what is computed from the float32 map is rounded like any other."""
    layers, how = ["relu", "fc"], {"pool": "none", "dtype": "float16"}
    store = ek.extract(
        photos, network, tmp_path / "s.zarr", layers=layers, strategy="staged", **how
    )

    fused = ek.extract(photos, network, tmp_path / "f.zarr", layers=layers, **how)
    assert turns == [("map relu", None), ("relu", "relu"), ("fc", "relu")]
    assert shards(store.path) == shards(fused.path)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [("fused", "staged"), ("staged", "lazy")])
def test_one_way_extends_what_another_has_begun(
    first, then, photos, network, tmp_path, fused
):
    """Layers added, then images, then all of it asked for again: as if made at once."""
    path = tmp_path / "s.zarr"
    ek.extract(photos, network, path, layers=["conv1", "relu_1"], strategy=first)
    ek.extract(photos, network, path, layers=LAYERS, strategy=then)
    store = ek.extract(photos, network, path, layers=LAYERS)
    for layer in LAYERS:
        assert store[layer].values.tobytes() == fused[layer].values.tobytes()

    os.link(photos / "cat" / "00.png", photos / "cat" / "99.png")
    grown = ek.extract(photos, network, path, layers=LAYERS)

    whole = ek.extract(photos, network, fused.path, layers=LAYERS)
    for layer in LAYERS:
        assert grown[layer].values.tobytes() == whole[layer].values.tobytes()
    assert scratch(path) == []


def test_what_was_begun_staged_goes_on_staged(photos, network, tmp_path, turns):
    """Of old images nothing is computed again but what shares a block with new ones."""
    path = tmp_path / "s.zarr"
    ek.extract(photos, network, path, layers=["relu", "fc"], strategy="staged")
    turns.clear()
    os.link(photos / "cat" / "00.png", photos / "dog" / "99.png")

    ek.extract(photos, network, path, layers=["relu", "fc"])

    assert turns == [("map relu", None), ("relu", "relu"), ("fc", "relu")]


def test_a_way_that_is_asked_for_counts_more_than_how_it_was_begun(
    photos, network, tmp_path, turns
):
    """The layers of one pass, though, are computed together whatever is asked for."""
    path = tmp_path / "s.zarr"
    ek.extract(photos, network, path, layers=["relu", "fc"], strategy="staged")
    ek.extract(photos, network, path, layers=["conv1", "conv2"], strategy="fused")
    os.link(photos / "cat" / "00.png", photos / "dog" / "99.png")
    turns.clear()

    ek.extract(photos, network, path, layers=["relu", "fc"], strategy="lazy")

    assert turns == [("conv1 conv2", None), ("relu", None), ("fc", None)]


class Death(BaseException):
    """Stands for a kill: nothing that runs afterwards may matter."""


@pytest.fixture
def die_at(monkeypatch):
    """Let this process die, so to speak, when the n-th block is begun."""

    def arm(count):
        true, begun = task.compute_block, []

        def compute_block(*args, **kwargs):
            begun.append(args)
            if len(begun) == count:
                raise Death
            return true(*args, **kwargs)

        monkeypatch.setattr(task, "compute_block", compute_block)
        return begun

    return arm


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3, 6, 8, 10])
def test_a_run_that_died_anywhere_goes_on(
    count, photos, network, tmp_path, fused, die_at, monkeypatch
):
    """Two blocks a turn, and five turns: the finished ones are not computed again."""
    path, layers = tmp_path / "s.zarr", ["relu", "relu_1", "fc"]
    with monkeypatch.context():
        die_at(count)
        with pytest.raises(Death):
            ek.extract(photos, network, path, layers=layers, strategy="staged")
    assert len(scratch(path)) <= 2
    monkeypatch.undo()
    begun = die_at(0)

    store = ek.extract(photos, network, path, layers=layers, strategy="staged")

    assert len(begun) == 10 - (count - 1)
    assert scratch(path) == []
    for layer in layers[1:]:
        assert store[layer].values.tobytes() == fused[layer].values.tobytes()
    assert store.verify().ok


@pytest.fixture
def broken_off(photos, network, tmp_path, die_at, monkeypatch):
    """A staged store with the first map and its layer, and half of the second map."""
    path = tmp_path / "broken.zarr"
    with monkeypatch.context():
        die_at(6)
        with pytest.raises(Death):
            ek.extract(
                photos,
                network,
                path,
                layers=["relu", "relu_1", "fc"],
                strategy="staged",
            )
    monkeypatch.undo()
    assert len(scratch(path)) == 2
    return path


@pytest.mark.parametrize("way", ["fused", "lazy"])
def test_another_way_finishes_it_and_cleans_up(way, broken_off, photos, network):
    """The maps of the broken run are of no use then."""
    layers = ["relu", "relu_1", "fc"]

    store = ek.extract(photos, network, broken_off, layers=layers, strategy=way)

    assert store.finished
    assert scratch(broken_off) == []


def _change(photos, path):
    (photos / "cat" / "02.png").write_bytes((photos / "dog" / "03.png").read_bytes())


def _add(photos, path):
    os.link(photos / "cat" / "00.png", photos / "dog" / "99.png")


def _mend(photos, path):
    (photos / "dog" / "17.png").write_bytes((photos / "dog" / "03.png").read_bytes())


def _tear_shard(photos, path):
    for place in scratch(path):
        for shard in (place / "layers").rglob("c.0.*"):
            shard.unlink()


def _take_metadata(photos, path):
    for place in scratch(path):
        (place / "zarr.json").unlink()


def _other_blocks(photos, path):
    for place in scratch(path):
        group = zarr.open_group(place, mode="r+")
        found = group.attrs["embedkit"]
        found["passes"][0]["block"] = 8
        group.attrs["embedkit"] = found


@pytest.mark.slow
@pytest.mark.parametrize(
    "happen",
    [
        *(_change, _add, _mend),
        *(_tear_shard, _take_metadata, _other_blocks),
    ],
)
def test_maps_that_are_not_of_these_images_are_made_anew(
    happen, broken_off, photos, network, tmp_path
):
    """Nor are those used that somebody has damaged."""
    happen(photos, broken_off)
    layers = ["relu", "relu_1", "fc"]

    store = ek.extract(
        photos, network, broken_off, layers=layers, strategy="staged", update=True
    )

    whole = ek.extract(photos, network, tmp_path / "w.zarr", layers=layers)
    for layer in layers:
        found = store[layer].sortby(store[layer]["image"].compute())
        assert found.values.tobytes() == whole[layer].values.tobytes()
    assert scratch(broken_off) == []
    assert store.verify().ok


def test_blocks_that_are_given_up_cost_no_others(
    photos, network, tmp_path, monkeypatch
):
    """Once the map cannot be had, the layers are computed from the images without it."""
    true, path = task.extract_block, tmp_path / "s.zarr"

    def extract_block(job, block, *, number=1):
        if block == 1:
            raise RuntimeError("no luck")
        return true(job, block, number=number)

    monkeypatch.setattr(task, "extract_block", extract_block)
    with pytest.raises(IncompleteStore, match=r"1 of the 4 blocks .*s\.zarr could not"):
        ek.extract(photos, network, path, layers=["relu", "fc"], strategy="staged")
    left = ek.open_store(path)
    assert [len(left.commits(one)) for one in left.schema.passes] == [1, 1]
    monkeypatch.undo()

    store = ek.extract(photos, network, path, layers=["relu", "fc"], strategy="staged")

    assert store.verify().blocks == 4
    assert scratch(path) == []


def test_progress_counts_maps_and_layers(
    photos, network, tmp_path, die_at, monkeypatch
):
    """It never goes back, ends full, and knows what an earlier run has written."""
    seen, path = [], tmp_path / "s.zarr"
    how = {"layers": ["relu", "fc"], "strategy": "staged", "on_progress": seen.append}
    with monkeypatch.context():
        die_at(4)
        with pytest.raises(Death):
            ek.extract(photos, network, path, **how)
    monkeypatch.undo()
    first, seen[:] = list(seen), []

    ek.extract(photos, network, path, **how)

    assert [each.images_done for each in first] == [32, 40]
    assert {each.n_images for each in first} == {120}
    assert {each.n_images for each in seen} == {80}
    assert {each.images_before for each in seen} in ({8}, {32})
    assert [each.images_done for each in seen] == [40, 72, 80]
    assert [each.n_failed for each in seen] == [1, 2, 2]
    assert [each.seconds for each in seen] == sorted(each.seconds for each in seen)


def test_two_networks_go_each_their_way(photos, network, tmp_path, turns):
    """The maps of one are none of the other's."""
    twin = ek.load_network(Twin(), transform=network.transform, name="twin")
    store = ek.extract(
        photos,
        [network, twin],
        tmp_path / "s.zarr",
        layers={network.name: ["relu", "fc"], "twin": ["a", "b"]},
        strategy="staged",
    )

    assert turns == [
        *[("map relu", None), ("relu", "relu"), ("fc", "relu")],
        *[("map a", None), ("a", "a"), ("b", "a")],
    ]
    assert list(store) == ["relu", "fc", "twin/a", "twin/b"]
    assert scratch(store.path) == []


class Twin(nn.Module):
    """Two steps."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(9)
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)

    def forward(self, x):
        return self.b(self.a(x)).mean((2, 3))


class Untraceable(nn.Module):
    """Looks at its values."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        x = self.conv(x)
        return x if x.sum() > 0 else -x


def test_networks_without_a_graph_are_not_staged(photos, network, tmp_path):
    """It says why and what can be done; by itself the fused way is taken."""
    odd = ek.load_network(Untraceable(), transform=network.transform)

    with pytest.raises(
        InputError, match="'staged' was asked for, and Untraceable cannot"
    ):
        ek.extract(photos, odd, tmp_path / "s.zarr", layers="all", strategy="staged")

    assert not (tmp_path / "s.zarr").exists()
    assert ek.extract(photos, odd, tmp_path / "s.zarr", layers="all").finished


def test_other_backends_and_other_words_are_refused(photos, network, tmp_path):
    """Nothing is written."""
    path = tmp_path / "s.zarr"
    with pytest.raises(
        InputError, match="backend 'auto' does not give a stored map the"
    ):
        ek.extract(photos, network, path, strategy="staged", backend="auto")
    with pytest.raises(InputError, match=r"cannot be computed 'stage'\. Did you mean"):
        ek.extract(photos, network, path, strategy="stage")
    assert not path.exists()


def test_a_staged_store_that_another_backend_extends(photos, network, tmp_path, turns):
    """Layers of the other backend are computed together with none, and from no map."""
    path = tmp_path / "s.zarr"
    ek.extract(photos, network, path, layers=["relu"], backend="torch_fused")
    os.link(photos / "cat" / "00.png", photos / "dog" / "99.png")

    ek.extract(photos, network, path, layers=["relu", "fc"], strategy="staged")

    assert turns == [("relu", None), ("fc", None)]


@pytest.mark.slow
def test_in_an_object_store(photos, network, s3_bucket, fused):
    """Maps lie there, too, and go."""
    store = ek.extract(
        photos, network, s3_bucket + "/s.zarr", layers=LAYERS, strategy="staged"
    )

    for layer in LAYERS:
        assert store[layer].values.tobytes() == fused[layer].values.tobytes()
    assert store.files.names(maps.MAPS) == []
