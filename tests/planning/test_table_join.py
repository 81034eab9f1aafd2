"""How the image table is joined."""

import math

from hypothesis import given
from hypothesis import strategies as st

from embedkit.planning.table_join import BROADCAST_MOST, choose_join
from embedkit.planning.written import TABLE_ROWS

sizes = st.integers(1, 10**7)


def test_a_small_table_is_read_once_where_blocks_are_small():
    """Twenty thousand images in blocks of 256, on two workers."""
    found = choose_join(n_images=20_000, row_bytes=60, block=256, n_workers=2)

    assert found.join == "broadcast"
    assert found.why == (
        "a worker reads 20,000 rows of a table of 1.1 MiB once, not 655,360 in parts"
    )


def test_a_large_table_is_read_chunk_by_chunk():
    """Ten million images: nobody holds all of them."""
    found = choose_join(n_images=10**7, row_bytes=60, block=4096, n_workers=8)

    assert found.join == "partitioned"
    assert found.why == (
        "a table of 572.2 MiB is more than the 16.0 MiB a worker may hold"
    )


def test_with_many_workers_each_reads_its_part():
    """A hundred workers would read the table a hundred times."""
    found = choose_join(n_images=200_000, row_bytes=60, block=2048, n_workers=100)

    assert found.join == "partitioned"
    assert found.why.startswith("chunk by chunk a worker reads 16,384 rows")


@given(sizes, st.floats(1, 500), st.integers(1, 10_000), st.integers(1, 500))
def test_a_broadcast_table_is_small_and_saves_reading(n, row_bytes, block, workers):
    """What a worker holds is bounded, and it reads less than it would otherwise."""
    found = choose_join(n_images=n, row_bytes=row_bytes, block=block, n_workers=workers)

    tasks = math.ceil(math.ceil(n / block) / workers)
    if found.join == "broadcast":
        assert n * row_bytes <= BROADCAST_MOST
        assert tasks * -(-block // TABLE_ROWS) * min(TABLE_ROWS, n) > n
    else:
        assert n * row_bytes > BROADCAST_MOST or tasks <= max(1, n / TABLE_ROWS)


@given(sizes, st.floats(1, 500), st.integers(1, 10_000), st.integers(1, 500))
def test_more_workers_never_call_for_a_broadcast(n, row_bytes, block, workers):
    """Each of them has fewer tasks."""
    few, many = (
        choose_join(n_images=n, row_bytes=row_bytes, block=block, n_workers=each).join
        for each in (workers, 2 * workers)
    )

    assert (few, many) != ("partitioned", "broadcast")
