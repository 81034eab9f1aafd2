"""The exact search against float64 brute force, on friendly and hostile rows."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import faiss
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import pairwise_distances

from embedkit.analysis.exact import search_rows
from embedkit.analysis.exact.knn import search
from embedkit.analysis.exact.ranking import ranked_directly
from embedkit.analysis.spool import spool
from embedkit.planning.neighbors import Machine, plan_neighbors

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


def found(
    rows: np.ndarray, k: int, metric: Any, *, queries: Any = None, tile: int = 64
) -> np.ndarray:
    """Search with small tiles, so that few rows make many pairs of bands."""
    machine = Machine(memory_limit=2**40, slots=1, on_machine=1, workers=1, threads=1)
    plan = plan_neighbors(
        n_images=len(rows),
        n_queries=0 if queries is None else len(queries),
        features=rows.shape[1],
        n_neighbors=k,
        itemsize=4,
        machine=machine,
    )
    few = min(len(rows), max(k + 1, 40))
    plan = replace(plan, tile_rows=tile, band_rows=2 * tile, sample_rows=few)
    with tempfile.TemporaryDirectory() as folder, dask.config.set(scheduler="sync"):
        return search(
            spool(xr.DataArray(rows, dims=("image", "feature")), folder),
            queries=None
            if queries is None
            else spool(xr.DataArray(queries, dims=("image", "feature")), folder),
            k=k,
            metric=metric,
            plan=plan,
            folder=Path(folder) / "search",
        )


def everything(
    rows: np.ndarray, k: int, metric: Any, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    out = found(rows, k, metric, **options)
    return np.where(out["ids"] < 0, np.nan, out["near"]), out["ids"]


@pytest.fixture
def near_copies() -> np.ndarray:
    """300 groups of 10 near copies, d=2048, mean norm about 250."""
    rng = np.random.default_rng(0)
    center = rng.normal(size=2048)
    center *= 250 / np.linalg.norm(center)
    groups = np.repeat(rng.normal(size=(300, 2048)) * 0.5, 10, axis=0)
    noise = rng.normal(size=groups.shape) * 1e-3
    return (groups + center + noise).astype(np.float32)


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


@pytest.mark.slow
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
    ids = everything(near_copies, k, "euclidean", tile=512)[1][:400]

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
    ids = everything(near_copies, 4, "euclidean", tile=512)[1][:1000:10]
    assert missed > 5
    assert [set(each) for each in ids.tolist()] == exact


def test_certificate_spares_the_second_search() -> None:
    """On usual rows every row is certified at once."""
    rows = np.random.default_rng(2).normal(size=(500, 64)).astype(np.float32)
    assert found(rows, 5, "euclidean")["sure"].all()


def test_a_crowd_of_copies_takes_no_certificates() -> None:
    """A hundred black frames amid everything cost those around them no second try."""
    rows = np.random.default_rng(3).normal(size=(300, 64)).astype(np.float32)
    rows[100:200] = rows.mean(axis=0)
    out = found(rows, 5, "euclidean")
    ids = out["ids"]
    assert out["sure"].all()
    np.testing.assert_array_equal(ids[199], [100, 101, 102, 103, 104])
    np.testing.assert_array_equal(ids[102], [100, 101, 103, 104, 105])
    np.testing.assert_array_equal(ids[0], [100, 101, 102, 103, 104])


def test_rows_of_one_fingerprint_are_compared(monkeypatch) -> None:
    """Where fingerprints collide only true copies are left out."""
    rows = np.random.default_rng(4).integers(0, 2, size=(90, 3)).astype(np.float32)
    expected = everything(rows, 4, "euclidean")[1]
    monkeypatch.setattr(
        search_rows,
        "_fingerprints",
        lambda lifted: np.zeros(len(lifted), np.uint64),
    )
    np.testing.assert_array_equal(everything(rows, 4, "euclidean")[1], expected)
    full = oracle(rows, "euclidean")
    np.testing.assert_array_equal(
        expected, np.argsort(full, axis=1, kind="stable")[:, :4]
    )


@pytest.mark.parametrize("metric", METRICS)
def test_two_thousand_equal_rows(metric: str) -> None:
    """They take part once; each has the first of the others."""
    rows = np.random.default_rng(10).normal(size=(2100, 4))
    rows[50:2050] = [8, 0, 0, 0]
    rows *= 1e100 if metric != "cosine" else 1
    if metric == "cosine":  # near copies by direction that float32 cannot tell apart
        rows[:50] = rows[50] + 1e-12 * rows[:50]
    ids = everything(rows, 6, metric)[1]
    for row in (50, 53, 56, 57, 2049):
        expected = np.delete(np.arange(50, 2050), row - 50)[:6]
        np.testing.assert_array_equal(ids[row], expected)


@pytest.mark.parametrize("scale", [1e-5, 1e-12, 1e-40])
@pytest.mark.parametrize("alone", [True, False])
def test_near_copies_beyond_number_are_searched_again(
    scale: float, alone: bool
) -> None:
    """What float32 and even float64 products leave open is exact all the same."""
    rng = np.random.default_rng(12)
    rows = rng.normal(size=(1100, 8))  # most of them elsewhere, the center as well
    rows[100:500] = [3, 1, 0, 0, 0, 0, 0, 0]
    rows[100:500, 5:] += scale * rng.integers(-9, 9, size=(400, 3))
    full = _all_pairs(rows, "euclidean")
    out = found(rows, 3, "euclidean", queries=None if alone else rows)
    if not alone:
        np.fill_diagonal(full, 0)
    expected = np.argsort(full, axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(out["ids"], expected)
    assert not out["sure"][100:500].any()
    assert out["sure"][:100].mean() > 0.9


def test_zero_rows_under_cosine() -> None:
    """The first usable rows except itself."""
    rows = np.random.default_rng(11).normal(size=(2100, 4)).astype(np.float32)
    rows[50:2050], rows[1] = 0, np.nan
    distances, ids = everything(rows, 50, "cosine")
    first = np.delete(np.arange(52), 1)
    np.testing.assert_array_equal(ids[50], np.delete(first, 49))
    np.testing.assert_array_equal(ids[51], np.delete(first, 50))
    np.testing.assert_array_equal(ids[2049], first[:50])
    np.testing.assert_array_equal(distances[50:2050], np.ones((2000, 50)))


def test_equal_queries_that_are_not_in_the_database() -> None:
    """Nobody is left out of their ranking."""
    rows = np.full((60, 3), 1e100)
    rows[5:, 0] *= np.arange(1, 56)
    rows[:9] = rows[0]
    ids = everything(rows, 4, "euclidean", queries=rows[:9])[1]
    np.testing.assert_array_equal(ids, np.broadcast_to(np.arange(4), (9, 4)))


@pytest.mark.parametrize("metric", METRICS)
def test_queries_are_measured_like_rows(metric: str) -> None:
    """Unreadable, zero and ordinary queries, in several tiles."""
    rng = np.random.default_rng(13)
    rows = rng.normal(size=(200, 6)).astype(np.float32)
    rows[3], rows[8], rows[60:70] = 0, np.nan, rows[60]
    asked = np.concatenate([rows[:80], rng.normal(size=(70, 6)).astype(np.float32)])
    both = np.concatenate([rows, asked])
    usable = ~np.isnan(both).any(axis=1)
    full = _all_pairs(np.where(usable[:, None], both, 0), metric)[200:, :200]
    at = np.arange(150)
    if metric == "euclidean":
        full[at[:80], at[:80]] = 0  # its own copy, which _all_pairs does not measure
    full[:, 8] = np.inf
    distances, ids = everything(rows, 7, metric, queries=asked)
    best = np.sort(full, axis=1)[:, :7]
    np.testing.assert_allclose(distances[:8], best[:8], atol=1e-13)
    np.testing.assert_allclose(distances[9:], best[9:], atol=1e-13)
    assert (ids[8] == -1).all()
    np.testing.assert_array_equal(
        ids[9:], np.argsort(full, axis=1, kind="stable")[9:, :7]
    )


def test_zero_rows_are_neighbors_of_queries_that_have_no_others() -> None:
    """A database of zero rows alone, under cosine."""
    distances, ids = everything(np.zeros((4, 3)), 2, "cosine", queries=np.eye(3))
    np.testing.assert_array_equal(ids, [[0, 1]] * 3)
    np.testing.assert_array_equal(distances, np.ones((3, 2)))


def test_measuring_directly_equals_the_search(tmp_path: Path) -> None:
    """The last resort goes through all rows in blocks and finds the same."""
    rows = np.random.default_rng(14).normal(size=(300, 5))
    made = spool(xr.DataArray(rows, dims=("image", "feature")), tmp_path)
    side = search_rows.Side(made, str(tmp_path), "base", 300, "euclidean", 0)
    np.save(tmp_path / "base-kept.npy", np.arange(300))
    np.save(tmp_path / "zeros.npy", np.arange(0))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(search_rows, "_BLOCK", 5 * 70)
        direct = [
            ranked_directly(side, side, row, k=6, alone=True)["ids"][0]
            for row in (0, 150, 299)
        ]
    expected = everything(rows, 6, "euclidean")[1]
    np.testing.assert_array_equal(direct, expected[[0, 150, 299]])


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
    distances, ids = everything(rows, 1, "euclidean", queries=rows[:3])
    np.testing.assert_array_equal(ids[:, 0], [0, 1, 2])
    np.testing.assert_array_equal(distances, np.zeros((3, 1)))


def _around_the_largest_square(features: int) -> np.ndarray:
    """Two rows a little inside and outside of the root of FLT_MAX, and 40 within."""
    root = np.sqrt(float(np.finfo(np.float32).max))
    length = root * np.r_[0.7, 1.001, np.linspace(0, 0.3, 40)]
    rows = np.zeros((42, features))
    rows[:, 0] = length
    return np.concatenate([rows, -rows]).astype(np.float32)


def _opposite_infinities(features: int) -> np.ndarray:
    """A pair whose two products overflow with opposite signs, and 40 rows below."""
    rows = np.zeros((42, features))
    rows[2:, 0] = np.geomspace(1e12, 3e16, 40)
    rows[0, 0], rows[1, 0] = 3e19, -2e19
    rows[0, -1], rows[1, -1] = 3e19, 4e19
    return np.concatenate([rows, -rows])


def _below_float32(features: int) -> np.ndarray:
    """Rows that float32 rounds to zero beside rows of 1e30."""
    rng = np.random.default_rng(1)
    small = rng.normal(size=(40, features)) * 1e-46
    rows = np.concatenate([small, rng.normal(size=(60, features)) * 1e30])
    return np.concatenate([rows, -rows])


def _below_normal(features: int) -> np.ndarray:
    """Rows whose products, and then whose entries, are subnormal in float32."""
    rng = np.random.default_rng(2)
    scale = np.geomspace(1e-44, 1e-18, 120)[:, None]
    return rng.normal(size=(120, features)) * scale


def _overflowing_queries(features: int) -> np.ndarray:
    """Entries beyond float32 beside rows so small that their products are moderate."""
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(80, features)) * 1e-30
    rows[:3] = [[1e39], [-1e39], [2e39]]
    return rows


def _beyond_float32(features: int) -> np.ndarray:
    """Rows that float32 takes for infinities, and one of zeros."""
    rows = np.random.default_rng(5).normal(size=(80, features)) * 1e100
    rows[7] = 0
    return rows


def _far_from_zero(features: int) -> np.ndarray:
    """Near copies in groups of three around a distant mean."""
    rng = np.random.default_rng(4)
    groups = np.repeat(rng.normal(size=(50, features)), 3, axis=0)
    return 300 + groups + 1e-4 * rng.normal(size=groups.shape)


def _all_pairs(rows: np.ndarray, metric: str) -> np.ndarray:
    """Measure every pair in float64 by definition, and itself as infinitely far."""
    rows = rows.astype(np.float64)
    if metric == "cosine":
        rows = rows / np.abs(rows).max(axis=1, initial=1e-300, keepdims=True)
        rows = rows / np.maximum(np.sqrt((rows**2).sum(axis=1, keepdims=True)), 1e-300)
    if metric == "inner_product":
        full = np.stack([-(row * rows).sum(axis=1) for row in rows])
    else:
        full = np.stack([((row - rows) ** 2).sum(axis=1) for row in rows])
    if metric == "euclidean":
        full = np.sqrt(full)
    if metric == "cosine":
        null = ~rows.any(axis=1)
        full = np.where(null | null[:, None], 1.0, full / 2)
    np.fill_diagonal(full, np.inf)
    return full


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("features", [1, 2, 17, 512])
@pytest.mark.parametrize(
    "hostile",
    [
        _around_the_largest_square,
        _opposite_infinities,
        _below_float32,
        _below_normal,
        _overflowing_queries,
        _beyond_float32,
        _far_from_zero,
    ],
)
def test_hostile_rows(hostile, features, metric) -> None:
    """Neighbors lie as near as those of brute force, whatever float32 makes of them."""
    rows = hostile(features)
    full = _all_pairs(rows, metric)
    # What rounding in another order changes: relative to the products of an inner one.
    size = np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1))
    slack = {
        "euclidean": 1e-300,
        "cosine": 1e-14,
        "inner_product": 1e-14 * size[:, None] * size.max(),
    }[metric]
    for k in (1, 5):
        distances, ids = everything(rows, k, metric)
        best = np.sort(full, axis=1)[:, :k]
        reached = np.take_along_axis(full, ids, axis=1)
        for found in (reached, distances):
            wrong = np.abs(found - best) > 1e-12 * np.abs(best) + slack
            assert not wrong.any()
        assert (ids != np.arange(len(rows))[:, None]).all()


# Small integers as floats: many ties, copies and zero rows.
lattice = hnp.arrays(
    np.float32,
    st.tuples(st.integers(2, 24), st.integers(1, 4)),
    elements=st.integers(-2, 2),
)


@pytest.mark.slow
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


@pytest.mark.slow
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
