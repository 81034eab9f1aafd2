"""The map as a picture: what is drawn, in which colour, and what is refused."""

from __future__ import annotations

import io
from typing import ClassVar

import dask.array as da
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_hex
from PIL import Image

import embedkit as ek
from embedkit.errors import InputError
from embedkit.view.palette import NOISE, OKABE_ITO
from embedkit.view.scatter import map as draw_map


def png(ax) -> np.ndarray:
    """Render as a colleague would see it: (H, W, 3)."""
    buffer = io.BytesIO()
    ax.figure.savefig(buffer, format="png", dpi=50)
    return np.asarray(Image.open(buffer).convert("RGB"))


def entries(ax) -> dict[str, str]:
    """Names and colours of the legend, in order."""
    legend = ax.get_legend()
    names = [text.get_text() for text in legend.get_texts()]
    return dict(
        zip(names, [to_hex(h.get_color()) for h in legend.legend_handles], strict=True)
    )


def points(ax) -> np.ndarray:
    """All drawn points: (n, 2)."""
    return np.concatenate([np.asarray(each.get_offsets()) for each in ax.collections])


def test_is_pl_map() -> None:
    """Reachable by its public name."""
    assert ek.pl.map is draw_map


def test_categories(xy) -> None:
    """Largest first, safe colours, each on its own points."""
    ax = draw_map(xy, color="label")
    assert entries(ax) == dict(zip(["d", "c", "b", "a"], OKABE_ITO, strict=False))
    assert ax.get_legend().get_title().get_text() == "label"
    front = ax.collections[-1]
    offsets, shades = np.asarray(front.get_offsets()), front.get_facecolors()
    inside = (offsets > 5).all(axis=1)
    assert {to_hex(shade) for shade in shades[inside]} == {OKABE_ITO[0]}


def test_the_picture(xy) -> None:
    """Axes off, equal scales, a title, points rasterized, and colour on the page."""
    ax = draw_map(xy, color="label", title="Two hundred images")
    assert not ax.axison
    assert ax.get_aspect() == 1
    assert ax.get_title(loc="left") == "Two hundred images"
    assert all(each.get_rasterized() for each in ax.collections)
    picture = png(ax)
    blue = np.array([0x00, 0x72, 0xB2])
    assert (np.abs(picture.astype(int) - blue).max(axis=2) < 60).sum() > 100
    assert (picture == 255).all(axis=2).mean() > 0.5


def test_the_legend_covers_no_point(xy) -> None:
    """It stands to the right of the map."""
    ax = draw_map(xy, color="label")
    ax.figure.draw_without_rendering()
    box = ax.get_legend().get_window_extent()
    drawn = ax.transData.transform(points(ax))
    assert drawn[:, 0].max() < box.x0
    assert box.x1 <= ax.figure.bbox.x1 + 1


def test_rows_without_a_place_are_skipped(xy) -> None:
    """198 of 200 are drawn, where they belong."""
    drawn = points(draw_map(xy))
    expected = xy.values[~np.isnan(xy.values).any(axis=1)]
    np.testing.assert_array_equal(np.sort(drawn, axis=0), np.sort(expected, axis=0))


def test_noise_lies_behind(xy) -> None:
    """-1 is grey, below all others, last in the legend."""
    cluster = xr.DataArray(
        np.where(np.arange(200) % 4 == 0, -1, 3), dims="image", name="cluster"
    )
    ax = draw_map(xy, color=cluster)
    assert list(entries(ax)) == ["3", "noise"]
    assert entries(ax)["noise"] == NOISE
    back, front = ax.collections
    assert back.get_zorder() < front.get_zorder()
    assert {to_hex(each) for each in back.get_facecolors()} == {NOISE}


def test_numbers_get_a_colour_bar(xy) -> None:
    """Floats are a scale, not categories; missing ones are grey."""
    score = np.linspace(0, 5, 200)
    score[50] = np.nan
    ax = draw_map(xy, color=xr.DataArray(score, dims="image", name="outlier_score"))
    assert ax.get_legend() is None
    bar = ax.figure.axes[1]
    assert bar.get_ylabel() == "outlier_score"
    assert ax.collections[-1].get_array().max() == 5
    assert len(ax.collections[0].get_offsets()) == 1


def test_numbers_that_are_all_missing(xy) -> None:
    """No scale, no failure."""
    ax = draw_map(xy, color=np.full(200, np.nan))
    assert len(ax.figure.axes) == 1


def test_no_color_is_one_colour(xy) -> None:
    """And no legend."""
    ax = draw_map(xy)
    assert ax.get_legend() is None
    assert len(ax.collections[0].get_facecolors()) == 1


def test_points_shrink_with_their_number(xy) -> None:
    """Smaller for more, never invisible."""
    many = xr.DataArray(
        np.random.default_rng(0).normal(size=(1_000_000, 2)), dims=("image", "axis")
    )
    few, crowd = draw_map(xy[20:24]), draw_map(many)
    assert few.collections[0].get_sizes()[0] == 40
    assert crowd.collections[0].get_sizes()[0] == 1.5


