"""Neighbors by a grown graph: what they promise, against exact ones."""

import dask
import numpy as np
import pytest

import embedkit as ek
from embedkit.analysis import graph_search
from embedkit.analysis.approximate import approximate
from embedkit.analysis.graph_points import points_of
from embedkit.analysis.ivf_survey import survey
from embedkit.analysis.spool import spool
from embedkit.errors import RecallNotReached

METRICS = ("euclidean", "cosine")


def _rows(n=2000, d=12):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 12, n)
    rows = 2 * rng.normal(size=(12, d))[labels] + rng.normal(size=(n, d))
    rows[20:50] = rows[19]
    rows[[5, 6]], rows[7], rows[8:20] = np.nan, np.inf, 0
    return rows.astype(np.float32)


def _find(x, **options):
    options = {"n_neighbors": 7, "metric": "euclidean", "recall": 0.9, **options}
    return approximate(x, way="graph", **options)


@pytest.mark.parametrize("metric", METRICS)
def test_contract(as_images, metric):
    """Recall, interval and order hold, also around copies, zeros and bad rows."""
    x = as_images(_rows())

    found = _find(x, metric=metric)

    exact = ek.neighbors(x, n_neighbors=7, metric=metric)
    ids, wanted = found["indices"].values, exact["indices"].values
    usable = wanted[:, 0] >= 0
    same = (wanted[:, :, None] == ids[:, None, :]).any(axis=2)
    assert 0.9 <= found.attrs["recall_low"] <= same[usable].mean()
    assert same[usable].mean() <= found.attrs["recall_high"] <= 1
    assert (ids[~usable] == -1).all()
    assert (ids != np.arange(len(x))[:, None]).all()
    assert not found["certified"].any()
    assert found.attrs["graph_width"] == 15
    right = (ids == wanted).all(axis=1)
    assert np.array_equal(
        found["distances"].values[right],
        exact["distances"].values[right],
        equal_nan=True,
    )
    assert (np.diff(found["distances"].values[usable], axis=1) >= 0).all()
    assert right[8:50].all()  # zeros and copies


def test_does_not_depend_on_chunks(as_images):
    """The same bytes from memory, other chunks and one thread."""
    rows = _rows()
    here = _find(as_images(rows, chunk=170))

    with dask.config.set(scheduler="synchronous"):
        assert _find(as_images(rows, chunk=999)).identical(here)
    assert _find(as_images(rows)).identical(here)


@pytest.mark.parametrize("value", [np.nan, 0.0, 3.0])
@pytest.mark.parametrize("metric", METRICS)
def test_nothing_to_tell_apart(as_images, metric, value):
    """Rows that are all unreadable, or all equal."""
    x = as_images(np.full((30, 4), value, np.float32))

    found = _find(x, metric=metric)

    exact = ek.neighbors(x, n_neighbors=7, metric=metric)
    assert (found["indices"] == exact["indices"]).all()
    assert np.array_equal(found["distances"], exact["distances"], equal_nan=True)


def test_few_rows_are_all_looked_at(as_images):
    """Where the graph would be as wide as there are rows."""
    x = as_images(_rows(40)[20:])

    found = _find(x, recall=0.99)

    exact = ek.neighbors(x, n_neighbors=7)
    assert (found["indices"] == exact["indices"]).all()
    assert found.attrs["recall_low"] == 1


def test_a_graph_grows_wider_until_it_is_enough(as_images, monkeypatch):
    """Noise without any structure, where neighbors of neighbors lead to few others."""
    rng = np.random.default_rng(0)
    x = as_images(rng.normal(size=(2500, 60)).astype(np.float32))
    widths = []
    grow = graph_search._grow

    def counted(job, width, *rest):
        widths.append(width)
        grow(job, width, *rest)

    monkeypatch.setattr(graph_search, "_grow", counted)
    with dask.config.set(scheduler="synchronous"):
        found = _find(x, n_neighbors=3, recall=0.995)

    assert found.attrs["graph_width"] == widths[-1] > widths[0] == 11


def test_a_recall_that_is_missed_is_told(as_images, monkeypatch):
    """The figures of the check are in the message."""
    monkeypatch.setattr(graph_search, "graph_widths", lambda _: (2,))
    rng = np.random.default_rng(0)
    x = as_images(rng.normal(size=(2500, 60)).astype(np.float32))

    with pytest.raises(
        RecallNotReached, match=r"recall=0.99 and reached 0\.\d+ \[.*graph of 2"
    ):
        _find(x, recall=0.99)


def test_points_know_their_rows(as_images, tmp_path):
    """Each point once; its first rows in order, no more than anybody needs."""
    rows = np.array([[1, 2], [3, 4], [1, 2], [0, 0], [1, 2], [-0.0, 0], [1, 2]])
    database = spool(as_images(rows.astype(np.float32)), tmp_path)
    _, _, space = survey(database, metric="euclidean")

    found = points_of(database, np.arange(7), space=space, k=2)

    assert found.of_row.tolist() == [0, 1, 0, 2, 0, 2, 0]
    assert found.members.tolist() == [[0, 2, 4], [1, -1, -1], [3, 5, -1]]
    assert len(found.values) == 3
    assert np.allclose(space.points(rows)[[0, 1, 3]], found.values)
