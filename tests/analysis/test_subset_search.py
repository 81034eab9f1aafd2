"""Exact neighbors among rows in memory, against brute force in float64."""

import numpy as np
import pytest

from embedkit.analysis import subset_search
from embedkit.analysis.ivf_space import Space
from embedkit.analysis.pair_distances import lift, pair_distances
from embedkit.analysis.subset_search import ranked, search_subset

METRICS = ("euclidean", "cosine", "inner_product")


def _space(rows, metric):
    finite = rows[np.isfinite(rows).all(axis=1)].astype(float)
    blank = Space(metric=metric, scale=1.0, center=np.zeros(rows.shape[1]), reach=0.0)
    center = blank.raw(finite).mean(axis=0)
    reach = np.linalg.norm(finite - center, axis=1).max()
    reach = float(reach) if metric == "inner_product" else 0.0
    return Space(metric=metric, scale=1.0, center=center, reach=reach)


def _brute(queries, rows, places, k, metric):
    near = np.full((len(queries), k), np.nan)
    ids = np.full((len(queries), k), -1)
    usable = np.flatnonzero(np.isfinite(rows).all(axis=1))
    for row, query in enumerate(queries):
        if not np.isfinite(query).all():
            continue
        others = usable[usable != places[row]]
        asked = lift(np.repeat(query[None], len(others), axis=0), metric)
        found = pair_distances(asked, lift(rows[others], metric), metric)
        order = np.lexsort((others, found))[:k]
        near[row, : len(order)], ids[row, : len(order)] = found[order], others[order]
    return near, ids


def _sets():
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(300, 8))
    copies = plain[rng.integers(0, 9, 300)]
    close = 250 + plain[rng.integers(0, 30, 300)] + 1e-7 * rng.normal(size=(300, 8))
    closer = 250 + plain[rng.integers(0, 3, 300)] + 1e-7 * rng.normal(size=(300, 8))
    closer[100:110] = closer[3]
    holes = plain.copy()
    holes[[3, 50]], holes[7], holes[[9, 10, 11]] = np.nan, np.inf, 0
    return {
        "plain": plain,
        "copies": copies,
        "close": close,
        "closer": closer,
        "holes": holes,
    }


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", ["plain", "copies", "close", "closer", "holes"])
def test_equals_brute_force(name, metric):
    """Ids and distances are those of float64, ties by row number, for any data."""
    rows = _sets()[name]
    places = np.arange(len(rows))

    near, ids = search_subset(
        rows, rows, query_places=places, k=9, space=_space(rows, metric)
    )

    wanted = _brute(rows, rows, places, 9, metric)
    np.testing.assert_array_equal(ids, wanted[1])
    np.testing.assert_array_equal(near, wanted[0])


@pytest.mark.parametrize("metric", METRICS)
def test_queries_that_are_not_among_the_rows(metric):
    """Nothing is left out, a zero query and one that is not finite have their answer."""
    rng = np.random.default_rng(1)
    rows, queries = rng.normal(size=(50, 4)), rng.normal(size=(6, 4))
    queries[2], queries[4, 1] = 0, np.nan
    places = np.full(6, -1)

    near, ids = search_subset(
        queries, rows, query_places=places, k=5, space=_space(rows, metric)
    )

    wanted = _brute(queries, rows, places, 5, metric)
    np.testing.assert_array_equal(ids, wanted[1])
    np.testing.assert_array_equal(near, wanted[0])


def test_fewer_rows_than_neighbors():
    """Missing neighbors are -1 and NaN."""
    rows = np.array([[0.0], [1.0], [np.nan]])

    near, ids = search_subset(
        rows, rows, query_places=np.arange(3), k=2, space=_space(rows, "euclidean")
    )

    assert ids.tolist() == [[1, -1], [0, -1], [-1, -1]]
    np.testing.assert_array_equal(near, [[1, np.nan], [1, np.nan], [np.nan, np.nan]])


def test_no_rows_at_all():
    """Without a usable row there is no neighbor."""
    rows = np.full((2, 3), np.nan)
    space = Space(metric="cosine", scale=1.0, center=np.zeros(3), reach=0.0)

    near, ids = search_subset(
        np.ones((1, 3)), rows, query_places=np.array([-1]), k=2, space=space
    )

    assert (ids == -1).all()
    assert np.isnan(near).all()


def test_a_crowd_that_is_all_zero():
    """Under cosine zero rows are at distance 1 of all, the first numbers win."""
    rows = np.zeros((40, 3))
    rows[30] = 1
    space = Space(metric="cosine", scale=1.0, center=np.zeros(3), reach=0.0)

    near, ids = search_subset(rows, rows, query_places=np.arange(40), k=2, space=space)

    assert ids[30].tolist() == [0, 1]
    assert ids[0].tolist() == [1, 2]
    assert (near == 1).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("features", [1, 9, 700])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_distance_depends_on_its_pair_alone(monkeypatch, metric, features, threads):
    """Measured in blocks it has the bytes that it has on its own; -1 stays nothing."""
    monkeypatch.setattr(subset_search, "_PAIRS", 7 * features * 3)
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(60, features)).astype(np.float32)
    rows[7], rows[8, 0], rows[59] = 0, 0, np.nan
    queries = np.concatenate([rows[5:9], rng.normal(size=(20, features))])
    candidates = rng.permuted(np.tile(np.arange(59), (24, 1)), axis=1)[:, :7]
    candidates[rng.random(candidates.shape) < 0.2] = -1
    candidates[9:15] = -1
    queries[9] = np.nan  # nothing to measure, in a block with others

    near, ids = ranked(
        queries, lambda at: rows[at], candidates, k=7, metric=metric, threads=threads
    )

    for row, query in enumerate(queries):
        some = np.sort(candidates[row][candidates[row] >= 0])
        alone = [
            pair_distances(lift(query[None], metric), lift(rows[[at]], metric), metric)
            for at in some
        ]
        found = np.concatenate([np.empty(0), *alone])
        order = np.argsort(found, kind="stable")
        assert ids[row, : len(some)].tolist() == some[order].tolist()
        assert near[row, : len(some)].tobytes() == found[order].tobytes()
        assert (ids[row, len(some) :] == -1).all()
        assert np.isnan(near[row, len(some) :]).all()
