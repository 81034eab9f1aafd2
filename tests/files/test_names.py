"""What the names of files look like."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.files.names import checked, is_hidden, is_partial

HEX = "0123456789abcdef" * 2


@pytest.mark.parametrize("name", ["a", "a/b.json", ".hidden", "a b/c..d", "...", "~"])
def test_plain_names_pass(name):
    """They come back as they are."""
    assert checked(name) == checked(name, empty=True) == name


@pytest.mark.parametrize(
    "name", ["/a", "a/", "a//b", "..", "../a", "a/..", ".", "\0", "/"]
)
def test_others_do_not(name):
    """Neither for files nor for folders."""
    for empty in (False, True):
        with pytest.raises(
            ValueError, match=r"relative path.*give one like 'a/b\.json'"
        ):
            checked(name, empty=empty)


@given(parts=st.lists(st.sampled_from(["a", "b.c", "..", ".", ""]), min_size=1))
def test_what_passes_stays_below(parts):
    """Joined to a place, a name that passes has that place as its beginning."""
    name = "/".join(parts)
    try:
        checked(name)
    except ValueError:
        assert set(parts) & {"..", ".", ""}
    else:
        assert not set(parts) & {"..", ".", ""}


def test_the_place_itself_only_where_allowed():
    """As a folder."""
    assert checked("", empty=True) == ""
    with pytest.raises(ValueError, match="name '' is not"):
        checked("")


@pytest.mark.parametrize(
    ("part", "partial"),
    [
        (f".record.json.{HEX}.partial", True),
        (f".umap.{HEX}.partial.old.partial", True),
        (f"zarr.{HEX}.partial", True),
        (f"0.{HEX}.partial", True),
        ("my.partial", False),
        ("zarr.abc.partial", False),
        (f"{HEX}.json", False),
        (f".x.{HEX}.partially", False),
    ],
)
def test_temporary_names(part, partial):
    """Ours begin with a dot; Zarr's hold 32 digits; a user's own name does neither."""
    assert is_partial(part) is is_hidden(part) is partial


def test_guards_are_hidden_but_not_unfinished():
    """They stay when one cleans up."""
    assert is_hidden(".lock.json.guard")
    assert not is_partial(".lock.json.guard")
    assert not is_hidden("lock.guard")
