"""Files that are no images, or odd ones: every image keeps its row, and its neighbours theirs."""

import io
import os
import shutil
import unicodedata
from pathlib import Path

import dask
import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torchvision import transforms

import embedkit as ek
from embedkit.images.decode import image_extensions

SIDE = 12
HARD = ("hard_images_pillow", "exif_mit")


@pytest.fixture(scope="module")
def hostile(shared_data, tmp_path_factory):
    """Sixteen good photos, a collection of hard files and photos turned in every way."""
    folder = tmp_path_factory.mktemp("hostile")
    photos = sorted((shared_data / "clothing_cc0" / "test").rglob("*.jpg"))[:16]
    hard = [file for name in HARD for file in sorted((shared_data / name).iterdir())]
    for number, file in enumerate(photos):
        # Their names put them among the hard files, so that they share batches.
        shutil.copyfile(file, folder / f"{chr(ord('a') + number)}_photo.jpg")
    for file in hard:
        if file.suffix.lower() in image_extensions():
            shutil.copyfile(file, folder / file.name)
    return folder


@pytest.fixture(scope="module")
def squeezenet(shared_data):
    """A small network with trained weights, for small pictures."""
    weights = shared_data / "weights" / "squeezenet1_0_imagenet_deepcompression.pt"
    small = transforms.Compose([transforms.Resize((96, 96)), transforms.ToTensor()])
    return ek.load_network("squeezenet1_0", weights=weights, transform=small)


