"""Plans of search indexes: told beforehand, kept while building and searching."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr

import embedkit as ek
from embedkit.analysis.index.rows import Rows
from embedkit.analysis.spool import spool

USER = Path(__file__).parent / "index_user.py"


def _array(n_rows: int, features: int) -> xr.DataArray:
    rows = np.random.default_rng(0).normal(size=(n_rows, features)).astype(np.float32)
    return xr.DataArray(rows, dims=("image", "feature"))


def test_a_plan_computes_nothing(nothing_computes) -> None:
    """Of a lazy array it asks for the shape alone."""
    x = _array(5000, 16).chunk(image=500)

    with nothing_computes():
        plan = ek.build_index(x, recall=0.9, memory_limit="1 MiB", plan_only=True)

    assert (plan.n_images, plan.features, plan.kind) == (5000, 16, "ivf_flat")
    assert plan.nbytes <= 2**20
    assert plan.truth_rows == 1500


@pytest.mark.parametrize("limit", [None, 5000 * 150, 10_000])
def test_the_plan_is_what_is_built(limit) -> None:
    """Kind, bytes and files; tasks at once as Dask is configured."""
    x = _array(5000, 16)

    with dask.config.set(scheduler="synchronous"):
        plan = ek.build_index(x, recall=0.7, memory_limit=limit, plan_only=True)
        index = ek.build_index(x, recall=0.7, memory_limit=limit)

    assert (plan.kind, plan.nbytes) == (index.kind, index.nbytes)
    assert plan.n_files in (0, len(index.faiss))
    assert (plan.n_files > 0) == (limit == 10_000)
    assert plan.slots == 1


@pytest.mark.parametrize("kept", [0, 2**40])
def test_pages_are_let_go_where_they_would_be_too_many(tmp_path, monkeypatch, kept):
    """And read again from the same file, whatever is kept."""
    monkeypatch.setattr("embedkit.analysis.index.rows.MAPPED", kept)
    x = _array(300, 8)
    rows = Rows((spool(x[:200], tmp_path / "a"), spool(x[200:], tmp_path / "b")))
    ids = np.array([5, 299, 200, 0])
    first = rows.take(ids)

    rows.let_go()

    assert (rows.take(ids) == first).all()
    assert (first == x.values[ids]).all()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no resource")
@pytest.mark.parametrize(
    ("where", "rows", "features", "limit", "kind"),
    [
        ("threads", 20_000, 256, 0, "hnsw"),
        ("threads", 20_000, 256, 8_000_000, "ivf_sq8"),
        ("threads", 4000, 512, 0, "flat"),
        ("worker", 20_000, 256, 500_000, "ivf_flat"),
    ],
)
def test_memory_stays_within_the_plan(where, rows, features, limit, kind) -> None:
    """Building and searching; the worker process would be ended beyond the plan."""
    command = [sys.executable, USER, where, rows, features, limit]
    found = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=True
    )
    told = json.loads(found.stdout)

    assert told["kind"] == told["planned"] == kind
    assert told["hit"] == 1
    assert told["took"] <= 1.2 * told["projected"]
    if where == "worker":
        assert told["files"] == told["plan_files"] > 10
