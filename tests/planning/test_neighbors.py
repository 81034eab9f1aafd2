"""The plan of an exact search: it fits, or says so."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.errors import PlanError
from embedkit.planning.neighbors import Machine, plan_neighbors

MACHINE = Machine(memory_limit=2**34, slots=2, on_machine=2, workers=2, threads=1)


def plan(n_images, features=512, n_neighbors=15, *, machine=MACHINE, n_queries=0):
    return plan_neighbors(
        n_images=n_images,
        features=features,
        n_neighbors=n_neighbors,
        itemsize=4,
        machine=machine,
        n_queries=n_queries,
    )


@given(
    n_images=st.integers(2, 10**7),
    features=st.integers(1, 5000),
    n_queries=st.sampled_from([0, 1, 10**5]),
    workers=st.integers(1, 1000),
)
def test_every_plan_is_sound(n_images, features, n_queries, workers):
    """Whole tiles, few enough tasks, a sample of rows that are there."""
    machine = replace(MACHINE, memory_limit=2**50, workers=workers)
    made = plan(n_images, features, 1, machine=machine, n_queries=n_queries)
    assert 1 <= made.tile_rows <= 2048
    assert made.band_rows % made.tile_rows == 0
    assert made.n_tasks < 20_000 or n_queries
    assert made.sample_rows <= n_images
    assert made.projected_mem > 0


def test_memory_grows_with_the_tasks_at_once():
    """And with the rows only by what the caller holds."""
    one = plan(10**6, machine=replace(MACHINE, slots=1))
    two = plan(10**6)
    ten = plan(10**7, machine=replace(MACHINE, memory_limit=2**40))
    assert one.projected_mem < two.projected_mem < 2 * one.projected_mem
    assert ten.projected_mem < 11 * two.projected_mem
    assert two.scratch_bytes > 10**6 * 512 * 8


def test_tiles_shrink_until_they_fit():
    """The tiles that a limit leaves take less than it."""
    wide = full = plan(10**5)
    while full.tile_rows == wide.tile_rows:
        limit = full.projected_mem - 1
        less = plan(10**5, machine=replace(MACHINE, memory_limit=limit))
        assert less.projected_mem <= limit
        assert less.band_rows < full.band_rows
        full = less
    assert full.tile_rows == full.band_rows == wide.tile_rows // 2


def test_tiles_of_a_search_that_has_begun_are_kept():
    """Or refused where they do not fit any more, with the way to begin anew."""
    begun = plan(10**5, machine=replace(MACHINE, workers=300)).layout
    assert plan(10**5).layout != begun
    again = plan_neighbors(
        n_images=10**5,
        features=512,
        n_neighbors=15,
        itemsize=4,
        machine=MACHINE,
        layout=begun,
    )
    assert again.layout == begun
    with pytest.raises(PlanError, match=r"begun with tiles of .*: delete the scratch"):
        plan_neighbors(
            n_images=10**5,
            features=512,
            n_neighbors=15,
            itemsize=4,
            machine=replace(MACHINE, memory_limit=10**8),
            layout=begun,
        )


def test_what_cannot_fit_is_refused():
    """With both numbers and what to do."""
    with pytest.raises(PlanError, match=r"take .* GB in a process and may take 100 MB"):
        plan(10**7, machine=replace(MACHINE, memory_limit=10**8))


def test_each_pair_once():
    """Half the products of all rows with all rows, and those with the sample."""
    made = plan(10**5)
    assert made.flops == (1e10 + 2e5 * made.sample_rows) * 514
    assert plan(10**5, n_queries=10).flops == 2 * 10 * 1e5 * 514


@pytest.mark.parametrize("n_queries", [0, 20])
def test_a_plan_says_what_it_takes(n_queries):
    """In one sentence."""
    told = plan(2000, n_queries=n_queries).describe()
    start = "15 exact neighbors of " + ("20 queries among " if n_queries else "")
    assert told.startswith(start + "2,000 images of 512 features: ")
    assert "MB of memory" in told
