"""Stores that grow: more images, more layers, a second network, and images that change."""

import os
import shutil

import dask
import numpy as np
import pytest
import xarray as xr
from PIL import Image

import embedkit as ek
from embedkit.errors import CorruptStore, IdentityMismatch, InputError
from embedkit.extraction import driver, run


def _values(store):
    """Every layer's numbers by image id."""
    table = store.images
    return {
        (layer, name): row.tobytes()
        for layer in store
        for name, row in zip(table.index, store[layer].values, strict=True)
    }


def _recolor(path, *, keep_size_and_time=False):
    """Change the pixels of an uncompressed picture."""
    before = path.stat()
    pixels = 255 - np.array(Image.open(path))
    Image.fromarray(pixels).save(path)
    if keep_size_and_time:
        assert path.stat().st_size == before.st_size
    times = (before.st_atime_ns, before.st_mtime_ns + (not keep_size_and_time) * 10**9)
    os.utime(path, ns=times)


@pytest.fixture
def computed(monkeypatch):
    """The blocks that were really computed, as (pass, block)."""
    seen = []
    true_run = run.run_blocks

    def run_blocks(turns):
        todo = list(turns)
        seen.extend((turn.job.key, turn.block) for turn in todo)
        return true_run(iter(todo))

    monkeypatch.setattr(run, "run_blocks", run_blocks)
    return seen


def test_new_images_come_behind_the_others(photos, network, tmp_path, computed):
    """The partial last block is completed; blocks before it are not computed again."""
    first = ek.extract(photos, network, tmp_path / "s.zarr", layers="all")
    before, ids = _values(first), first.images.index.tolist()
    computed.clear()
    for i in range(40):
        shutil.copy(photos / "cat" / "00.png", photos / "cat" / f"new{i:02d}.png")

    store = ek.extract(photos, network, tmp_path / "s.zarr", layers="all")

    assert store.images.index.tolist()[:40] == ids
    assert len(store.images) == 80
    assert store.complete
    assert store.finished
    assert _values(store) == _values(
        ek.extract(photos, network, tmp_path / "f.zarr", layers="all")
    )
    assert _values(store).items() >= before.items()
    assert [block for _, block in computed[:2]] == [1, 2]
    assert xr.open_zarr(tmp_path / "s.zarr")["label"].values.tolist().count("cat") == 60


def test_more_layers_stand_beside_the_others(photos, network, tmp_path, computed):
    """Only the missing taps are computed, with the same bits as all at once."""
    ek.extract(photos, network, tmp_path / "s.zarr", layers="last", batch_size=8)
    computed.clear()

    store = ek.extract(photos, network, tmp_path / "s.zarr", layers="all")

    whole = ek.extract(photos, network, tmp_path / "w.zarr", layers="all", batch_size=8)
    assert set(store) == set(whole)
    assert len(store.schema.passes) == 2
    assert {key for key, _ in computed[:2]} == {store.schema.passes[1].key}
    assert _values(store) == _values(whole)
    assert xr.open_datatree(tmp_path / "s.zarr")["layers"].children.keys() == set(store)


def test_fewer_layers_than_the_store_has_are_there_already(
    photos, network, tmp_path, monkeypatch
):
    """Asking for a part computes nothing and takes nothing away."""
    whole = ek.extract(photos, network, tmp_path / "s.zarr", layers="all")
    monkeypatch.setattr(run, "run_blocks", None)

    assert list(
        ek.extract(photos, network, tmp_path / "s.zarr", layers="last")
    ) == list(whole)


def test_growing_in_both_ways_at_once(photos, network, tmp_path):
    """New images and new layers in one call end where a fresh store does."""
    few = ek.open_images(photos)[:20]
    ek.extract(few, network, tmp_path / "s.zarr", layers="last")

    store = ek.extract(photos, network, tmp_path / "s.zarr", layers="all")

    fresh = ek.extract(photos, network, tmp_path / "f.zarr", layers="all")
    assert _values(store) == _values(fresh)


