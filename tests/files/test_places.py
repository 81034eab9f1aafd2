"""Which server a URL means, and which name there."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.errors import InputError
from embedkit.files.places import host_of, is_http, place_of

NAMES = st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"))
    .map(lambda part: part or "x")
    .filter(lambda part: part not in {".", ".."}),
    min_size=1,
    max_size=3,
).map("/".join)


@given(NAMES)
def test_names_of_objects_are_taken_as_they_are(name):
    """Nothing in them is an escape, a query or a fragment."""
    assert place_of(f"s3://bucket/{name}") == ("s3://bucket", name)


@given(NAMES)
def test_web_addresses_are_unescaped(name):
    """A file is asked for by its name where escaping gives the address again."""
    plain = quote(name, safe="/!$&'()*+,;=:@~")

    assert place_of(f"https://host/{plain}") == ("https://host", name)


@pytest.mark.parametrize(
    "url",
    [
        "http://host",
        "http://host/",
        "http://host/a/",
        "http://host/a//b.jpg",
        "http://host/a/../b.jpg",
        "http://host/a%2Fb.jpg",
        "http://host/a%2fb.jpg",
        "http://host/a%2Bb.jpg",
        "http://host/a%0Ab.jpg",
        "http://host/%ff.jpg",
        "http://host/?b=c",
        "http://host?b=c",
        "http://host/a/?b=c",
        "http://host/a?",
    ],
)
def test_other_web_addresses_are_asked_for_whole(url):
    """So that the server is sent just what was given."""
    assert place_of(url) == (url, "")


def test_files_with_one_query_share_a_connection():
    """The client puts the query behind each name."""
    assert place_of("http://host/a.jpg?b=c/d") == ("http://host/?b=c/d", "a.jpg")


@pytest.mark.parametrize("path", ["a b/ü.jpg", "a%20b/%C3%BC.jpg"])
def test_signs_that_no_address_has_are_escaped(path):
    """As browsers do it."""
    assert place_of(f"http://host:80/{path}") == ("http://host:80", "a b/ü.jpg")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (
            "ftp://host/a.jpg",
            r"ftp:// is not one of s3://, gs://, .*http://, https://; ",
        ),
        ("file:///a.jpg", "file:// is not one of"),
        ("s3://", "names no bucket"),
        ("s3:///a.jpg", "names no bucket"),
        ("s3://b%/a.jpg", "has a meaning of its own in URLs"),
        ("s3://bucket/a/../b.jpg", "is not a relative path of plain parts"),
        ("s3://bucket/a//b.jpg", "is not a relative path of plain parts"),
        ("s3://bucket/a\nb.jpg", "control character in it; rename the object"),
        ("https://", "names no host: give it as https://host/a.jpg"),
        ("https:///a.jpg", "names no host"),
        ("https://[::1/a.jpg", r"cannot use 'https://\[::1/a.jpg': Invalid IPv6"),
        ("https://host/a.jpg#b", "is not sent to the server; write %23"),
    ],
)
def test_urls_that_cannot_be_used(url, reason):
    """In one line."""
    with pytest.raises(InputError, match=reason):
        place_of(url)


def test_passwords_are_refused_and_not_told():
    """A store remembers where its images are."""
    with pytest.raises(InputError, match="holds a password, which would") as caught:
        place_of("https://me:secret@host/a.jpg")

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://h:1/a?b", "http://h:1"),
        ("http://h?b/c", "http://h"),
        ("s3://b", "s3://b"),
        ("s3://b/a#1", "s3://b"),
    ],
)
def test_hosts(url, host):
    """Scheme and host or bucket."""
    assert host_of(url) == host
    assert is_http(url) is url.startswith("http")
