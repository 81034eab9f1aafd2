"""Codecs of a pass, chosen by rows that were computed."""

from dataclasses import replace

import numpy as np
import pytest

import embedkit as ek
from embedkit.extraction import codec_choice
from embedkit.extraction.codec_choice import choose_codecs, with_codecs
from embedkit.files.files import files_at
from embedkit.planning.codecs import USUAL, WriteRate
from embedkit.store.schema import LayerSpec


@pytest.fixture
def place(tmp_path):
    """An empty place."""
    return files_at(tmp_path / "tries")


def _layer(name, shape, dtype="float32"):
    return LayerSpec(
        name=f"net/{name}", tap=name, type="X", shape=shape, dtype=dtype, pool="none"
    )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_layer_gets_the_codec_that_its_own_rows_ask_for(dtype, place):
    """Smooth maps are shuffled, those behind a ReLU are not; both are told why."""
    rng = np.random.default_rng(0)
    smooth = rng.normal(0, 0.01, (4, 8, 32, 32)).cumsum(axis=3) + 5
    values = {
        "relu": np.maximum(rng.normal(-0.43, 1, (4, 8, 32, 32)), 0).astype("f4"),
        "smooth": smooth.astype("f4"),
    }
    layers = [_layer(name, (8, 32, 32), dtype) for name in values]

    found = choose_codecs(layers, values, place, tolerance=1e-3)

    assert found["net/relu"].choice.codec == USUAL
    assert found["net/smooth"].choice.codec.startswith("blosc")
    assert found["net/relu"].choice.why.startswith("66% zeros; bytes left: zstd-1 0.")
    hints = {each.float16 for each in found.values()}
    assert hints == {""} if dtype == "float16" else all("halve" in h for h in hints)
    assert not [name for name in place.names() if "/c" in name]


def test_writing_may_take_a_tenth_of_the_time(place, monkeypatch):
    """Ten images a second of 4,000 bytes need 400,000 bytes a second."""
    asked = []

    def choose(zeros, rates, *, needed_rate):
        asked.append(needed_rate)
        return true_choose(zeros, rates, needed_rate=needed_rate)

    true_choose = codec_choice.choose_codec
    monkeypatch.setattr(codec_choice, "choose_codec", choose)
    monkeypatch.setattr(
        codec_choice, "try_codecs", lambda *a, **k: {"none": WriteRate(1e6, 1.0)}
    )
    layers = [_layer("a", (600,)), _layer("b", (400,))]
    values = {name: np.ones((2, size), "f4") for name, size in (("a", 600), ("b", 400))}

    choose_codecs(layers, values, place, tolerance=1e-4, images_per_second=10.0)

    assert asked == [pytest.approx(400_000)] * 2


def test_a_single_row_is_enough(place):
    """Larger than what is written otherwise, or the only picture there is."""
    layers = [_layer("wide", (2**21 + 3,)), _layer("empty", (4,))]
    values = {"wide": np.ones((1, 2**21 + 3), "f4"), "empty": np.zeros((1, 4), "f4")}

    found = choose_codecs(layers, values, place, tolerance=1e-4)

    assert set(found) == {"net/wide", "net/empty"}


def test_specs_take_the_codecs_that_were_chosen(place):
    """And keep theirs where nothing was."""
    layers = [_layer("a", (4,)), _layer("b", (4,))]
    chosen = choose_codecs(
        layers[:1], {"a": np.ones((1, 4), "f4")}, place, tolerance=1e-4
    )
    expected = chosen["net/a"].choice.codec

    found = with_codecs(layers, chosen)

    assert found == (replace(layers[0], codec=expected), layers[1])


def test_a_store_whose_layers_have_codecs_is_filled_like_any(
    photos, network, tmp_path, monkeypatch
):
    """The driver's specs decide; values are the same bit by bit."""
    usual = ek.extract(photos, network, tmp_path / "a.zarr", plan=None)
    true_spec = LayerSpec.__init__

    def init(self, *, codec="blosc-lz4", **fields):
        true_spec(self, codec=codec, **fields)

    monkeypatch.setattr(LayerSpec, "__init__", init)
    other = ek.extract(photos, network, tmp_path / "b.zarr", plan=None)
    monkeypatch.undo()

    opened = ek.open_store(other.path)
    assert {spec.codec for spec in opened.schema.layers} == {"blosc-lz4"}
    assert opened.verify().ok
    for layer in usual:
        np.testing.assert_array_equal(opened[layer].values, usual[layer].values)
