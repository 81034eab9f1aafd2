"""Codecs tried on rows, and layers compressed by them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from embedkit.files.files import files_at
from embedkit.planning.codecs import CODECS, USUAL, choose_codec
from embedkit.store import blocks
from embedkit.store.codec_trials import float16_error, try_codecs, zero_share
from embedkit.store.schema import StoreSchema
from embedkit.store.store import open_store


@pytest.fixture(params=["folder", "memory"])
def place(request, tmp_path):
    """An empty place on disk, and one in memory."""
    if request.param == "folder":
        return files_at(tmp_path / "tries")
    return files_at(f"memory://{request.node.name}/{tmp_path.name}")


@pytest.fixture
def sparse():
    """What a ReLU leaves: two thirds zeros."""
    values = np.random.default_rng(0).normal(-0.43, 1, (64, 4096))
    return np.maximum(values, 0).astype(np.float32)


@pytest.fixture
def dense():
    """Smooth numbers without zeros: neighbors are alike."""
    steps = np.random.default_rng(1).normal(0, 0.01, (64, 4096)).cumsum(axis=1)
    return (5 + steps).astype(np.float32)


def test_every_codec_is_tried_and_nothing_is_left_behind(place, sparse):
    """Sizes are those of the files; not compressing leaves all bytes."""
    found = try_codecs(place, sparse, chunk=16)

    assert set(found) == set(CODECS)
    assert all(each.rate > 0 for each in found.values())
    assert found["none"].ratio == pytest.approx(1.0, rel=0.01)
    assert 0.2 < found["zstd-1"].ratio < 0.5
    assert [name for name in place.names() if "/c" in name] == []


def test_sparse_layers_and_dense_ones_are_compressed_otherwise(tmp_path, sparse, dense):
    """By what their own rows were measured to take, as small as they get."""
    place = files_at(tmp_path / "tries")

    sizes = {
        name: {
            codec: each.ratio
            for codec, each in try_codecs(place, values, chunk=16).items()
        }
        for name, values in (("sparse", sparse), ("dense", dense))
    }

    assert sizes["sparse"]["zstd-1"] < sizes["sparse"]["blosc-zstd"]
    assert sizes["dense"]["blosc-zstd"] < 0.9 * sizes["dense"]["zstd-1"]


def test_what_is_measured_is_what_is_chosen_from(tmp_path, dense):
    """From rows to a codec."""
    measured = try_codecs(
        files_at(tmp_path / "tries"), dense, chunk=16, codecs=["none", "blosc-zstd"]
    )

    assert choose_codec(zero_share(dense), measured).codec == "blosc-zstd"


def test_zeros_are_counted(sparse, dense):
    """NaN is none, and nothing has none."""
    assert zero_share(sparse) == pytest.approx(0.667, abs=0.01)
    assert zero_share(dense) == 0.0
    assert zero_share(np.array([0, np.nan, 1, -0.0])) == 0.5
    assert zero_share(np.empty((0, 4))) == 0.0


def test_what_float16_would_lose():
    """Relative to the largest number of each row; rows that are not finite do not count."""
    third = np.float32(1 / 3)
    values = np.array([[1, third], [100, 100 * third], [np.nan, 0.1], [0, 0]], "f4")

    lost = abs(float(np.float16(third)) - float(third))
    hundred = np.float32(100) * third
    expected = max(lost, abs(float(np.float16(hundred)) - float(hundred)) / 100)
    assert float16_error(values) == pytest.approx(expected, rel=1e-6)
    assert float16_error(np.array([[1e5, 1]], "f4")) == float("inf")
    assert float16_error(np.zeros((0, 3), "f4")) == 0.0


@pytest.mark.parametrize("codec", CODECS)
def test_layers_of_every_codec_come_back_bit_by_bit(
    codec, tmp_path, create, one, write_blocks, values
):
    """The store reads, verifies and tells its schema as always."""
    layers = tuple(replace(spec, codec=codec) for spec in one.layers)
    chosen = replace(one, layers=layers)
    schema = StoreSchema(n_images=70, passes=(chosen,))
    files = create(tmp_path / "s.zarr", schema)
    write_blocks(files, schema, chosen)

    store = open_store(files.url)

    assert store.schema == schema
    np.testing.assert_array_equal(store["conv"].values, values["conv"])
    assert store.verify().ok
    meta = json.loads(files.read(f"{blocks.activation(layers[1])}/zarr.json"))
    inner = meta["codecs"][0]["configuration"]["codecs"]
    names = [each["name"] for each in inner]
    assert (
        names
        == {
            "none": ["bytes"],
            "zstd": ["bytes", "zstd"],
            "blosc": ["bytes", "blosc"],
        }[codec.partition("-")[0]]
    )


def test_the_usual_codec_is_not_written_down(one):
    """So that a store is the one that older embedkits know."""
    usual = StoreSchema(n_images=70, passes=(one,)).to_json()
    layers = (replace(one.layers[0], codec="none"), one.layers[1])
    other = StoreSchema(n_images=70, passes=(replace(one, layers=layers),))

    assert all(spec.codec == USUAL for spec in one.layers)
    assert "codec" not in json.dumps(usual)
    assert json.dumps(other.to_json()).count('"codec"') == 1
    assert StoreSchema.from_json(json.loads(json.dumps(other.to_json()))) == other
