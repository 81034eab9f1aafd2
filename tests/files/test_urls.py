"""Which URLs and endpoints are usable."""

import pytest

from embedkit.errors import InputError
from embedkit.files.urls import SCHEMES, endpoint, known, normal, plain_http


@pytest.mark.parametrize("scheme", [*SCHEMES, "s3a", "abfss"])
def test_slashes_at_the_end_are_dropped(scheme):
    """With and without a prefix."""
    assert normal(f"{scheme}://bucket//") == f"{scheme}://bucket"
    assert normal(f"{scheme}://bucket/a b/ü/") == f"{scheme}://bucket/a b/ü"


@pytest.mark.parametrize("url", ["http://x/y", "file:///x", "://x", "S4://b/p"])
def test_unknown_schemes_are_told_with_the_known(url):
    """The message lists what can be given."""
    with pytest.raises(
        InputError, match="is not one of s3://, gs://, az://, abfs://, mem"
    ):
        normal(url)


@pytest.mark.parametrize("url", ["s3://", "s3:///prefix", "memory://", "memory:///"])
def test_no_bucket_is_told(url):
    """A slash too many, or nothing at all."""
    with pytest.raises(
        InputError, match=r"names no bucket: give it as \w+://bucket/pre"
    ):
        normal(url)


@pytest.mark.parametrize("url", ["s3://b/../c", "s3://b/a//c", "s3://b/./c"])
def test_prefixes_that_are_no_plain_paths(url):
    """An HTTP client would silently make another one of it."""
    with pytest.raises(InputError, match="is not a relative path of plain parts"):
        normal(url)


@pytest.mark.parametrize("letter", list("?#%"))
def test_letters_with_a_meaning(letter):
    """What follows them would be no part of the prefix."""
    with pytest.raises(
        InputError, match=f"'[{letter}]' has a meaning of its own in URLs"
    ):
        normal(f"s3://bucket/a{letter}20b")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, False),
        ({"AWS_ENDPOINT_URL": "https://minio.example.org"}, False),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"}, True),
        ({"AWS_ENDPOINT_URL_S3": "http://localhost:9000"}, True),
        ({"AWS_ENDPOINT": "http://[::1]:9000"}, True),
        ({"AWS_ENDPOINT_URL": "http://minio:9000", "AWS_ALLOW_HTTP": "true"}, True),
    ],
)
def test_plain_http_is_for_this_machine(settings, expected):
    """Or for those who ask for it."""
    assert plain_http(settings) is expected


@pytest.mark.parametrize("host", ["minio:9000", "10.0.0.1", "localhost.example.org"])
@pytest.mark.parametrize("allowed", ["", "false"])
def test_plain_http_elsewhere_is_refused(host, allowed):
    """Secrets and data would travel in the clear."""
    settings = {"AWS_ENDPOINT_URL": f"http://{host}", "AWS_ALLOW_HTTP": allowed}

    with pytest.raises(
        InputError, match="in the clear: give an https:// one, or set AWS_A"
    ):
        plain_http(settings)


@pytest.mark.parametrize(
    ("root", "settings", "expected"),
    [
        ("s3://b", {}, "s3://b"),
        ("s3://b", {"AWS_ENDPOINT": "http://a"}, "http://a"),
        ("s3a://b", {"AWS_ENDPOINT": "x", "AWS_ENDPOINT_URL_S3": "y"}, "y"),
        ("s3://b", {"AWS_ENDPOINT_URL": ""}, "s3://b"),
        ("gs://b", {"AWS_ENDPOINT": "http://a"}, "gs://b"),
    ],
)
def test_the_server_that_is_asked(root, settings, expected):
    """For S3 what is set for it, the most special first."""
    assert endpoint(root, settings) == expected


def test_schemes_that_are_known():
    """Those of object stores, under all their names."""
    assert all(map(known, [*SCHEMES, "s3a", "abfss"]))
    assert not any(map(known, ["http", "https", "file", "", "S3"]))
