"""Layers stored in half the bytes: rounded to nearest, never out of range."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import embedkit as ek
from embedkit.errors import IdentityMismatch, IncompleteStore, InputError, NetworkError
from embedkit.extraction.rounding import check_dtype, rounded, rounding
from embedkit.networks.load import load_network

IDS = ["a", "b", "c"]


@given(
    hnp.arrays(
        np.float32,
        (3, 4),
        elements=st.floats(-65504, 65504, width=32)
        | st.sampled_from([np.nan, np.inf, -np.inf]),
    )
)
def test_numbers_in_range_round_to_the_nearest(values):
    """NumPy's own conversion is the oracle; the error is the largest there is."""
    stored, error = rounded(values, "float16", layer="fc", ids=IDS)

    np.testing.assert_array_equal(stored, values.astype(np.float16))
    finite = np.isfinite(values)
    gaps = np.abs(values[finite].astype(np.float64) - stored[finite])
    assert error == pytest.approx(gaps.max(initial=0.0), rel=1e-6)
    scale = np.abs(values[finite]).max(initial=0.0)
    assert error <= rounding("float16") / 2 * scale + 2.0**-25  # half a subnormal step


def test_single_precision_stays_what_it_is():
    """Nothing is copied, nothing is lost."""
    values = np.ones((3, 2), np.float32)

    stored, error = rounded(values, "float32", layer="fc", ids=IDS)

    assert stored is values
    assert (error, rounding("float32")) == (0.0, 0.0)


def test_what_half_precision_cannot_hold_is_refused():
    """The layer, the image, the value and the remedy are named."""
    values = np.array([[1.0], [np.nan], [-70_000.0]], np.float32)

    with pytest.raises(
        NetworkError, match=r"fc is 7e\+04 for image 'c'.*65,504.*float32"
    ):
        rounded(values, "float16", layer="fc", ids=IDS)


def test_other_types_are_refused():
    """The nearest type is named."""
    with pytest.raises(InputError, match=r"'float61'.*float16"):
        check_dtype("float61")


def test_a_store_in_half_precision(images, network, tmp_path):
    """Rows are those of a float32 store, rounded; bad images are NaN; verify agrees."""
    whole = ek.extract(images, network, tmp_path / "a.zarr", layers="all")

    half = ek.extract(
        images, network, tmp_path / "b.zarr", layers="all", dtype="float16"
    )

    for layer in whole:
        expected = whole[layer].values
        assert half[layer].dtype == np.float16
        np.testing.assert_array_equal(half[layer], expected.astype(np.float16))
        gaps = np.abs(expected - half[layer].values.astype(np.float32))
        assert half.info()["layers"][layer]["rounding"] == np.nanmax(gaps) > 0
        assert "rounding" not in whole.info()["layers"][layer]
    assert np.isnan(half["fc"].values).any()
    assert half.info()["nbytes"] * 2 == whole.info()["nbytes"]
    assert ek.verify(half, network=network, images=images, sample=10).ok


def test_a_store_keeps_the_type_of_its_layers(images, network, tmp_path):
    """Other layers may have another one; the same layer may not."""
    path = tmp_path / "s.zarr"
    ek.extract(images, network, path, layers=["fc"], dtype="float16")

    store = ek.extract(images, network, path, layers=["conv1"])

    assert store["conv1"].dtype == np.float32
    with pytest.raises(IdentityMismatch, match="dtype stored float16, asked float32"):
        ek.extract(images, network, path, layers=["fc"])


def test_an_overflow_ends_the_run_with_its_reason(images, network, tmp_path):
    """Nothing infinite is written in place of a number."""
    module = network.module
    loud = load_network(module, transform=Loud(network.transform))

    with pytest.raises((NetworkError, IncompleteStore), match="float16 ends at 65,504"):
        ek.extract(images, loud, tmp_path / "s.zarr", dtype="float16")


class Loud:
    """The transform, a million times brighter."""

    def __init__(self, transform):
        self.transform = transform

    def __call__(self, image):
        return self.transform(image) * 1e6

    def __repr__(self):
        return "Loud"
