"""Groups and their colours."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import is_color_like, to_rgb

from embedkit.view.palette import NOISE, OKABE_ITO, OTHER, colors, group


@pytest.mark.parametrize("n", range(21))
def test_colours_are_distinct(n: int) -> None:
    """For any number up to 20, and none is the grey of noise or others."""
    found = colors(n)
    assert len(set(found)) == n
    assert all(is_color_like(each) for each in found)
    assert not {NOISE, OTHER} & set(found)


def test_few_colours_differ_in_lightness_too() -> None:
    """The first four stay apart in grey print."""
    light = sorted(
        np.dot(to_rgb(each), (0.2126, 0.7152, 0.0722)) for each in OKABE_ITO[:3]
    )
    assert min(np.diff(light)) > 0.02


def test_largest_first_ties_by_first_row() -> None:
    """Sizes decide, then who comes first."""
    groups = group(np.array(["b", "a", "c", "c", "a", "b", "d", "d", "d"]))
    assert [each.name for each in groups] == ["d", "b", "a", "c"]
    assert [each.rows.tolist() for each in groups] == [
        [6, 7, 8],
        [0, 5],
        [1, 4],
        [2, 3],
    ]


def test_twenty_fit_and_more_share() -> None:
    """20 categories have a colour each; of 21, the last two are 'other'."""
    assert [each.name for each in group(np.arange(20))] == [str(n) for n in range(20)]
    groups = group(np.append(np.arange(21), np.arange(19)))
    assert len(groups) == 20
    assert (groups[-1].name, groups[-1].color, groups[-1].rows.tolist()) == (
        "other",
        OTHER,
        [19, 20],
    )


@pytest.mark.parametrize("noise", [-1, "-1"], ids=["number", "text"])
def test_noise_and_missing_come_last(noise) -> None:
    """Behind all others, in light grey."""
    groups = group(np.array(["x", noise, None, "", "x"], object))
    assert [(each.name, each.rows.tolist(), each.behind) for each in groups] == [
        ("x", [0, 4], False),
        ("noise", [1], True),
        ("unlabelled", [2, 3], True),
    ]
    assert {each.color for each in groups[1:]} == {NOISE}


def test_nothing_but_noise() -> None:
    """No category, no failure."""
    assert [each.name for each in group(np.full(3, -1))] == ["noise"]


def test_text_as_stored_groups_like_any_other_text() -> None:
    """Labels read from Zarr are numpy's variable-length strings; "" is unlabelled."""
    stored = np.array(["cat", "dog", "cat", ""], dtype=np.dtypes.StringDType())
    assert [(each.name, len(each.rows)) for each in group(stored)] == [
        ("cat", 2),
        ("dog", 1),
        ("unlabelled", 1),
    ]