def test_a_second_network_stands_behind_its_name(photos, network, tmp_path):
    """It has to be asked for; its layers do not hide the first one's."""
    path = tmp_path / "s.zarr"
    first = ek.extract(photos, network, path, layers="last")
    before = _values(first)
    with pytest.raises(IdentityMismatch, match="add_network=True"):
        ek.extract(photos, "embedkit/digits", path, layers="last")

    both = ek.extract(photos, "embedkit/digits", path, layers="last", add_network=True)

    last = ek.load_network("embedkit/digits").resolve("last")[0]
    assert list(both) == ["fc", f"embedkit/digits/{last}"]
    assert both.schema.networks == ("Tiny", "embedkit/digits")
    assert _values(both).items() >= before.items()
    alone = ek.extract(photos, "embedkit/digits", tmp_path / "d.zarr", layers="last")
    np.testing.assert_array_equal(
        both[f"embedkit/digits/{last}"].values, alone[last].values
    )
    assert both.complete
    assert set(both.layers["network"]) == {"Tiny", "embedkit/digits"}
    more = ek.extract(photos, "embedkit/digits", path, layers="all")
    assert all(name.startswith("embedkit/digits/") for name in list(more)[1:])
    assert len(more) > len(both)


def test_another_network_of_the_same_name_is_told_to_take_another(
    photos, tmp_path, network
):
    """Two networks that are called alike could not be told apart."""
    path = tmp_path / "s.zarr"
    ek.extract(photos, "embedkit/digits", path, layers="last")
    other = ek.load_network(
        network.module, transform=network.transform, name="embedkit/digits"
    )

    with pytest.raises(IdentityMismatch, match="another name: load_network") as caught:
        ek.extract(photos, other, path, layers="last", add_network=True)

    assert {"architecture", "weights", "transform"} <= set(caught.value.parts)


def test_a_network_cannot_be_called_like_a_layer(photos, tmp_path, network):
    """Its group would lie inside the layer's."""
    path = tmp_path / "s.zarr"
    ek.extract(photos, network, path, layers="last")
    digits = ek.load_network("embedkit/digits")
    named = ek.load_network(digits.module, transform=digits.transform, name="fc")

    with pytest.raises(InputError, match="cannot be called 'fc'"):
        ek.extract(photos, named, path, layers="last", add_network=True)


def test_the_same_layer_pooled_otherwise_is_refused(photos, network, tmp_path):
    """One store has one value of a layer."""
    ek.extract(photos, network, tmp_path / "s.zarr", layers=["conv1", "fc"])

    with pytest.raises(IdentityMismatch, match="pool stored avg, asked max") as caught:
        ek.extract(photos, network, tmp_path / "s.zarr", layers=["conv1"], pool="max")

    assert caught.value.parts == ("pool",)
    added = ek.extract(
        photos, network, tmp_path / "s.zarr", layers=["conv2"], pool="none"
    )
    assert added["conv2"].dims == ("image", "channel", "y", "x")


