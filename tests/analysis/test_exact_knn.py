"""The exact search against float64 brute force, on friendly and hostile rows."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import pairwise_distances

from embedkit.analysis import exact_knn
from embedkit.analysis.exact_knn import search

METRICS = ("euclidean", "cosine", "inner_product")


def oracle(rows: np.ndarray, metric: str) -> np.ndarray:
    """All distances in float64 by sklearn or by definition, itself at infinity."""
    rows = rows.astype(np.float64)
    full = -rows @ rows.T if metric == "inner_product" else None
    if metric == "euclidean":  # sklearn's own expansion loses near-duplicates
        full = np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(axis=2))
    if full is None:
        full = pairwise_distances(rows, metric=metric)
    np.fill_diagonal(full, np.inf)
    return full


def everything(rows: np.ndarray, k: int, metric: Any) -> tuple[np.ndarray, np.ndarray]:
    return search(rows, rows, query_ids=np.arange(len(rows)), k=k, metric=metric)


@pytest.fixture
def near_copies() -> np.ndarray:
    """300 groups of 10 near copies, d=2048, mean norm about 250."""
    rng = np.random.default_rng(0)
    center = rng.normal(size=2048)
    center *= 250 / np.linalg.norm(center)
    groups = np.repeat(rng.normal(size=(300, 2048)) * 0.5, 10, axis=0)
    noise = rng.normal(size=groups.shape) * 1e-3
    return (groups + center + noise).astype(np.float32)


@pytest.fixture
def redone(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many candidates each ranking saw: a ranking of one query is a second try."""
    seen: list[int] = []
    rank = exact_knn._rank

    def spy(queries, database, candidates, *args):
        seen.append(len(queries))
        return rank(queries, database, candidates, *args)

    monkeypatch.setattr(exact_knn, "_rank", spy)
    return seen


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_agrees_with_brute_force(metric: str, dtype: type) -> None:
    """Distances equal the oracle's, and each neighbor lies at its distance."""
    rows = np.random.default_rng(1).normal(size=(200, 12)).astype(dtype)
    full = oracle(rows, metric)
    distances, ids = everything(rows, 9, metric)
    np.testing.assert_allclose(
        distances, np.sort(full, axis=1)[:, :9], rtol=1e-9, atol=1e-12
    )
    np.testing.assert_array_equal(ids, np.argsort(full, axis=1, kind="stable")[:, :9])


