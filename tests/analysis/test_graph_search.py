"""Neighbors by a grown graph: what they promise, against exact ones."""

import dask
import numpy as np
import pytest

import embedkit as ek
from embedkit.analysis import pynndescent_adapter
from embedkit.analysis.ivf_survey import survey
from embedkit.analysis.near import cheapest, graph_search
from embedkit.analysis.near.begin import begin
from embedkit.analysis.near.cheapest import approximate
from embedkit.analysis.near.found import Aim
from embedkit.analysis.near.graph_points import points_of
from embedkit.analysis.near.look import tiles_ahead
from embedkit.analysis.spool import spool
from embedkit.errors import RecallNotReached
from embedkit.planning.near import NearPlan

pytestmark = pytest.mark.slow  # the first of them compiles for half a minute
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
    return approximate(x, **{"way": "graph", **options})


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
    assert found.attrs["graph_width"] == 12
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

    assert found.attrs["graph_width"] == widths[-1] > widths[0] == 8


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


def _share_ahead(as_images, rows, folder):
    database = spool(as_images(rows.astype(np.float32)), folder)
    aim = Aim(k=7, metric="euclidean", recall=0.95, seed=0)
    begun = begin(database, aim, folder=folder)
    tiles = tiles_ahead(database, begun, aim)
    assert sum(queries for queries, _ in tiles) == pytest.approx(len(rows), rel=0.05)
    return np.average([read for _, read in tiles]) / len(rows)


def test_a_look_tells_groups_from_noise(as_images, tmp_path):
    """Lists of rows in groups read few of them, those of noise nearly all."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(6000, 40))
    groups = 8 * rng.normal(size=(60, 40))[rng.integers(0, 60, 6000)]

    assert _share_ahead(as_images, noise + groups, tmp_path) < 0.4
    assert _share_ahead(as_images, noise, tmp_path) > 0.8


def test_a_look_at_nothing(as_images, tmp_path):
    """Rows that cannot be read need no lists."""
    database = spool(as_images(np.full((9, 3), np.nan, np.float32)), tmp_path)
    aim = Aim(k=2, metric="cosine", recall=0.95, seed=0)

    begun = begin(database, aim, folder=tmp_path)

    assert tiles_ahead(database, begun, aim) == []


@pytest.mark.parametrize(("kind", "key"), [("groups", "nprobe"), ("noise", "graph")])
def test_the_look_decides(as_images, monkeypatch, kind, key):
    """Lists are not even made where the look says that a graph takes less."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3000, 10))
    if kind == "groups":
        rows += 30 * rng.normal(size=(60, 10))[rng.integers(0, 60, 3000)]
    plan = NearPlan(
        n_images=3000, n_queries=0, features=10, n_neighbors=7, recall=0.9, graph=True,
        cores=1, threads=1, projected_mem=1, scratch_bytes=1, exact_seconds=1e9,
    )  # fmt: skip
    monkeypatch.setattr("embedkit.planning.near._COMPILE", 0.0)
    monkeypatch.setattr("embedkit.planning.near._GROW", 4.5e-9)
    made = []
    tune = cheapest.tune_lists
    monkeypatch.setattr(
        cheapest, "tune_lists", lambda *a, **k: made.append(1) or tune(*a, **k)
    )

    found = _find(as_images(rows.astype(np.float32)), way=plan)

    assert [name for name in found.attrs if name.startswith(key)]
    assert bool(made) == (kind == "groups")
    assert found.attrs["recall_low"] >= 0.9


def test_without_the_parts_the_class_does_it(monkeypatch):
    """Of a library whose parts have other names, at its own public call."""
    asked = {}

    class Stub:
        neighbor_graph = np.array([[0, 1], [1, 0], [0, 2]]), np.ones((3, 2))

        def __init__(self, points, **options):
            asked.update(options)

    monkeypatch.setattr(pynndescent_adapter, "_HAS_PIECES", False)
    monkeypatch.setattr(pynndescent_adapter, "NNDescent", Stub)
    ids, _ = pynndescent_adapter.descend(
        np.eye(3, dtype=np.float32), width=1, seed=5, threads=1
    )

    assert ids.tolist() == [[1], [0], [0]]
    assert (asked["n_neighbors"], asked["random_state"]) == (2, 5)