@pytest.fixture(scope="module")
def two_workers():
    """Two worker processes of one thread each."""
    with (
        LocalCluster(
            processes=True, n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def _peak(store):
    """The most memory that a worker had while it computed a block, bytes."""
    commits = [
        each for one in store.schema.passes for each in store.commits(one).values()
    ]
    return max(each.peak_mem for each in commits)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_folder_of_hostile_files_through_a_cluster(
    hostile, squeezenet, two_workers, tmp_path
):
    """A row for each file, in order; bad ones NaN with a reason; good ones as without."""
    how = {"layers": "stages", "batch_size": 16}
    with two_workers.as_current():
        before = two_workers.run(os.getpid)
        store = ek.extract(hostile, squeezenet, tmp_path / "all.zarr", **how)
        images = store.images
        good = images.index[images["status"] == "ok"]
        clean = ek.extract(
            [hostile / name for name in good], squeezenet, tmp_path / "good.zarr", **how
        )
        assert two_workers.run(os.getpid) == before  # nobody died

    assert list(images.index) == sorted(each.name for each in hostile.iterdir())
    assert store.complete
    bad = images.index[images["status"] == "unreadable"]
    assert len(images) == len(good) + len(bad) == 166
    assert 35 <= len(bad) <= 50
    assert all(images.loc[bad, "error"].str.len() > 10)
    assert (images.loc[good, "error"] == "").all()
    for name in ("decompression_bomb.gif", "bmp__b__reallybig.bmp", "l2rgb_read.bmp"):
        assert "more pixels than Pillow allows" in images.loc[name, "error"]
    assert (clean.images["status"] == "ok").all()
    rows, lost = store.locate(list(good)), store.locate(list(bad))
    for layer in store:
        values = store[layer].values
        assert np.isnan(values[lost]).all()
        assert np.isfinite(values[rows]).all()
        assert values[rows].tobytes() == clean[layer].values.tobytes(), layer
    assert _peak(store) < _peak(clean) + 150e6  # a bomb of 89 Mpixel alone has 268 MB


class Pixels(nn.Module):
    """Gives the picture itself, then what a convolution and a vector make of it."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.conv = nn.Conv2d(3, 8, 3, padding=1)
            self.fc = nn.Linear(8, 5)
        self.pixels = nn.Identity()

    def forward(self, x):
        return self.fc(torch.relu(self.conv(self.pixels(x))).mean((2, 3)))


class Corner:
    """Puts a picture into the upper left corner of a black square, unscaled."""

    def __call__(self, image):
        square = torch.zeros(3, SIDE, SIDE)
        levels = np.asarray(image, np.float32).transpose(2, 0, 1)
        square[:, : levels.shape[1], : levels.shape[2]] = torch.tensor(levels)
        return square

    def __repr__(self):
        return f"Corner({SIDE})"


@pytest.fixture(scope="module")
def tiny():
    """A network whose first layer is the picture."""
    return ek.load_network(Pixels(), transform=_bounded)


def _bounded(image):
    """`Corner` of what fits; the probe picture is larger than any of these."""
    return Corner()(image.crop((0, 0, min(SIDE, image.width), min(SIDE, image.height))))


def _saved(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _rgb(levels, draw):
    return _saved(
        Image.fromarray(levels), draw(st.sampled_from(["PNG", "BMP", "TIFF"]))
    )


def _cmyk(levels, draw):
    """Without black, ink is the complement of light."""
    black = np.zeros_like(levels[..., :1])
    ink = np.concatenate([255 - levels, black], axis=2)
    return _saved(Image.fromarray(ink, "CMYK"), "TIFF")


def _sixteen(levels, draw):
    """Every 16-bit gray level that is 257 times an 8-bit one is that one."""
    levels[:] = levels[..., :1]
    return _saved(Image.fromarray(levels[..., 0].astype(np.uint16) * 257), "PNG")


def _palette(levels, draw):
    """Four colours, the first of them transparent: white."""
    colours = levels.reshape(-1, 3)[np.arange(4) % (levels.size // 3)].copy()
    index = draw(st.integers(0, 2**32 - 1))
    index = np.random.default_rng(index).integers(
        0, 4, levels.shape[:2], dtype=np.uint8
    )
    levels[:] = np.where(index[..., None] == 0, 255, colours[index])
    image = Image.fromarray(index, "P")
    image.putpalette(colours.tobytes())
    return _saved(image, "PNG", transparency=0)


def _animated(levels, draw):
    """The first of two frames counts."""
    first = Image.fromarray(levels)
    last = Image.fromarray(255 - levels)
    return _saved(first, "PNG", save_all=True, append_images=[last])


_STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: np.rot90,
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}
"""How an upright picture lies in a file of each EXIF orientation."""


def _turned(levels, draw):
    orientation = draw(st.integers(1, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying = np.ascontiguousarray(_STORED[orientation](levels))
    return _saved(Image.fromarray(lying), "PNG", exif=exif)


_GOOD = (_rgb, _cmyk, _sixteen, _palette, _animated, _turned)
_HTML = b"<!doctype html><title>404</title><p>" + b"not found " * 20
_STEMS = (
    "photo",
    "Größe",
    "日本",
    "🐈 tail",
    "a#b%20c",
    "x'y",
    "é",
    "e\u0301",
    "semi;colon",
)
_ENDS = (".jpg", ".png", ".JPG", ".tif", ".webp", ".jpeg")


@st.composite
def _files(draw):
    """Return files by name: their bytes, the pixels they show, and what became of them."""
    names = draw(
        st.lists(
            st.builds(
                lambda folder, stem, end: f"{folder}/{stem}{end}",
                st.sampled_from(["one", "two"]),
                st.sampled_from(_STEMS),
                st.sampled_from(_ENDS),
            ),
            min_size=1,
            max_size=9,
            # Some file systems take these for the same name.
            unique_by=lambda name: unicodedata.normalize("NFC", name).casefold(),
        )
    )
    return {name: _file(draw) for name in names}


def _file(draw):
    shape = (draw(st.integers(1, SIDE)), draw(st.integers(1, SIDE)), 3)
    seed = draw(st.integers(0, 2**32 - 1))
    levels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    data = draw(st.sampled_from(_GOOD))(levels, draw)
    fate = draw(st.sampled_from(["whole", "whole", "cut", "empty", "html"]))
    if fate == "cut":
        data = data[: draw(st.integers(0, len(data) - 1))]
    return {"whole": data, "cut": data, "empty": b"", "html": _HTML}[fate], levels, fate


def _written(folder, files):
    for name, (data, _, _) in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return [folder / name for name in files]


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files=_files())
def test_any_files_keep_their_rows(files, tiny, tmp_path_factory):
    """N rows in order, the right pixels or a reason, and neighbours bit by bit the same."""
    folder = tmp_path_factory.mktemp("files")
    paths = _written(folder, files)
    how = {"layers": ["pixels", "fc"], "pool": {"pixels": "none", "*": "avg"}}
    with dask.config.set(scheduler="synchronous"):
        store = ek.extract(paths, tiny, folder / "all.zarr", batch_size=4, **how)

        images = store.images
        assert len(images) == len(files)
        assert [Path(uri) for uri in images["uri"]] == paths
        status = images["status"].tolist()
        pixels, last = store["pixels"].values, store["fc"].values
        for row, (_, levels, fate) in enumerate(files.values()):
            ok = status[row] == "ok"
            assert ok or fate != "whole", images["error"].iloc[row]
            assert not ok or fate in ("whole", "cut")  # a cut may leave all the pixels
            if ok:
                expected = np.zeros((3, SIDE, SIDE), np.float32)
                expected[:, : levels.shape[0], : levels.shape[1]] = levels.transpose(
                    2, 0, 1
                )
                np.testing.assert_array_equal(pixels[row], expected)
                assert np.isfinite(last[row]).all()
            else:
                assert status[row] == "unreadable"
                assert images["error"].iloc[row]
                assert np.isnan(pixels[row]).all()
                assert np.isnan(last[row]).all()

        good = [row for row, each in enumerate(status) if each == "ok"]
        if good:
            alone = ek.extract(
                [paths[row] for row in good],
                tiny,
                folder / "good.zarr",
                batch_size=4,
                **how,
            )
            assert alone["fc"].values.tobytes() == last[good].tobytes()


class Oddity(Exception):
    """An error of nobody's kind, as libraries have their own."""


class FailsUntraced(nn.Module):
    """Cannot be traced, and cannot be run."""

    def forward(self, x):
        if x.sum() < 1e9:
            raise Oddity("no such branch")
        return x


class Splits(nn.Module):
    """Has a tap that is no tensor."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        one, other = self.conv(x).chunk(2, 1)
        return one + other


def _zeros(image):
    return torch.zeros(3, 8, 8)


def _refuses(image):
    raise Oddity("no face in the picture")


def _gives_an_array(image):
    return np.zeros((3, 8, 8), np.float32)


@pytest.mark.parametrize(
    ("module", "transform", "layers", "message"),
    [
        (
            FailsUntraced,
            _zeros,
            "all",
            r"network FailsUntraced .*Oddity: no such branch",
        ),
        (Splits, _zeros, ["chunk"], r"'chunk' of network Splits is no layer.*tuple"),
        (Splits, _zeros, ["chonk"], r"network Splits has no layer 'chonk'"),
        (Splits, _refuses, "all", r"transform _refuses of network Splits .*no face"),
        (Splits, _gives_an_array, "all", r"transform of network Splits gave a ndarray"),
        (
            lambda: torch.jit.script(Splits()),
            _zeros,
            "all",
            "network RecursiveScriptModule cannot be looked into: it is TorchScript",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_what_cannot_work_is_named_before_any_block(
    module, transform, layers, message, images, tmp_path, monkeypatch
):
    """The network, layer or transform is named in one line, and nothing is written."""
    monkeypatch.setattr(
        "embedkit.extraction.driver.fill_by_ways", None
    )  # no block starts
    with pytest.raises(ek.errors.NetworkError, match=message) as caught:
        ek.extract(
            images,
            ek.load_network(module(), transform=transform),
            tmp_path / "deep" / "s.zarr",
            layers=layers,
        )
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "deep").exists()
