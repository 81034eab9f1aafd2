"""What makes two stores the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.errors import IdentityMismatch
from embedkit.store.identity import check_identity, identity_of

PARTS = st.dictionaries(st.text(min_size=1), st.text(), max_size=5)


@given(PARTS)
def test_identity_does_not_depend_on_the_order_of_parts(parts):
    """The hash is over names and values, in no order."""
    backwards = dict(reversed(parts.items()))

    assert identity_of(parts) == identity_of(backwards)
    assert len(identity_of(parts)) == 64


@given(parts=PARTS, name=st.text(min_size=1), value=st.text())
def test_identity_changes_with_any_part(parts, name, value):
    """Adding or changing one part gives another hash."""
    changed = parts | {name: value}

    assert (identity_of(parts) == identity_of(changed)) == (parts == changed)


def test_equal_parts_pass():
    """A store may be extended by what it was made from."""
    check_identity({"pool": "avg"}, {"pool": "avg"}, where="s.zarr")


def test_the_parts_that_differ_are_named_and_carried():
    """The message has names and values; the error has the names."""
    stored = {"pool": "avg", "weights": "a" * 64, "dtype": "float32"}
    asked = {"pool": "max", "weights": "b" * 64, "dtype": "float32"}

    with pytest.raises(IdentityMismatch) as caught:
        check_identity(stored, asked, where="s.zarr")

    assert caught.value.parts == ("pool", "weights")
    assert "store s.zarr was made with other pool and weights" in str(caught.value)
    assert "pool stored avg, asked max" in str(caught.value)
    assert "a" * 61 not in str(caught.value)


def test_long_parts_are_shown_where_they_differ():
    """Two descriptions that begin alike are cut to the difference, on one line."""
    head = (
        "ImageClassification(\n    crop_size=[224]\n    resize_size=[256]\n" + " " * 9
    )
    stored, asked = (head + f"mean=[{x}]\n" + "std=[1]" * 9 for x in ("0.5", "0.4"))

    with pytest.raises(IdentityMismatch) as caught:
        check_identity({"transform": stored}, {"transform": asked}, where="s.zarr")

    assert "mean=[0.5]" in str(caught.value)
    assert "mean=[0.4]" in str(caught.value)
    assert "\n" not in str(caught.value)
