"""Agreement measures against sklearn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KNeighborsClassifier

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
    assert without_noise == pytest.approx(
        adjusted_rand_score(a[clear], b[clear]), abs=1e-12
    )


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
