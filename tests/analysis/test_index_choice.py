"""The kind of index that fits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.analysis.index.choice import choose
from embedkit.errors import PlanError

MB = 2**20


@pytest.mark.parametrize(
    ("rows", "limit", "kind", "sharded"),
    [
        (4096, 1, "flat", False),
        (100_000, 300 * MB, "hnsw", False),
        (100_000, 205 * MB, "hnsw", False),
        (100_000, 60 * MB, "ivf_sq8", False),
        (100_000, 30 * MB, "ivf_pq", False),
        (100_000, 8 * MB, "ivf_flat", True),
    ],
)
def test_less_memory_means_smaller_rows(rows, limit, kind, sharded):
    """From the fastest kind to the smallest, then to the disk."""
    found = choose(rows, 512, memory_limit=limit, sharded="auto")

    assert (found.kind, found.sharded) == (kind, sharded)


def test_a_graph_of_bytes_goes_before_lists_of_rows():
    """Where rows are long it is the smaller of the two; where they are short it is not."""
    assert choose(10**5, 512, memory_limit=300 * MB, sharded="auto").code_bytes == 0
    assert choose(10**5, 512, memory_limit=100 * MB, sharded="auto").code_bytes == 512
    short = choose(10**5, 64, memory_limit=29 * MB, sharded="auto")
    assert (short.kind, short.code_bytes) == ("ivf_flat", 0)


def test_files_can_be_asked_for_and_refused():
    """True makes them where they are not needed, False never."""
    assert choose(100, 8, memory_limit=MB, sharded=True).sharded
    assert choose(100_000, 512, memory_limit=300 * MB, sharded=True).sharded
    with pytest.raises(PlanError, match=r"100000 rows of 512 .*product codes need \d+"):
        choose(100_000, 512, memory_limit=MB, sharded=False)


@given(st.integers(5000, 10**8), st.integers(1, 4096), st.integers(2**20, 2**40))
def test_what_is_chosen_fits(rows, features, limit):
    """Bytes stay within the limit, or a file within a third of it."""
    found = choose(rows, features, memory_limit=limit, sharded="auto")

    if found.sharded:
        assert found.nbytes <= max(limit // 3, 1024 * (4 * features + 8))
    else:
        assert found.nbytes <= limit
        assert found.shard_rows == rows
    assert found.n_lists <= rows // 40
