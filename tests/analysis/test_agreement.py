"""Agreement measures against sklearn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KNeighborsClassifier

import embedkit as ek
from embedkit.analysis.agreement import adjusted_rand, neighbor_accuracy
from embedkit.analysis.neighbors import neighbors
from embedkit.errors import InputError


def lists(*rows: list[int]) -> xr.Dataset:
    """Neighbors given by hand."""
    return xr.Dataset({"indices": (("image", "neighbor"), np.array(rows))})


def test_equals_leave_one_out_of_sklearn(as_images) -> None:
    """With one odd vote per image there are no ties, and sklearn agrees."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b"], 60)
    rows = rng.normal(size=(120, 4)) + 1.5 * (labels == "b")[:, None]
    hits = 0
    for row in range(120):
        rest = np.delete(np.arange(120), row)
        model = KNeighborsClassifier(5).fit(rows[rest], labels[rest])
        hits += model.predict(rows[[row]])[0] == labels[row]
    found = neighbor_accuracy(neighbors(as_images(rows), n_neighbors=5), labels)
    assert found == pytest.approx(hits / 120)
    assert 0.5 < found < 1


def test_ties_go_to_the_nearer() -> None:
    """Two against two: the label of the nearest of them wins."""
    nn = lists([1, 2, 3, 4], [0, 2, 3, 4], [-1] * 4, [-1] * 4, [-1] * 4)
    assert neighbor_accuracy(nn, ["x", "x", "y", "x", "y"]) == 1.0
    assert neighbor_accuracy(nn, ["x", "y", "x", "x", "y"]) == 0.0


def test_missing_labels_neither_vote_nor_count() -> None:
    """None, NaN and empty strings are no labels; nor are missing neighbors."""
    nn = lists([1, 2, 3], [0, 2, 3], [0, 1, 3], [0, -1, -1])
    assert neighbor_accuracy(nn, np.array(["a", "a", None, ""], object)) == 1.0
    assert neighbor_accuracy(nn, xr.DataArray([1.0, 2.0, np.nan, np.nan])) == 0.0
    assert np.isnan(neighbor_accuracy(nn, [None] * 4))


def test_one_label_per_image() -> None:
    """Another length is refused."""
    with pytest.raises(
        InputError, match=r"neighbor_accuracy got labels of shape \(2,\) for 1"
    ):
        neighbor_accuracy(lists([-1]), ["a", "b"])


labels = st.integers(-1, 3)


@settings(max_examples=100, deadline=None)
@given(pairs=st.lists(st.tuples(labels, labels), min_size=1, max_size=40))
def test_adjusted_rand_equals_sklearn(pairs) -> None:
    """Both numbers, for any labels with noise."""
    a, b = np.array(pairs).T
    clear = (a >= 0) & (b >= 0)
    with_noise, without_noise = adjusted_rand(a, b)
    assert with_noise == pytest.approx(adjusted_rand_score(a, b), abs=1e-12)
    expected = adjusted_rand_score(a[clear], b[clear]) if clear.any() else np.nan
    assert without_noise == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_adjusted_rand_takes_strings_and_leaves_out_missing() -> None:
    """Names against numbers; images without a label do not count."""
    names = np.array(["a", "a", "b", "b", "", None], object)
    text = np.array(["a", "a", "b", "b", "", ""], np.dtypes.StringDType())
    assert adjusted_rand(text, [0, 0, 1, 1, 0, 1]) == (1.0, 1.0)
    assert adjusted_rand(names, [0, 0, 1, 1, 0, 1]) == (1.0, 1.0)
    assert adjusted_rand(names, [0, 0, 1, -1, 0, 1])[1] == 1.0
    assert adjusted_rand(names, [0, 0, 1, -1, 0, 1])[0] < 1


def test_adjusted_rand_needs_equal_lengths() -> None:
    """Both shapes are named."""
    with pytest.raises(InputError, match=r"shapes \(2,\) and \(3,\)"):
        adjusted_rand([1, 2], [1, 2, 3])


def test_two_orders_of_images_are_refused() -> None:
    """Labels with ids are compared image by image, never row by row by accident."""
    ids = [f"{i}.jpg" for i in range(6)]
    labels = xr.DataArray(list("aabbcc"), dims="image", coords={"image": ids})
    nn = xr.Dataset(
        {"indices": (("image", "neighbor"), np.array([[1], [0], [3], [2], [5], [4]]))},
        coords={"image": ids},
    )

    assert adjusted_rand(labels, labels) == (1.0, 1.0)
    assert neighbor_accuracy(nn, labels) == 1.0
    with pytest.raises(InputError, match=r"row 0 is '0\.jpg' in one and '5\.jpg'"):
        adjusted_rand(labels, labels[::-1])
    with pytest.raises(InputError, match="neighbor_accuracy got two orders of images"):
        neighbor_accuracy(nn, labels[::-1])


def test_all_noise_agrees_with_nothing() -> None:
    """Where no image is left to compare, there is no score, least of all a perfect one."""
    with_noise, without_noise = adjusted_rand([-1] * 4, [0, 0, 1, 1])

    assert with_noise == 0.0
    assert np.isnan(without_noise)


def test_what_is_no_result_of_ours_is_named() -> None:
    """An array where a Dataset belongs, and neighbors where a graph belongs."""
    layer = xr.DataArray(np.zeros((4, 2)), dims=("image", "feature"))
    nn = ek.neighbors(layer, n_neighbors=1)

    with pytest.raises(
        InputError, match=r"needs a Dataset and got a DataArray; .*graph"
    ):
        ek.project(layer)
    with pytest.raises(
        InputError, match=r"'weight' .* pass what neighbor_graph returned"
    ):
        ek.communities(nn)
    with pytest.raises(InputError, match="needs a DataArray and got a ndarray"):
        ek.neighbors(np.zeros((4, 2)))