@pytest.mark.parametrize("keep", [False, True])
def test_a_changed_image_is_found_and_its_block_alone_redone(
    keep, photos, network, tmp_path, computed
):
    """By size and time at once; behind both, by the digest only if either moved."""
    path = tmp_path / "s.zarr"
    picture = photos / "cat" / "04.bmp"
    Image.open(photos / "cat" / "04.png").save(picture)
    ek.extract(photos, network, path, layers="all")
    others = {
        key: value
        for key, value in _values(ek.open_store(path)).items()
        if key[1] != "cat/04.bmp"
    }
    computed.clear()
    _recolor(picture, keep_size_and_time=keep)
    if keep:  # nothing that can be seen without reading: a touched clock makes it look
        assert ek.extract(photos, network, path, layers="all").complete
        assert computed == []
        os.utime(picture)

    with pytest.raises(
        IdentityMismatch, match=r"1 changed \('cat/04.bmp'\).*update=True"
    ):
        ek.extract(photos, network, path, layers="all")
    store = ek.extract(photos, network, path, layers="all", update=True)

    row = int(store.locate("cat/04.bmp")[0])
    assert [block for _, block in computed] == [row // store.schema.passes[0].block]
    assert _values(store).items() >= others.items()
    fresh = ek.extract(photos, network, tmp_path / "f.zarr", layers="all")
    assert _values(store) == _values(fresh)


def test_a_touched_file_with_the_same_content_is_not_changed(
    photos, network, tmp_path, monkeypatch
):
    """Copies without their times are read once, and then known."""
    path = tmp_path / "s.zarr"
    ek.extract(photos, network, path)
    for picture in photos.rglob("*.png"):
        os.utime(picture, ns=(1, 1))
    monkeypatch.setattr(run, "run_blocks", None)

    assert ek.extract(photos, network, path).finished

    monkeypatch.setattr(driver, "locked", None)  # the second time nothing is written
    assert ek.extract(photos, network, path).finished


def test_an_image_that_is_gone_leaves_a_row_of_nan(photos, network, tmp_path):
    """Rows never move; the status says why; the image may come back."""
    path = tmp_path / "s.zarr"
    whole = ek.extract(photos, network, path, layers="last")
    before = _values(whole)
    kept = (photos / "cat" / "06.png").read_bytes()
    (photos / "cat" / "06.png").unlink()

    with pytest.raises(IdentityMismatch, match=r"1 gone \('cat/06.png'\)") as caught:
        ek.extract(photos, network, path, layers="last")
    store = ek.extract(photos, network, path, layers="last", update=True)

    assert caught.value.parts == ("images",)
    table = store.images
    assert table.index.tolist() == whole.images.index.tolist()
    assert table.loc["cat/06.png", ["status", "error", "label"]].tolist() == [
        "removed",
        "no longer among the images",
        "cat",
    ]
    assert np.isnan(store["fc"].values[store.locate("cat/06.png")]).all()
    same = _values(store)
    assert {key for key in before if before[key] != same[key]} == {("fc", "cat/06.png")}
    assert ek.extract(photos, network, path, layers="last").finished
    (photos / "cat" / "06.png").write_bytes(kept)
    again = ek.extract(photos, network, path, layers="last")
    assert _values(again) == before
    assert again.images.loc["cat/06.png", "status"] == "ok"


def test_an_image_that_was_unreadable_and_is_mended_fills_its_row(
    photos, network, tmp_path
):
    """A row of NaN holds nothing to lose, so nobody has to be asked."""
    path = tmp_path / "s.zarr"
    ek.extract(photos, network, path, layers="last")
    shutil.copy(photos / "dog" / "15.png", photos / "dog" / "17.png")

    store = ek.extract(photos, network, path, layers="last")

    rows = store.locate(["dog/15.png", "dog/17.png"])
    values = store["fc"].values[rows]
    np.testing.assert_array_equal(values[0], values[1])
    assert set(store.images["status"]) == {"ok"}


def test_other_images_altogether_are_refused(photos, network, tmp_path):
    """A wrong folder does not empty a store."""
    path = tmp_path / "s.zarr"
    before = _values(ek.extract(photos, network, path))
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (9, 9)).save(other / "x.png")

    with pytest.raises(IdentityMismatch, match=r"40 gone .* besides 1 new"):
        ek.extract(other, network, path)

    assert _values(ek.open_store(path)) == before


def test_changed_images_withdraw_the_blocks_of_other_networks_too(
    photos, network, tmp_path
):
    """They wait for their own network, and say so."""
    path = tmp_path / "s.zarr"
    ek.extract(photos, network, path, layers="last")
    ek.extract(photos, "embedkit/digits", path, layers="last", add_network=True)
    _recolor(photos / "cat" / "08.png")

    store = ek.extract(photos, network, path, layers="last", update=True)

    assert not store.complete
    assert (store["fc"]["status"].values == "pending").sum() == 0
    other = list(store)[1]
    assert (store[other]["status"].values == "pending").sum() == 32
    assert not store.finished
    done = ek.extract(photos, "embedkit/digits", path, layers="last")
    assert done.finished


def test_the_table_follows_the_one_given_now(photos, network, tmp_path):
    """Labels that were mended, new columns and a moved folder reach the store."""
    path = tmp_path / "s.zarr"
    ek.extract(photos, network, path, layers="last")
    moved = photos.rename(tmp_path / "moved")
    table = ek.open_images(moved).table.reset_index()
    table["label"] = "animal"
    table["age"] = range(len(table))
    images = ek.open_images(table, path_column="uri", id_column="image")

    store = ek.extract(images, network, path, layers="last")

    assert set(store.images["label"]) == {"animal"}
    assert store.images["age"].tolist() == list(range(40))
    assert store.images["uri"].iloc[0].startswith(str(moved))
    assert store["fc"]["age"].values.tolist() == list(range(40))