def test_thumbnails(xy, images) -> None:
    """Read by row number, framed in the colour of their category, inside the picture."""
    ax = draw_map(xy, color="label", images=images, max_thumbnails=12)
    assert 4 <= len(ax.images) <= 12
    assert len(images.read_rows) == len(ax.images) == len(ax.patches)
    colors = entries(ax)
    for row, frame, image in zip(images.read_rows, ax.patches, ax.images, strict=True):
        assert np.isfinite(xy.values[row]).all()
        assert to_hex(frame.get_edgecolor()) == colors[str(xy["label"].values[row])]
        left, right, bottom, top = image.get_extent()
        assert ax.get_xlim()[0] <= left < right <= ax.get_xlim()[1]
        assert ax.get_ylim()[0] <= bottom < top <= ax.get_ylim()[1]
        assert (np.asarray(image.get_array()) == row % 256).all()
    assert png(ax).std() > 0


@pytest.mark.parametrize("color", [None, "score"])
def test_thumbnails_without_categories(xy, images, color) -> None:
    """One frame colour for all."""
    scored = xy.assign_coords(score=("image", np.arange(200.0)))
    ax = draw_map(scored, color=color, images=images)
    assert len({to_hex(each.get_edgecolor()) for each in ax.patches}) == 1


def test_lazy_input_is_computed_once(xy) -> None:
    """Map and colour that share a graph are computed together."""
    calls: list[int] = []

    def count(block):
        calls.append(1)
        return block

    base = da.from_array(xy.values, chunks=-1).map_blocks(
        count, dtype=np.float32, meta=np.empty((0, 0), np.float32)
    )
    ax = draw_map(xy.copy(data=base), color=xr.DataArray(base[:, 0] > 5, dims="image"))
    assert calls == [1]
    assert list(entries(ax)) == ["True", "False"]


def test_drawn_into_given_axes(xy) -> None:
    """A figure of one's own is used; nothing is shown."""
    figure, (left, right) = plt.subplots(1, 2)
    assert draw_map(xy, ax=right) is right
    assert not left.collections
    assert plt.get_fignums() == [figure.number]


def test_equal_seeds_draw_in_equal_order(xy) -> None:
    """The order is shuffled, by the seed."""
    first, same, other = (points(draw_map(xy, seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


def test_a_single_image(xy) -> None:
    """No extent, and still a picture."""
    png(draw_map(xy[5:6], color="label"))


def test_unknown_column(xy) -> None:
    """The nearest is offered."""
    with pytest.raises(InputError, match=r"no column 'labl'\. Did you mean 'label'"):
        draw_map(xy, color="labl")


def test_color_of_another_length(xy) -> None:
    """Both numbers are named."""
    with pytest.raises(InputError, match=r"color of shape \(3,\) for 200 images"):
        draw_map(xy, color=[1, 2, 3])


def test_not_a_map(xy) -> None:
    """Three axes, or other dims, are refused."""
    with pytest.raises(InputError, match=r"needs dims \('image', 'axis'\).*'axis': 1"):
        draw_map(xy[:, :1])
    with pytest.raises(InputError, match="pass what project returned"):
        draw_map(xy.rename(axis="feature"))


def test_nothing_to_draw(xy) -> None:
    """A map of unreadable images only is refused."""
    with pytest.raises(InputError, match="200 images and none of them has a place"):
        draw_map(xy * np.nan)


def test_a_loaded_result_is_a_map_too():
    """What a store loads is a Dataset that holds the map."""
    xy = xr.DataArray(
        np.random.default_rng(0).normal(size=(9, 2)), dims=("image", "axis")
    )

    ax = draw_map(xy.to_dataset(name="map"))

    assert len(ax.collections) == 1
    with pytest.raises(InputError, match="needs a variable 'map' and got"):
        draw_map(xy.to_dataset(name="other"))


def test_thumbnails_are_found_by_id_whatever_the_order():
    """An image set in another order, or with more images, shows the right pictures."""

    class Images:
        table = None
        asked: ClassVar[list] = []

        def read(self, i):
            self.asked.append(i)
            return np.zeros((4, 4, 3), np.uint8)

    xy = xr.DataArray(
        np.random.default_rng(0).normal(size=(30, 2)),
        dims=("image", "axis"),
        coords={"image": [f"{i}.jpg" for i in range(30)]},
    )

    draw_map(xy, images=Images())

    assert len(Images.asked) > 3
    assert set(Images.asked) <= set(xy["image"].values.tolist())


def test_images_that_cannot_be_read_from_are_refused():
    """A path is not a set of images."""
    xy = xr.DataArray(np.zeros((3, 2)), dims=("image", "axis"))

    with pytest.raises(InputError, match="images='photos', from which nothing"):
        draw_map(xy, images="photos")
