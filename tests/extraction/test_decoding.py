"""Layers of JPEGs that are decoded no larger than a network needs."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import nn
from torchvision import transforms

import embedkit as ek
from embedkit.errors import IdentityMismatch, InputError
from embedkit.extraction.decoding import Deviation, deviation, policy_for
from embedkit.images.decode import decode
from embedkit.images.source import FileSource
from embedkit.networks.load import load_network


class Conv(nn.Module):
    """A convolution and what is positive of it."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(11)
            self.conv = nn.Conv2d(3, 6, 3, stride=2)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.conv(x))


def _network(side, name="conv"):
    steps = [transforms.Resize(side), transforms.CenterCrop(16), transforms.ToTensor()]
    return load_network(Conv(), transform=transforms.Compose(steps), name=name)


@pytest.fixture(scope="module")
def net():
    """A network whose transform resizes to 20 pixels."""
    return _network(20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty files: JPEGs of three sizes, some turned, a PNG, one cut short, one empty."""
    place = tmp_path_factory.mktemp("jpegs")
    rng = np.random.default_rng(5)
    for i in range(40):
        width, height = ((330, 250), (101, 90), (36, 30))[i % 3]
        small = rng.integers(0, 256, (8, 11, 3), np.uint8)
        picture = Image.fromarray(small).resize((width, height), 3)
        exif = Image.Exif()
        exif[0x0112] = 1 + i % 8
        picture.save(place / f"{i:02d}.jpg", quality=88, exif=exif)
    picture.resize((300, 240)).save(place / "07.jpg", "PNG")
    whole = (place / "12.jpg").read_bytes()
    (place / "12.jpg").write_bytes(whole[: len(whole) // 2])
    (place / "13.jpg").write_bytes(b"")
    return place


@pytest.fixture(scope="module")
def fast(folder, net, tmp_path_factory):
    """A store of them all, decoded fast."""
    path = tmp_path_factory.mktemp("fast") / "s.zarr"
    return ek.extract(folder, net, path, layers=["conv", "act"], decode="fast")


def _rows(store):
    return {layer: store[layer].values for layer in store}


def _same(one, other):
    for layer, values in _rows(one).items():
        np.testing.assert_array_equal(values, other[layer].values)


def _decodes(store):
    return [one.parts["decode"] for one in store.schema.passes]


def test_rows_are_those_of_the_small_pictures(folder, net, fast):
    """Every row is what the network gives for Pillow's own draft of the file."""
    taps = net.taps(["conv"])
    good = np.flatnonzero(fast.images["status"] == "ok")
    reduced = 0
    for row in good:
        with Image.open(folder / fast.images.index[row]) as image:
            whole = image.size
            image.draft(None, (20, 20))
            upright = ImageOps.exif_transpose(image).convert("RGB")
        reduced += sorted(upright.size) != sorted(whole)
        batch = np.stack([net.transform(upright).numpy()])
        expected = taps.forward(batch)["conv"][0]
        np.testing.assert_allclose(fast["conv"].values[row], expected, atol=1e-6)

    assert len(good) == 38
    assert 15 < reduced < 30


def test_what_cannot_be_read_is_the_same_either_way(folder, net, fast, tmp_path):
    """The same rows of NaN, with the same reasons; the others differ a little."""
    exact = ek.extract(folder, net, tmp_path / "s.zarr", layers=["conv", "act"])

    assert fast.images["status"].tolist() == exact.images["status"].tolist()
    assert fast.images["error"].tolist() == exact.images["error"].tolist()
    one, other = exact["conv"].values, fast["conv"].values
    assert (np.isnan(one) == np.isnan(other)).all()
    assert 0 < np.nanmax(np.abs(one - other)) < 0.1
    assert (one[2::3] == other[2::3]).all()  # 36x30: less than twice what is needed
    assert _decodes(exact) == ["pil-rgb-1"]


def test_the_rule_and_its_error_are_kept(folder, net, fast):
    """In the identity the rule, and beside it what it did to the first eight images."""
    about = fast.info()["networks"]["conv"]

    assert _decodes(fast) == ["pil-rgb-1-draft-20"]
    assert about["decode"] == "pil-rgb-1-draft-20"
    assert "on 8 images: input of the network off by" in about["deviation"]
    layers = dict(each.split("=") for each in about["deviations"].split())
    assert [*layers] == ["conv", "act"]
    first = [
        (decode(file), decode(file, at_least=20))
        for file in sorted(folder.iterdir())[:8]
    ]
    exact, small = (
        np.stack([net.prepare(pair[at]) for pair in first]) for at in (0, 1)
    )
    gaps = np.abs(exact - small)
    assert f"off by {gaps.max():.2g} at most, {gaps.mean():.2g}" in about["deviation"]
    before, now = (net.taps(["conv"]).forward(each)["conv"] for each in (exact, small))
    worst = (np.abs(before - now).max(axis=1) / np.abs(before).max(axis=1)).max()
    assert float(layers["conv"]) == pytest.approx(worst, rel=0.1)


@pytest.mark.parametrize(("stored", "asked"), [("fast", "exact"), ("exact", "fast")])
def test_another_rule_does_not_go_on(stored, asked, folder, net, tmp_path):
    """A store is of one rule for a network, and the message names it."""
    path = tmp_path / "s.zarr"
    ek.extract(folder, net, path, layers="conv", decode=stored)

    with pytest.raises(IdentityMismatch, match="made with other decode") as error:
        ek.extract(folder, net, path, layers="conv", decode=asked)
    with pytest.raises(IdentityMismatch, match="made with other decode"):
        ek.extract(folder, net, path, layers="act", decode=asked, add_network=True)

    assert error.value.parts == ("decode",)
    assert "draft-20" in str(error.value)


def test_more_images_and_layers_come_by_the_same_rule(folder, net, fast, tmp_path):
    """Grown in three calls, a store has the bits of one that was made at once."""
    path, files = tmp_path / "s.zarr", sorted(folder.iterdir())
    some = [file for file in files if file.name < "25"]

    ek.extract(some, net, path, layers="conv", decode="fast")
    ek.extract(files, net, path, layers="conv", decode="fast")
    grown = ek.extract(files, net, path, layers=["conv", "act"], decode="fast")

    _same(fast, grown)
    assert set(_decodes(grown)) == {"pil-rgb-1-draft-20"}


def test_nothing_is_computed_twice(folder, net, tmp_path, monkeypatch):
    """The same call again reads no image."""
    path = tmp_path / "s.zarr"
    ek.extract(folder, net, path, layers="conv", decode="fast")
    monkeypatch.setattr(FileSource, "fetch", None)

    again = ek.extract(folder, net, path, layers="conv", decode="fast")

    assert again.complete


def test_rows_are_verified_and_repaired_by_the_stored_rule(folder, net, tmp_path):
    """What is computed again has the very same bits."""
    path = tmp_path / "s.zarr"
    store = ek.extract(folder, net, path, layers=["conv", "act"], decode="fast")
    before = _rows(store)

    checked = ek.verify(path, network=net, sample=30)
    file = next((path / "layers" / "conv" / "activation").glob("c.*.*"))
    file.write_bytes(file.read_bytes()[:-9])
    repaired = ek.verify(path, network=net, repair=True)

    assert checked.ok
    assert checked.max_error == 0.0
    assert repaired.ok
    assert repaired.repaired == 1
    for layer, values in before.items():
        np.testing.assert_array_equal(ek.open_store(path)[layer].values, values)


def test_a_rule_of_another_version_is_not_verified(folder, net, tmp_path):
    """Rows that cannot be decoded as they were are no damage: the message says why."""
    path = tmp_path / "s.zarr"
    ek.extract(folder, net, path, layers="conv")
    place = path / "zarr.json"
    place.write_text(place.read_text().replace('"pil-rgb-1"', '"pil-rgb-0"'))

    with pytest.raises(IdentityMismatch, match="other decode"):
        ek.verify(path, network=net, sample=3)


def test_of_several_networks_the_largest_need_counts(folder, net, fast, tmp_path):
    """Images are decoded once, and each network alone goes on by that rule."""
    path, large = tmp_path / "s.zarr", _network(40, "large")

    both = ek.extract(folder, [net, large], path, layers="conv", decode="fast")
    assert _decodes(both) == ["pil-rgb-1-draft-40"] * 2
    more = ek.extract(folder, net, path, layers="act", decode="fast")
    assert _decodes(more) == ["pil-rgb-1-draft-40"] * 3
    alone = ek.extract(folder, large, tmp_path / "l.zarr", layers="conv", decode="fast")
    np.testing.assert_array_equal(both["large/conv"].values, alone["conv"].values)
    assert not np.array_equal(both["conv"].values, fast["conv"].values, equal_nan=True)


def test_a_network_beside_another_may_need_more(folder, net, tmp_path):
    """Passes of different rules lie in one store, and are computed apart."""
    path, large = tmp_path / "s.zarr", _network(40, "large")
    ek.extract(folder, net, path, layers="conv", decode="fast")

    both = ek.extract(folder, [net, large], path, layers=["conv", "act"], decode="fast")

    rules = {one.network: one.parts["decode"] for one in both.schema.passes}
    assert rules == {"conv": "pil-rgb-1-draft-20", "large": "pil-rgb-1-draft-40"}
    for mine, name in ((net, "conv"), (large, "large/conv")):
        one = ek.extract(
            folder, mine, tmp_path / mine.name, layers="conv", decode="fast"
        )
        np.testing.assert_array_equal(both[name].values, one["conv"].values)
    assert ek.verify(both, network=large, sample=0).ok


def test_a_transform_that_says_no_size_is_refused(folder, tmp_path):
    """Nothing is written, and the message has the remedy."""
    own = load_network(Conv(), transform=transforms.Compose([transforms.ToTensor()]))

    with pytest.raises(InputError, match=r"Compose of network Conv .* decode='exact'"):
        ek.extract(folder, own, tmp_path / "s.zarr", decode="fast")

    assert not (tmp_path / "s.zarr").exists()


def test_a_way_that_there_is_not_is_refused(folder, net, tmp_path):
    """With the nearest one."""
    with pytest.raises(InputError, match=r"cannot be decoded 'fats'.*fast"):
        ek.extract(folder, net, tmp_path / "s.zarr", decode="fats")
    assert policy_for("exact", [net]) == "pil-rgb-1"


def test_arrays_come_out_the_same(net):
    """What is no JPEG is said to stay as it is, and nothing is said of exact decoding."""
    images = ek.open_images(np.full((3, 99, 99, 3), 80, np.uint8))

    found = deviation(net, images, "pil-rgb-1-draft-20", pools={"conv": "avg"})

    assert found.text.endswith("changes nothing in the first 3 images")
    assert found.layers == "conv=0.0e+00"
    assert deviation(net, images, "pil-rgb-1", pools={"conv": "avg"}) == Deviation()


def test_images_that_cannot_be_measured(net, folder, tmp_path):
    """Unreadable ones, and ones that the transform fails on, are left to the run."""

    class Fails(transforms.Resize):
        def forward(self, image):
            if image.size != (512, 384):  # the picture that shapes are told from
                raise ValueError("too odd")
            return super().forward(image)

    Fails.__module__ = "torchvision.transforms"
    steps = transforms.Compose([Fails((9, 9)), transforms.ToTensor()])
    odd = load_network(Conv(), transform=steps)
    images = ek.open_images([folder / "13.jpg", folder / "00.jpg"])

    found = deviation(odd, images, "pil-rgb-1-draft-20", pools={"conv": "avg"})

    assert found.text.endswith("none of the first 2 images can be measured")
    assert found.layers == ""