def test_growth_that_was_killed_half_way_is_finished_by_the_next_call(
    photos, network, tmp_path, monkeypatch
):
    """Readers see the old store until the new one is in force."""
    path = tmp_path / "s.zarr"
    few = ek.open_images(photos)[:33]
    before = _values(ek.extract(few, network, path, layers="all"))

    class _KilledError(BaseException):
        pass

    def killed(*_args, **_kwargs):
        raise _KilledError

    with monkeypatch.context() as patched:
        patched.setattr("embedkit.store.layout._settle", killed)
        with pytest.raises(_KilledError):
            ek.extract(photos, network, path, layers="all")

    between = ek.open_store(path)
    assert between["fc"].sizes["image"] == 33
    assert len(between.images) == 33
    assert (
        before.items()
        >= {
            key: value
            for key, value in _values(between).items()
            if not np.isnan(np.frombuffer(value, np.float32)).all()
        }.items()
    )
    store = ek.extract(photos, network, path, layers="all")
    fresh = ek.extract(photos, network, tmp_path / "f.zarr", layers="all")
    assert _values(store) == _values(fresh)
    assert store.finished


def test_readers_use_what_is_committed_while_a_run_goes_on(photos, network, tmp_path):
    """A store opened in the middle has values, NaN and a status that agree."""
    path = tmp_path / "s.zarr"
    shares = []

    def look(progress):
        x = ek.open_store(path)["fc"]
        done = x["status"].values != "pending"
        good = x["status"].values == "ok"
        assert (np.isfinite(x.values).all(axis=1) == good).all()
        shares.append(done.mean())

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("embedkit.extraction.dispatch.CPU_COUNT", 1)
        with dask.config.set({"embedkit.window": 1, "scheduler": "synchronous"}):
            ek.extract(photos, network, path, layers="last", on_progress=look)

    assert shares[0] < 1.0
    assert shares[-1] == 1.0


def test_an_array_grows_too(network, tmp_path):
    """Pixels in memory have no time of change: their contents are compared."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (80, 12, 12, 3), dtype=np.uint8)
    path = tmp_path / "s.zarr"
    ek.extract(pixels[:50], network, path, layers="last")

    store = ek.extract(pixels, network, path, layers="last")

    fresh = ek.extract(pixels, network, tmp_path / "f.zarr", layers="last")
    np.testing.assert_array_equal(store["fc"].values, fresh["fc"].values)
    other = pixels.copy()
    other[3] = 0
    with pytest.raises(IdentityMismatch, match=r"1 changed \('0003'\)"):
        ek.extract(other, network, path, layers="last")


def test_growth_that_was_killed_may_be_taken_back(
    photos, network, tmp_path, monkeypatch
):
    """Asking for the old images again leaves a store as it was, for plain xarray too."""
    path = tmp_path / "s.zarr"
    few = ek.open_images(photos)[:33]
    before = _values(ek.extract(few, network, path, layers="all"))

    class _KilledError(BaseException):
        pass

    def killed(*_args, **_kwargs):
        raise _KilledError

    with monkeypatch.context() as patched:
        patched.setattr("embedkit.store.layout._settle", killed)
        with pytest.raises(_KilledError):
            ek.extract(photos, network, path, layers="all")

    store = ek.extract(few, network, path, layers="all")

    assert store.finished
    assert _values(store) == before
    tree = xr.open_datatree(path)
    assert tree["layers/fc/activation"].sizes["image"] == tree.sizes["image"] == 33
    assert ek.verify(store, network=network, sample=5).ok
    assert ek.extract(photos, network, path, layers="all").images.shape[0] == 40


def test_images_that_were_away_during_a_run_are_read_by_the_next(
    photos, network, tmp_path, monkeypatch
):
    """Their files are as they were, so nothing but trying tells that they are back."""
    path = tmp_path / "s.zarr"
    images = ek.open_images(photos)
    away = (photos / "cat").rename(tmp_path / "away")
    store = ek.extract(images, network, path, layers="last")
    assert (store.images["status"] == "unreadable").sum() == 21
    away.rename(photos / "cat")

    store = ek.extract(images, network, path, layers="last")

    assert (store.images["status"] == "unreadable").sum() == 1
    assert ek.extract(images, network, path, layers="last").finished


def test_a_finished_store_that_lost_a_file_is_not_handed_back(
    photos, network, tmp_path
):
    """The call says so, and how to repair it."""
    path = tmp_path / "s.zarr"
    store = ek.extract(photos, network, path, layers="last")
    next((store.path / "layers" / "fc" / "activation").glob("c.1.*")).unlink()

    with pytest.raises(CorruptStore, match="embedkit verify --repair"):
        ek.extract(photos, network, path, layers="last")
