"""The arithmetic of a plan for a search index."""

from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.planning.index import IndexParts, plan_index

PARTS = IndexParts(
    kind="ivf_flat",
    n_images=100_000,
    features=512,
    itemsize=4,
    n_neighbors=10,
    nbytes=10**7,
    file_rows=0,
    sample_rows=10_000,
    truth_rows=1500,
)


def test_a_plan_says_what_it_takes():
    """Kind, bytes, rows, tasks, threads, memory and disk in one sentence."""
    plan = plan_index(PARTS, slots=2, threads=3)

    assert plan.describe().startswith(
        "ivf_flat of 9.5 MiB over 100,000 images of 512 features, recall measured on "
        "1,500 rows left out until then: 19 tasks of up to 32,768 rows, 2 at once with 3 "
        "threads each, "
    )
    assert plan.scratch_bytes == 100_000 * 512 * 4
    with pytest.raises(FrozenInstanceError):
        plan.slots = 1


def test_files_are_counted():
    """One for each stretch of the rows, and two for those that are left out."""
    plan = plan_index(replace(PARTS, file_rows=50_000), slots=1, threads=1)

    assert plan.n_files == 4
    assert "ivf_flat in 4 files, the largest of 9.5 MiB over" in plan.describe()
    assert plan.scratch_bytes == 100_000 * 512 * 4 + 4 * 10**7
    assert plan.rows_per_task == 50_000


def test_few_rows_are_exact():
    """Nothing is left out, nothing is measured."""
    few = replace(PARTS, kind="flat", n_images=900, nbytes=0, truth_rows=0)

    plan = plan_index(few, slots=8, threads=1)

    assert (plan.n_tasks, plan.rows_per_task) == (3, 900)
    assert "900 images of 512 features, exact: 3 tasks" in plan.describe()


@given(
    st.integers(1, 10**8),
    st.integers(1, 10**4),
    st.sampled_from([2, 4, 8]),
    st.integers(1, 64),
)
def test_memory_grows_with_everything(rows, features, itemsize, slots):
    """With rows, features, wider numbers, a larger index and more tasks at once."""
    one = replace(PARTS, n_images=rows, features=features, itemsize=itemsize)
    plan = plan_index(one, slots=slots, threads=1)

    for more, by in (
        (replace(one, n_images=2 * rows), 300 * rows),
        (replace(one, nbytes=one.nbytes + 10**6), 2 * 10**6),
        (replace(one, sample_rows=one.sample_rows + 100), 800 * features),
        (replace(one, itemsize=2 * itemsize), 1),
    ):
        wider = plan_index(more, slots=slots, threads=1)
        assert wider.projected_mem >= plan.projected_mem + by
    assert (
        plan_index(one, slots=slots + 1, threads=1).projected_mem >= plan.projected_mem
    )
