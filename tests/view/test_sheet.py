"""Contact sheets: what stands where, and what cannot be drawn."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from embedkit.errors import InputError, SourceError
from embedkit.view.picture import save_neighbors
from embedkit.view.sheet import neighbors


class Photos:
    """Pictures by id; one cannot be read."""

    def read(self, name):
        if name == "bad":
            raise SourceError("no picture")
        return np.full((40, 1000, 3), 90, np.uint8)


@pytest.fixture
def hits():
    """Two hits of one query and three of another."""
    return pd.DataFrame(
        {
            "query": ["a", "a", "b", "b", "b"],
            "id": ["1", "bad", "2", "3", "4"],
            "distance": [0.0, 0.125, 7.0, 30.0, 120.0],
            "label": ["cat", "a label that is far too long for a tile", "", "x", "y"],
        },
        index=pd.Index([1, 2, 1, 2, 3], name="rank"),
    )


def _texts(figure):
    return [each.get_text() for each in figure.texts]


def test_each_hit_has_its_rank_distance_and_label(hits):
    """Captions are those of the table; distances of a query have equally many decimals."""
    said = _texts(neighbors(hits, images=Photos(), title="found"))

    assert said[0] == "found"
    assert [said.count(each) for each in ("1", "2", "3")] == [2, 2, 1]
    assert {"0.000", "0.125", "7", "30", "120"} <= set(said)
    assert "a label that is far…" in said


def test_pictures_that_cannot_be_read_are_grey_tiles(hits):
    """The sheet is drawn all the same: axes for the others, words for this one."""
    figure = neighbors(hits, images=Photos())
    without = neighbors(hits)

    assert len(figure.axes) == 4
    assert _texts(figure).count("no picture") == 1
    assert len(without.axes) == 0
    assert _texts(without).count("no picture") == 5


def test_wide_pictures_keep_their_shape_and_stay_in_their_tiles(hits):
    """A tile is a square; the picture fits into it at its own ratio."""
    figure = neighbors(hits, images=Photos())
    width, height = figure.get_size_inches()

    for ax in figure.axes:
        box = ax.get_position()
        shown = ax.images[0].get_array()
        assert box.width * width / (box.height * height) == pytest.approx(25)
        assert 0 < box.x0 < box.x1 < 1
        assert 0 < box.y0 < box.y1 < 1
        assert max(shown.shape[:2]) <= 960


def test_queries_stand_framed_before_their_hits(hits):
    """One more tile a query; nothing stands below it."""
    picture = np.zeros((10, 10, 3), np.uint8)

    figure = neighbors(hits, images=Photos(), queries=[picture, None], across=3)

    said = _texts(figure)
    assert said.count("query") == 2
    assert {"a", "b"} <= set(said)
    assert said.count("no picture") == 2
    lefts = sorted(round(ax.get_position().x0, 4) for ax in figure.axes)
    assert lefts.count(lefts[0]) == 1  # the first query alone stands at the left


def test_hits_are_read_from_where_they_lie(tmp_path):
    """Without images the column uri says where."""
    Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / "red.png")
    hits = pd.DataFrame(
        {"id": ["red"], "distance": [1.0], "uri": [str(tmp_path / "red.png")]},
        index=[1],
    )

    figure = neighbors(hits)

    assert figure.axes[0].images[0].get_array()[0, 0].tolist() == [200, 0, 0]


def test_the_sheet_is_kept_in_a_file(hits, tmp_path):
    """The picture is there; a folder that is not is told."""
    path = save_neighbors(hits, tmp_path / "sheet.png", images=Photos())

    with Image.open(path) as picture:
        assert picture.width > 400
    with pytest.raises(InputError, match="cannot write the picture"):
        save_neighbors(hits, tmp_path / "none" / "sheet.png", images=Photos())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"across": 1}, "across=1; choose 2 tiles or more"),
        ({"queries": [None]}, "1 images for 2 queries with hits"),
    ],
)
def test_what_does_not_fit_is_refused(hits, options, message):
    """Each message says what was given."""
    with pytest.raises(InputError, match=message):
        neighbors(hits, images=Photos(), **options)


def test_what_is_no_result_is_refused(hits):
    """Other tables, and results without hits."""
    with pytest.raises(InputError, match="needs a table with columns 'id'"):
        neighbors(hits.drop(columns="id"))
    with pytest.raises(InputError, match="a table without hits"):
        neighbors(hits.iloc[:0])
