"""Codecs that a plan chooses by what rows took, from the trial to the store."""

from dataclasses import replace

import dask
import numpy as np
import pytest
import torch
from torch import nn

import embedkit as ek
from embedkit.extraction.measure import probe_codecs
from embedkit.extraction.measure.measuring import measure
from embedkit.extraction.measure.probe_codecs import measure_codecs
from embedkit.extraction.measure.rough import rough
from embedkit.extraction.plans import followed, planned
from embedkit.extraction.plans.codec_choice import planned_codecs, stored_codecs
from embedkit.networks.load import load_network
from embedkit.planning.codecs import CODECS, USUAL, LayerTrial, WriteRate
from embedkit.store.codec_trials import try_codecs
from embedkit.store.schema import LayerSpec


class Smooth(nn.Module):
    """A blurred map, and what a ReLU leaves of another one."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.blur = nn.Conv2d(3, 8, 15, padding=7)
            self.edge = nn.Conv2d(3, 8, 3, padding=1)
            nn.init.uniform_(self.blur.weight, 0.0, 0.01)
        nn.init.constant_(self.blur.bias, 5.0)
        nn.init.constant_(self.edge.bias, -0.02)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.blur(x).mean() + self.relu(self.edge(x - x.mean((2, 3), True)))


class Pixels:
    """Resize to 64 by 64."""

    def __call__(self, image):
        pixels = np.asarray(image.resize((64, 64)), np.float32) / 255
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())

    def __repr__(self):
        return "Pixels(64)"


HOW = {"layers": ["blur", "relu"], "pool": "none"}


@pytest.fixture
def smooth():
    """The network of a dense layer and a sparse one."""
    return load_network(Smooth(), transform=Pixels())


@pytest.fixture
def at_leisure(monkeypatch):
    """As if writing were no matter of time: sizes decide, on a busy machine too."""

    def tried(*given, **how):
        found = try_codecs(*given, **how)
        return {codec: WriteRate(1e15, each.ratio) for codec, each in found.items()}

    monkeypatch.setattr(probe_codecs, "try_codecs", tried)
    monkeypatch.setattr(probe_codecs, "_SHARE", 1000.0)


class Told:
    """Findings that are kept here."""

    def __init__(self):
        self.codecs = {}

    def tell(self, name, value):
        """Keep what is told of a layer."""
        assert name == "codec"
        self.codecs[value[0]] = value[1:]


class Job:
    """What codecs are tried for."""

    def __init__(self, place, *layers, seconds=1000.0):
        self.place, self.layers, self.seconds = str(place), layers, seconds


def _layer(name, shape, dtype="float32"):
    return LayerSpec(
        name=f"net/{name}", tap=name, type="X", shape=shape, dtype=dtype, pool="none"
    )


def _tried(job, values, tolerance=1e-3):
    told = Told()
    measure_codecs(job, values, told, tolerance=tolerance)
    return told.codecs


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_layer_is_tried_by_its_own_rows(dtype, tmp_path):
    """Smooth maps are smaller where they are shuffled; the zeros behind a ReLU count."""
    rng = np.random.default_rng(0)
    smooth = rng.normal(0, 0.01, (4, 8, 32, 32)).cumsum(axis=3) + 5
    values = {
        "relu": np.maximum(rng.normal(-0.43, 1, (4, 8, 32, 32)), 0).astype("f4"),
        "smooth": smooth.astype("f4"),
    }
    job = Job(tmp_path, *(_layer(name, (8, 32, 32), dtype) for name in values))

    found = _tried(job, values)

    zeros, rates, hint = found["net/relu"]
    assert zeros == pytest.approx(0.666, abs=0.02)
    assert set(rates) == set(CODECS)
    assert rates["zstd-1"][1] < 0.6 < rates["none"][1]
    _, rates, _ = found["net/smooth"]
    assert rates["blosc-zstd"][1] < 0.95 * rates["zstd-1"][1]
    assert all(each[0] > 0 for each in rates.values())
    assert ("halve it" in hint) == (dtype == "float32")
    assert not [each for each in tmp_path.rglob("*") if each.name.startswith("c.")]


def test_where_time_is_short_the_largest_layer_is_tried(tmp_path):
    """Of the others their zeros are known, and of those too small to matter."""
    layers = _layer("a", (300,)), _layer("big", (400,)), _layer("tiny", (2,))
    values = {"a": np.ones((2, 300), "f4"), "big": np.ones((2, 400), "f4")}
    values["tiny"] = np.zeros((2, 2), "f4")

    found = _tried(Job(tmp_path, *layers, seconds=0.0), values)
    more = _tried(Job(tmp_path, *layers), values)

    assert {name: bool(each[1]) for name, each in found.items()} == {
        "net/a": False,
        "net/big": True,
        "net/tiny": False,
    }
    assert found["net/tiny"][0] == 1.0
    assert {name: bool(each[1]) for name, each in more.items()} == {
        "net/a": True,
        "net/big": True,
        "net/tiny": False,
    }


def test_a_single_row_is_enough(tmp_path):
    """Larger than what is written otherwise; numbers that are none count as zeros."""
    values = {"wide": np.full((1, 2**20 + 3), np.nan, "f4")}

    found = _tried(Job(tmp_path, _layer("wide", (2**20 + 3,))), values)

    assert found["net/wide"][0] == 1.0
    assert found["net/wide"][1]["zstd-1"][1] < 0.01


def test_a_dense_layer_and_a_sparse_one_differ(
    images, smooth, tmp_path, cache, started, at_leisure
):
    """Measured, planned, told, stored: and the numbers are the same, bit by bit."""
    with dask.config.set(scheduler="synchronous"):
        plan = ek.plan(images, smooth, **HOW, path=tmp_path / "a.zarr")
        store = ek.extract(images, smooth, tmp_path / "a.zarr", **HOW, plan=plan)
        layers = tuple(replace(each, codec=USUAL) for each in plan.layers)
        plain = replace(plan, layers=layers)
        usual = ek.extract(images, smooth, tmp_path / "b.zarr", **HOW, plan=plain)

    dense, sparse = plan.layers
    assert (dense.name, sparse.name) == ("blur", "relu")
    assert dense.codec.startswith("blosc")
    assert sparse.codec == USUAL
    assert "zeros; bytes left: " in dense.why
    assert [spec.codec for spec in store.schema.layers] == [dense.codec, sparse.codec]
    assert [spec.codec for spec in usual.schema.layers] == [USUAL, USUAL]
    for layer in plan.layers:
        assert layer.nbytes == 40 * 8 * 64 * 64 * 4
        assert 0 < layer.expected < layer.nbytes
        assert layer.dtype == "float32"
    opened = ek.open_store(store.path)
    for name in usual:
        np.testing.assert_array_equal(opened[name].values, usual[name].values)
    assert opened.verify().ok
    assert store.info()["nbytes_stored"] < usual.info()["nbytes_stored"]
    text, html = plan.describe(), plan._repr_html_()
    for said in (dense.codec, "expected", "before compression ("):
        assert said in text
    assert dense.codec in html
    assert dense.why.partition(",")[0] in html
    assert ek.Plan.from_json(plan.to_json()) == plan


def test_what_is_expected_is_what_is_written(
    images, smooth, tmp_path, cache, started, at_leisure
):
    """Within a fifth, for pictures like those that were measured."""
    with dask.config.set(scheduler="synchronous"):
        plan = ek.plan(images, smooth, **HOW)
        store = ek.extract(images, smooth, tmp_path / "s.zarr", **HOW, plan=plan)

    for layer in plan.layers:
        folder = store.path / "layers" / layer.name
        written = sum(each.stat().st_size for each in folder.rglob("c.*"))
        assert written == pytest.approx(layer.expected, rel=0.2), layer


def _planned(monkeypatch, codecs):
    """Plan with rough numbers, and with trials that make some codecs the best."""

    def measure(looks, *, n_images=None, where=None, refresh=False):
        found = rough(looks)
        trials = tuple(
            LayerTrial(
                layer=layer.name,
                zeros=0.0,
                rates={codecs.get(layer.name, USUAL): WriteRate(1e15, 0.5)},
            )
            for layer in found.layers
        )
        return replace(found, trials=trials)

    for each in (planned, followed):
        monkeypatch.setattr(each, "measure", measure)
    monkeypatch.setattr(followed, "LONG", 0.0)


def _codecs(store):
    return {spec.name: spec.codec for spec in store.schema.layers}


def test_layers_that_are_begun_keep_their_codec(images, network, tmp_path, monkeypatch):
    """New ones beside them get what the plan says, and so do those of another network."""
    path = tmp_path / "s.zarr"
    with dask.config.set(scheduler="synchronous"):
        ek.extract(images, network, path, layers="conv1", plan=None)
        _planned(monkeypatch, {"conv1": "zstd-3", "fc": "blosc-lz4"})
        store = ek.extract(images, network, path, layers=["conv1", "fc"])
        assert _codecs(store) == {"conv1": USUAL, "fc": "blosc-lz4"}

        digits = ek.load_network("embedkit/digits")
        (tap,) = digits.resolve("last")
        _planned(monkeypatch, {tap: "none"})
        store = ek.extract(images, digits, path, layers="last", add_network=True)

    name = f"{digits.name}/{tap}"
    assert _codecs(store) == {"conv1": USUAL, "fc": "blosc-lz4", name: "none"}
    assert store.verify().ok


def test_a_run_that_goes_on_keeps_its_codecs(images, network, tmp_path, monkeypatch):
    """The plan of the second call says so, whatever would be best now."""
    path = tmp_path / "s.zarr"
    _planned(monkeypatch, {"conv1": "zstd-3"})

    def stop(progress):
        raise KeyboardInterrupt

    with dask.config.set(scheduler="synchronous"):
        plan = ek.plan(images, network, layers="conv1", block=8)
        with pytest.raises(KeyboardInterrupt):
            ek.extract(
                images, network, path, layers="conv1", plan=plan, on_progress=stop
            )
        _planned(monkeypatch, {"conv1": "none"})
        again = ek.plan(images, network, layers="conv1", path=path)
        store = ek.extract(images, network, path, layers="conv1")

    (layer,) = again.layers
    assert (layer.codec, layer.why) == ("zstd-3", "the store has begun it so")
    assert layer.expected is None
    assert _codecs(store) == {"conv1": "zstd-3"}
    assert store.complete


def test_codecs_are_found_by_whatever_call_a_plan_was_made_for(
    ask, images, monkeypatch
):
    """All networks of a call, or those that a store lacks; never those of another."""
    digits = ek.load_network("embedkit/digits")
    both = [ask(layers=["conv1"]), ask(network=digits, layers="last")]
    (tap,) = both[1].layers
    _planned(monkeypatch, {tap: "none"})
    mine = ek.plan(images, digits, layers="last")

    assert planned_codecs(mine, both, both[1:]) == {digits.name: {tap: "none"}}
    assert planned_codecs(mine, both, both[:1]) == {}
    stored = {digits.name: {tap: "zstd-3"}}
    assert stored_codecs(both, stored) == {f"{digits.name}/{tap}": "zstd-3"}
    assert stored_codecs(both[1:], stored) == {tap: "zstd-3"}


def test_a_trial_is_kept_with_the_measurement(ask, started, cache):
    """And is the same when it is read again."""
    first = measure([ask(pool="none")])

    assert measure([ask(pool="none")]) == first
    assert {each.layer for each in first.trials} == {e.name for e in first.layers}
    assert all(0 <= each.zeros <= 1 for each in first.trials)
    assert max(first.trials, key=lambda each: len(each.rates)).rates.keys() == {*CODECS}


def test_a_store_whose_layers_have_codecs_is_filled_like_any(
    photos, network, tmp_path, monkeypatch
):
    """The driver's specs decide; values are the same bit by bit."""
    usual = ek.extract(photos, network, tmp_path / "a.zarr", plan=None)
    true_spec = LayerSpec.__init__

    def init(self, *, codec="blosc-lz4", **fields):
        true_spec(self, codec="blosc-lz4", **fields)

    monkeypatch.setattr(LayerSpec, "__init__", init)
    other = ek.extract(photos, network, tmp_path / "b.zarr", plan=None)
    monkeypatch.undo()

    opened = ek.open_store(other.path)
    assert {spec.codec for spec in opened.schema.layers} == {"blosc-lz4"}
    assert opened.verify().ok
    for layer in usual:
        np.testing.assert_array_equal(opened[layer].values, usual[layer].values)