def test_near_copies_are_found_where_plain_faiss_misses_them(
    near_copies: np.ndarray,
) -> None:
    """Float32 expansion misses near copies; the certified search misses none."""
    some = near_copies[:400].astype(np.float64)
    gaps = (
        some[:, None, :64] - some[None, :, :64]
    )  # a first part decides which are copies
    group = np.arange(400) // 10
    assert ((gaps**2).sum(axis=2)[group[:, None] != group] > 1).all()
    k = 9

    _, plain = faiss.knn(near_copies, near_copies, k + 1)
    _, ids = search(
        near_copies[:400],
        near_copies,
        query_ids=np.arange(400),
        k=k,
        metric="euclidean",
    )

    own_group = (ids // 10 == group[:, None]).all(axis=1)
    assert own_group.all()
    assert (
        plain[:, 0] != np.arange(len(plain))
    ).mean() > 0.1  # a row is not its own nearest
    direct = np.array(
        [
            np.argsort(((some[g * 10 : g * 10 + 10] - some[g * 10]) ** 2).sum(1))
            for g in range(40)
        ]
    )
    np.testing.assert_array_equal(
        ids[::10] - 10 * np.arange(40)[:, None], direct[:, 1:]
    )


def test_plain_faiss_orders_near_copies_wrongly(near_copies: np.ndarray) -> None:
    """Cut within a group, plain float32 returns other rows than float64 does."""
    exact = [
        set(
            start
            + 1
            + np.argsort(((group[1:] - group[0]) ** 2).sum(1), kind="stable")[:4]
        )
        for start in range(0, 1000, 10)
        for group in [near_copies[start : start + 10].astype(np.float64)]
    ]
    queries = near_copies[:1000:10]
    _, plain = faiss.knn(queries, near_copies, 5)
    missed = sum(
        not want <= set(got) for want, got in zip(exact, plain.tolist(), strict=True)
    )
    _, ids = search(
        queries, near_copies, query_ids=np.arange(0, 1000, 10), k=4, metric="euclidean"
    )
    assert missed > 5
    assert [set(each) for each in ids.tolist()] == exact


def test_certificate_spares_the_second_search(near_copies, redone) -> None:
    """On usual rows every query is certified at once."""
    everything(
        np.random.default_rng(2).normal(size=(500, 64)).astype(np.float32),
        5,
        "euclidean",
    )
    assert redone == [500]


def test_uncertified_queries_are_redone(redone) -> None:
    """Forty equal rows hide behind each other: they and those beside them need a second try."""
    rows = np.random.default_rng(3).normal(size=(300, 8)).astype(np.float32)
    rows[100:140] = rows[100]
    _, ids = everything(rows, 5, "euclidean")
    touched = (np.isin(ids, np.arange(100, 140))).any(axis=1)
    assert redone == [300] + [1] * int(touched.sum())
    assert 40 <= touched.sum() < 100
    np.testing.assert_array_equal(ids[139], [100, 101, 102, 103, 104])


@pytest.mark.parametrize("metric", METRICS)
def test_equal_distances_are_ordered_by_row(metric: str) -> None:
    """Copies of one row come in the order of their numbers, without the query."""
    rows = np.ones((30, 4), np.float32)
    _, ids = everything(rows, 29, metric)
    for row in range(30):
        np.testing.assert_array_equal(ids[row], np.delete(np.arange(30), row))


def test_copies_have_cosine_distance_zero() -> None:
    """No rounding noise between equal or doubled rows."""
    row = np.random.default_rng(4).normal(size=77).astype(np.float32)
    distances, _ = everything(np.stack([row, row, 2 * row]), 2, "cosine")
    np.testing.assert_array_equal(distances, np.zeros((3, 2)))


def test_zero_rows_have_cosine_zero() -> None:
    """A zero row is at distance 1 of all rows, other zero rows included."""
    rows = np.random.default_rng(5).normal(size=(60, 5))
    rows[[3, 9, 40]] = 0
    full = oracle(rows, "cosine")
    full[[3, 9, 40]] = full[:, [3, 9, 40]] = 1
    np.fill_diagonal(full, np.inf)
    distances, ids = everything(rows, 59, "cosine")
    np.testing.assert_allclose(distances, np.sort(full, axis=1)[:, :59], atol=1e-12)
    np.testing.assert_array_equal(ids[3], np.delete(np.arange(60), 3))
    np.testing.assert_array_equal(everything(rows, 7, "cosine")[1], ids[:, :7])


def test_only_zero_rows() -> None:
    """Cosine among zero rows alone: all at 1, in order."""
    distances, ids = everything(np.zeros((4, 3)), 2, "cosine")
    np.testing.assert_array_equal(distances, np.ones((4, 2)))
    np.testing.assert_array_equal(ids, [[1, 2], [0, 2], [0, 1], [0, 1]])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", [1e-30, 1e30, 1e-100, 1e100])
def test_numbers_that_float32_cannot_hold(metric: str, scale: float) -> None:
    """Underflow and overflow in float32 withdraw the certificate, not the truth."""
    rows = np.random.default_rng(6).normal(size=(40, 6))
    _, ids = everything(rows * scale, 5, metric)
    np.testing.assert_array_equal(ids, everything(rows, 5, metric)[1])


@pytest.mark.parametrize("metric", METRICS)
def test_a_large_common_offset_changes_nothing(metric: str) -> None:
    """Rows around a far mean are ordered as float64 orders them."""
    rows = np.random.default_rng(7).normal(size=(150, 10)) + 1e5
    full = oracle(rows, metric)
    distances, _ = everything(rows, 6, metric)
    atol = {"euclidean": 1e-9, "cosine": 1e-12, "inner_product": 1e-3}[metric]
    np.testing.assert_allclose(
        distances, np.sort(full, axis=1)[:, :6], rtol=1e-12, atol=atol
    )


def test_rows_that_are_not_finite_are_nobodys_neighbor() -> None:
    """NaN and infinity exclude a row on both sides; the rest is filled with -1."""
    rows = np.random.default_rng(8).normal(size=(6, 3)).astype(np.float32)
    rows[1, 2], rows[4] = np.inf, np.nan
    distances, ids = everything(rows, 4, "euclidean")
    assert (ids[[1, 4]] == -1).all()
    assert np.isnan(distances[[1, 4]]).all()
    assert set(ids[0].tolist()) == {2, 3, 5, -1}
    np.testing.assert_array_equal(np.isnan(distances), ids < 0)


def test_nothing_usable() -> None:
    """All rows unreadable: nothing is found and nothing fails."""
    distances, ids = everything(np.full((3, 2), np.nan), 2, "cosine")
    assert (ids == -1).all()
    assert np.isnan(distances).all()


def test_queries_from_elsewhere() -> None:
    """A query that is not in the database may find its own copy."""
    rows = np.random.default_rng(9).normal(size=(50, 4)).astype(np.float32)
    distances, ids = search(
        rows[:3], rows, query_ids=np.full(3, -1), k=1, metric="euclidean"
    )
    np.testing.assert_array_equal(ids[:, 0], [0, 1, 2])
    np.testing.assert_array_equal(distances, np.zeros((3, 1)))


# Small integers as floats: many ties, copies and zero rows.
lattice = hnp.arrays(
    np.float32,
    st.tuples(st.integers(2, 24), st.integers(1, 4)),
    elements=st.integers(-2, 2),
)


@settings(max_examples=80, deadline=None)
@given(rows=lattice, metric=st.sampled_from(METRICS), data=st.data())
def test_order_with_ties_is_that_of_all_pairs(rows, metric, data) -> None:
    """On a lattice the result is the sort of all pairs by (distance, row)."""
    k = data.draw(st.integers(1, len(rows) - 1))
    ids = everything(rows, k, metric)[1]
    every, order = everything(rows, len(rows) - 1, metric)
    np.testing.assert_array_equal(ids, order[:, :k])
    ranked = np.lexsort((order, every), axis=-1)
    np.testing.assert_array_equal(
        ranked, np.broadcast_to(np.arange(len(rows) - 1), ranked.shape)
    )
    if metric != "cosine":  # integers: the oracle has no rounding either
        full = oracle(rows, metric)
        np.testing.assert_array_equal(
            ids, np.argsort(full, axis=1, kind="stable")[:, :k]
        )


@settings(max_examples=60, deadline=None)
@given(rows=lattice, metric=st.sampled_from(METRICS), data=st.data())
def test_inserted_nan_rows_only_shift_numbers(rows, metric, data) -> None:
    """Unreadable images in between change no distance and no order."""
    at = data.draw(st.lists(st.integers(0, len(rows)), max_size=5))
    padded = np.insert(rows, at, np.nan, axis=0)
    kept = np.flatnonzero(~np.isnan(padded).any(axis=1))
    k = data.draw(st.integers(1, len(rows) - 1))
    distances, ids = everything(rows, k, metric)
    padded_distances, padded_ids = everything(padded, k, metric)
    np.testing.assert_array_equal(padded_ids[kept], kept[ids])
    assert padded_distances[kept].tobytes() == distances.tobytes()
