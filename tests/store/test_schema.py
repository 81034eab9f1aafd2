"""The description of a store and its passes."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.errors import CorruptStore
from embedkit.store.schema import FORMAT, LayerSpec, StoreSchema

DIMS = {
    (): ("image",),
    (8,): ("image", "feature"),
    (50, 8): ("image", "token", "feature"),
    (2, 3, 4): ("image", "channel", "y", "x"),
    (2, 3, 4, 5): ("image", "axis_0", "axis_1", "axis_2", "axis_3"),
}


@pytest.fixture
def both(schema, one, other):
    """Two networks over the same images."""
    return dataclasses.replace(schema, passes=(one, other))


@pytest.mark.parametrize("shape", DIMS)
def test_dimensions_have_names(one, shape):
    """What a layer's axes mean depends on how many there are."""
    spec = dataclasses.replace(one.layers[0], shape=shape)

    assert spec.dims == DIMS[shape]


@given(
    st.lists(st.integers(1, 50), max_size=4),
    st.sampled_from(["float16", "float32", "uint8"]),
)
def test_bytes_of_a_row_are_those_of_its_array(shape, dtype):
    """The size of a row is that of the numpy array that it is."""
    spec = LayerSpec(
        name="x", tap="x", type="T", shape=tuple(shape), dtype=dtype, pool="avg"
    )

    assert spec.row_bytes == np.zeros(shape, dtype).nbytes


def test_a_pass_sums_up_its_layers(one):
    """Pooling is one for all, bytes add up, and the private name is short."""
    assert set(one.pools.values()) == {"avg"}
    assert one.row_bytes == 4 * (8 + 24)
    assert one.key == one.identity[:16]


def test_layers_and_networks_come_in_the_order_asked(both, one):
    """A store lists what it holds by pass; a network that came twice is one."""
    third = dataclasses.replace(one, identity="f" * 64)
    schema = dataclasses.replace(both, passes=(*both.passes, third))

    assert [spec.name for spec in both.layers] == [
        *("stage1.relu", "conv", "resnet18/layer4"),
    ]
    assert schema.networks == ("tiny", "resnet18")


def test_passes_are_found_by_layer_and_by_identity(both, one, other):
    """Whoever has a layer or a record finds the pass it is from."""
    assert both.pass_of("resnet18/layer4") is other
    assert both.pass_of("conv") is one
    assert both.by_identity(other.identity) is other


def test_each_pass_has_its_own_grid(both, one, other):
    """Blocks of one pass are not those of another."""
    assert [len(both.grid(each)) for each in (one, other)] == [3, 5]
    assert both.grid(one).rows(2) == slice(64, 70)


def test_the_schema_survives_json(both):
    """Attributes are text and nothing is lost in them."""
    again = StoreSchema.from_json(json.loads(json.dumps(both.to_json())))

    assert again == both
    assert both.to_json()["format"] == FORMAT


@pytest.mark.parametrize("found", [None, 1, 99, "2"])
def test_another_format_is_refused(both, found):
    """A store of the future or the past is named as such."""
    with pytest.raises(CorruptStore, match=rf"has format {found!r} and .* reads forma"):
        StoreSchema.from_json(both.to_json() | {"format": found})


@pytest.mark.parametrize("key", ["n_images", "passes"])
def test_missing_metadata_are_named(both, key):
    """The message says what is not there."""
    found = both.to_json()
    del found[key]

    with pytest.raises(CorruptStore, match=f"metadata lack '{key}': it was edited"):
        StoreSchema.from_json(found)


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found["passes"][0].pop("identity"),
        lambda found: found["passes"][0].update(odd=1),
        lambda found: found["passes"][0]["layers"][0].pop("shape"),
        lambda found: found["passes"][0]["layers"][0].update(odd=1),
        lambda found: found.update(n_images="many"),
        lambda found: found.update(passes=None),
    ],
    ids=["lacks", "odd", "layer_lacks", "layer_odd", "text", "none"],
)
def test_metadata_that_were_edited_are_corruption(both, change):
    """Keys that are gone or that nobody knows do not end in a traceback."""
    found = json.loads(json.dumps(both.to_json()))
    change(found)

    with pytest.raises(CorruptStore, match="it was edited or cut short"):
        StoreSchema.from_json(found)
