"""Every analysis tells what it takes before it runs, and is refused where that is too much."""

import dask
import numpy as np
import psutil
import pytest
import xarray as xr

import embedkit as ek
from embedkit.analysis import probe as probe_module
from embedkit.analysis.graph import neighbor_graph
from embedkit.analysis.planned import planned
from embedkit.analysis.threads import machine
from embedkit.errors import PlanError
from embedkit.planning import analyses
from embedkit.planning.analysis_models import CLUSTER
from embedkit.planning.analysis_plan import AnalysisPlan


@pytest.fixture
def lists():
    """Neighbor lists of 700 images, a few without any, as a store gives them."""
    rng = np.random.default_rng(3)
    indices = rng.integers(0, 700, (700, 5))
    indices[[3, 400]] = -1
    indices[10, 3:] = -1
    distances = np.sort(rng.random((700, 5)).astype(np.float32) * 1.5, axis=1)
    distances[indices < 0] = np.nan
    dims = ("image", "neighbor")
    return xr.Dataset(
        {"indices": (dims, indices), "distances": (dims, distances)},
        attrs={"metric": "cosine", "exact": True, "n_neighbors": 5, "embedkit": "0"},
    ).chunk(image=150)


@pytest.fixture
def layer(as_images, blobs):
    """A lazy layer with labels."""
    return as_images(*blobs, chunk=100)


@pytest.fixture
def asked(lists, layer):
    """Every analysis of a layer or of neighbors, to be called with what is to be tested."""
    graph = ek.neighbor_graph(lists)
    new = layer[:5].assign_coords(
        xr.Coordinates({"image": ("image", [f"new{i}" for i in range(5)])}, indexes={})
    )
    nn = lists.isel(image=slice(0, 300)).assign_coords(
        xr.Coordinates({"image": layer["image"].variable}, indexes={})
    )
    return {
        "neighbor_graph": lambda **o: ek.neighbor_graph(lists, **o),
        "communities": lambda **o: ek.communities(graph, **o),
        "project": lambda **o: ek.project(graph, **o),
        "cluster": lambda **o: ek.cluster(layer, **o),
        "probe": lambda **o: ek.probe({"a": layer, "b": layer}, target="label", **o),
        "neighbor_accuracy": lambda **o: ek.neighbor_accuracy(
            lists, np.arange(700) % 3, **o
        ),
        "append_neighbors": lambda **o: ek.append_neighbors(nn, layer, new=new, **o),
        "duplicates": lambda **o: ek.duplicates(lists, threshold=0.1, **o),
    }


NAMES = (
    "append_neighbors",
    "cluster",
    "communities",
    "duplicates",
    "neighbor_accuracy",
    "neighbor_graph",
    "probe",
    "project",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_is_made_without_computing(asked, nothing_computes, name):
    """Of the function that was called, within half of what is free."""
    with nothing_computes():
        plan = asked[name](plan_only=True)

    assert isinstance(plan, AnalysisPlan)
    assert plan.asked == name
    assert 0 < plan.projected_mem <= plan.allowed_mem
    assert plan.describe().startswith(f"{name} of ")


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_fit_is_refused_before_anything_is_computed(
    asked, nothing_computes, name
):
    """With the limit, the numbers, and what would fit."""
    with (
        nothing_computes(),
        pytest.raises(
            PlanError,
            match=rf"^{name} of .* takes .* memory_limit is 1\.0 MiB: what would fit is "
            r"\(1\) memory_limit='\d+ MiB'",
        ),
    ):
        asked[name](memory_limit=2**20)


@pytest.mark.parametrize("kernel", ["binary", "similarity"])
@pytest.mark.parametrize("least", [1, 64])
def test_weights_do_not_depend_on_rows_per_task(lists, monkeypatch, kernel, least):
    """Nor on the chunks that the lists came in."""
    whole = neighbor_graph(lists.compute(), kernel=kernel).compute()
    monkeypatch.setattr(analyses, "TASK_ENTRIES", 5 * least)
    monkeypatch.setattr(analyses, "_LEAST_ROWS", least)

    parts = neighbor_graph(lists, kernel=kernel)

    assert parts["weight"].data.chunks[0][0] == least
    assert parts["weight"].values.tobytes() == whole["weight"].values.tobytes()


def test_accuracy_does_not_depend_on_rows_per_task(lists, monkeypatch):
    """The counts of all tasks together are those of one."""
    labels = np.random.default_rng(0).integers(0, 2, 700).astype(float)
    labels[::50] = np.nan
    whole = ek.neighbor_accuracy(lists.compute(), labels)
    for least in (1, 128):
        monkeypatch.setattr(analyses, "TASK_ENTRIES", 5 * least)
        monkeypatch.setattr(analyses, "_LEAST_ROWS", least)
        assert (
            ek.neighbor_accuracy(lists, labels, plan_only=True).rows_per_task == least
        )
        assert ek.neighbor_accuracy(lists, labels) == whole


def test_layers_are_probed_in_turns_where_memory_is_tight(layer, monkeypatch):
    """As many at once as fit; the scores are the same."""
    store = {name: layer + shift for name, shift in zip("abc", (0, 1, 2), strict=True)}
    turns = []

    def counted(*tasks):
        turns.append(len(tasks))
        return dask.compute(*tasks)

    monkeypatch.setattr(probe_module, "compute", counted)
    with dask.config.set(num_workers=2):
        free = ek.probe(store, target="label")
        plan = ek.probe(store, target="label", plan_only=True)
        tight = ek.probe(store, target="label", memory_limit=plan.projected_mem - 1)

    assert plan.at_once == 2
    assert turns == [3, 1, 1, 1]
    xr.testing.assert_identical(free, tight)


def test_without_a_cluster_this_process_is_the_machine():
    """Half of what is free, or what was asked for, and Dask's own threads."""
    with dask.config.set(num_workers=3):
        found = machine(None)
        given = machine("2 MiB")

    assert 0 < found.memory_limit < psutil.virtual_memory().total // 2 + 1
    assert (found.slots, found.on_machine, found.workers) == (3, 3, 3)
    assert given.memory_limit == 2**21


def test_the_smallest_worker_decides(client, monkeypatch):
    """Half of its memory, the threads of the busiest, and all of them together."""
    workers = {
        "a": {"nthreads": 4, "memory_limit": 10**9, "host": "one"},
        "b": {"nthreads": 1, "memory_limit": 6 * 10**8, "host": "one"},
        "c": {"nthreads": 1, "memory_limit": 0, "host": "two"},
    }
    monkeypatch.setattr(
        type(client), "scheduler_info", lambda _, n_workers: {"workers": workers}
    )

    found = machine(None)

    assert found.memory_limit == 3 * 10**8
    assert (found.slots, found.on_machine, found.workers) == (4, 5, 6)


def test_no_rows_are_planned_as_one():
    """Empty input is refused where it is looked at, not by the planner."""
    plan = planned(CLUSTER, n_images=0, width=0)

    assert (plan.n_images, plan.width) == (1, 1)
