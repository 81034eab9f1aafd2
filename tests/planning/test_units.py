"""Bytes in words that can be typed again."""

from dask.utils import parse_bytes
from hypothesis import given
from hypothesis import strategies as st

from embedkit.planning.units import GIB, rounded_up


@given(st.integers(1, 2**50))
def test_what_is_told_is_enough_and_hardly_more(count):
    """As Dask understands the text, which may be given to it."""
    limit, told = rounded_up(count)

    assert parse_bytes(told) == limit
    assert count <= limit < count + max(2**20, GIB // 10 + 2)
