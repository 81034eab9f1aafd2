"""Threads of FAISS where torch brings an OpenMP of its own."""

from __future__ import annotations

import sys
from types import ModuleType

import faiss
import numpy as np
import pytest

from embedkit.analysis import faiss_adapter

POINTS = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
IDS = np.arange(300)


def _lists():
    return faiss_adapter.list_index(
        POINTS, kind="ivf_flat", n_lists=2, code_bytes=4, seed=0
    )


CALLS = {
    "nearest": lambda: faiss_adapter.nearest(POINTS, POINTS, k=2),
    "nearest_centroid": lambda: faiss_adapter.nearest_centroid(POINTS, POINTS[:3]),
    "list_index": _lists,
    "graph_index": lambda: faiss_adapter.graph_index(4, sample=POINTS),
    "add": lambda: faiss_adapter.add(_lists(), POINTS, IDS),
    "remove": lambda: faiss_adapter.remove(_lists(), IDS[:2]),
    "search": lambda: faiss_adapter.search(_lists(), POINTS, k=2, effort=1),
}


@pytest.fixture
def asked(monkeypatch):
    """Numbers of threads that FAISS is set to, of four."""
    now, asked = [4], []

    def change(threads):
        asked.append(threads)
        now[0] = threads

    monkeypatch.setattr(faiss, "omp_set_num_threads", change)
    monkeypatch.setattr(faiss, "omp_get_max_threads", lambda: now[0])
    return asked


@pytest.mark.parametrize("name", CALLS)
def test_one_thread_beside_torch_on_macos(monkeypatch, asked, name):
    """Every call that computes; what was there before is put back."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))

    CALLS[name]()

    assert asked
    assert asked[::2] == [1] * (len(asked) // 2)
    assert asked[1::2] == [4] * (len(asked) // 2)


@pytest.mark.parametrize(("platform", "torch"), [("linux", True), ("darwin", False)])
@pytest.mark.parametrize("name", CALLS)
def test_all_threads_elsewhere(monkeypatch, asked, name, platform, torch):
    """On other systems, or before torch is loaded."""
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    if torch:
        monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))

    CALLS[name]()

    assert asked == []


def test_an_error_gives_the_threads_back(monkeypatch, asked):
    """The next call has all of them."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))

    with pytest.raises(KeyError):
        faiss_adapter.list_index(POINTS, kind="none", n_lists=2, code_bytes=4, seed=0)

    assert asked == [1, 4]
