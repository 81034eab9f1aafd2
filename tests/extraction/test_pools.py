"""Layers pooled each in its own way, in one pass."""

import numpy as np
import pytest

import embedkit as ek
from embedkit.errors import IdentityMismatch, InputError

POOLS = {"conv1": "none", "fc": "flatten", "*": "random_projection(3, seed=1)"}


def test_every_layer_has_the_pool_of_the_first_name_that_fits(
    images, network, tmp_path
):
    """Each equals a store where all layers are pooled that way."""
    store = ek.extract(images, network, tmp_path / "s.zarr", layers="all", pool=POOLS)

    pools = store.layers["pool"].to_dict()
    assert pools.pop("conv1") == store["conv1"].attrs["pool"] == "none"
    assert pools.pop("fc") == "flatten"
    assert set(pools.values()) == {"random_projection(3, seed=1)"}
    for pool, layers in (("none", ["conv1"]), (POOLS["*"], list(pools))):
        alone = ek.extract(
            images, network, tmp_path / f"{pool}.zarr", layers=layers, pool=pool
        )
        for layer in layers:
            np.testing.assert_array_equal(store[layer].values, alone[layer].values)
    assert store["conv1"].dims == ("image", "channel", "y", "x")
    assert store["conv2"].shape == (40, 3)
    assert ek.verify(store, network=network, images=images, sample=5).ok


def test_another_spelling_is_the_same_pool(images, network, tmp_path):
    """The store is found finished."""
    path = tmp_path / "s.zarr"
    first = ek.extract(
        images, network, path, layers="last", pool="random_projection(2)"
    )

    again = ek.extract(
        images, network, path, layers="last", pool="random_projection( 2, seed=0 )"
    )

    assert again.blocks == first.blocks
    with pytest.raises(IdentityMismatch, match=r"asked random_projection\(2, seed=1\)"):
        ek.extract(
            images, network, path, layers="last", pool="random_projection(2, seed=1)"
        )


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        ("averge", r"no pool 'averge'.*'avg'"),
        ("cls", r"conv1.*"),
        ({"conv1": "avg"}, r"'relu'"),
    ],
)
def test_pools_that_do_not_fit_are_refused_before_anything_is_written(
    pool, said, images, network, tmp_path
):
    """Unknown ones, those of another kind of layer, and layers without one."""
    with pytest.raises(InputError, match=said):
        ek.extract(images, network, tmp_path / "s.zarr", layers="all", pool=pool)

    assert not (tmp_path / "s.zarr").exists()


def test_layers_are_chosen_by_a_function(images, network, tmp_path):
    """It sees the rows of the network's table."""
    store = ek.extract(
        images, network, tmp_path / "s.zarr", layers=lambda row: row.type == "Conv2d"
    )

    assert [*store] == ["conv1", "conv2"]
