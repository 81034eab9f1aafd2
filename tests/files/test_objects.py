"""Single files at URLs: fetched, looked at, listed; servers that are away."""

import time
import uuid
from http.server import SimpleHTTPRequestHandler

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedkit.errors import InputError
from embedkit.files import connect, objects
from embedkit.files.files import files_at
from embedkit.files.objects import Found, find_object, list_objects, read_object

NAMES = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/")
    | st.sampled_from(" #?%+&*[]é"),
    min_size=1,
    max_size=20,
).filter(lambda name: name not in {".", ".."})


@pytest.fixture
def dead(monkeypatch):
    """The URL of a server that is not there, and patience to match."""
    connect.opened_http.cache_clear()
    connect._open.cache_clear()
    objects._dead.clear()
    monkeypatch.setattr(connect, "CONNECT", connect.CONNECT / 3)
    monkeypatch.setattr(connect, "RETRY", connect.RETRY / 10)
    yield "http://127.0.0.1:9"
    connect.opened_http.cache_clear()
    connect._open.cache_clear()
    objects._dead.clear()


@pytest.fixture(params=["memory", "s3"])
def place(request):
    """The URL of an empty place."""
    if request.param == "s3":
        return request.getfixturevalue("s3_bucket")
    return f"memory://{uuid.uuid4().hex}"


def test_an_object_is_read_found_and_listed(place):
    """What one says the others say too, but for fractions of seconds."""
    before = time.time_ns()
    files_at(place).write("a/b.jpg", b"123")

    (listed,) = list_objects(place)
    one = find_object(f"{place}/a/b.jpg")

    assert read_object(f"{place}/a/b.jpg") == b"123"
    assert listed[:2] == one[:2] == (f"{place}/a/b.jpg", 3)
    assert before - 2e9 < listed.mtime < time.time_ns() + 2e9
    assert abs(listed.mtime - one.mtime) < 1e9
    assert isinstance(one, Found)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(name=NAMES)
def test_odd_names_come_back(s3_server, name):
    """What is listed can be read, whatever signs are in it."""
    place = f"s3://embedkit-tests/{uuid.uuid4().hex}"
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    boto3.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=b"1")

    (found,) = list_objects(place)

    assert found.url == f"{place}/{name}"
    assert read_object(found.url) == b"1"
    assert find_object(found.url) is not None


def test_listing_has_an_end(place):
    """More than was asked for is not listed to the end."""
    for i in range(3):
        files_at(place).write(f"a/{i}", b"")

    assert len(list_objects(place, at_most=3)) == 3
    assert list_objects(place, at_most=2) is None


def test_markers_and_machinery_are_not_listed(s3_bucket):
    """Web consoles put an empty object where they show a folder."""
    files_at(s3_bucket).write("a", b"")
    files_at(s3_bucket).write(".x.guard", b"")
    bucket, _, prefix = s3_bucket.removeprefix("s3://").partition("/")
    boto3.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/", Body=b"")

    assert [each.url for each in list_objects(f"{s3_bucket}/")] == [f"{s3_bucket}/a"]


def test_what_is_missing(place):
    """An object, and a prefix."""
    files_at(place).write("a", b"")

    with pytest.raises(FileNotFoundError, match="no such file"):
        read_object(f"{place}/b")
    assert find_object(f"{place}/b") is None
    assert list_objects(f"{place}/b") == []


def test_a_missing_bucket_is_told(s3_server):
    """It is no empty place."""
    with pytest.raises(OSError, match=r"cannot list it: .*bucket does not exist"):
        list_objects("s3://no-such-bucket/a")
    with pytest.raises(OSError, match=r"cannot fetch it: .*bucket does not exist"):
        read_object("s3://no-such-bucket/a")


def test_memory_that_nothing_was_written_to_is_told():
    """Most likely by another process."""
    with pytest.raises(OSError, match="nothing was written to this memory:// by this"):
        read_object(f"memory://{uuid.uuid4().hex}/a.jpg")


def test_memory_of_a_longer_name():
    """The longest name that was written to is meant."""
    name = uuid.uuid4().hex
    files_at(f"memory://{name}").write("a/1", b"short")
    files_at(f"memory://{name}/a").write("1", b"long")

    assert read_object(f"memory://{name}/a/1") == b"long"
    assert find_object(f"memory://{name}/a/1").url == f"memory://{name}/a/1"
    assert [each.url for each in list_objects(f"memory://{name}/a")] == [
        f"memory://{name}/a/1"
    ]


@pytest.mark.parametrize(
    ("file", "address"),
    [
        ("a.jpg", "a.jpg"),
        ("a.jpg", "a.jpg?size=large&of=a/b"),
        ("a b.jpg", "a%20b.jpg"),
        ("a b.jpg", "a b.jpg"),
        ("a+b.jpg", "a%2Bb.jpg"),
        ("ü/ö#%.jpg", "%C3%BC/%c3%b6%23%25.jpg"),
        ("ü/ö.jpg", "ü/ö.jpg"),
        ("b.jpg", "a/../b.jpg"),
    ],
)
def test_a_web_server_is_asked_for_what_was_given(web, file, address):
    """Escapes and queries reach it."""
    folder, url = web
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(b"12")

    assert read_object(f"{url}/{address}") == b"12"


@pytest.mark.parametrize(
    "address",
    ["/a%20b.jpg?c=d%20e&f=/g", "/a/?b", "?b=c", "/a//b?c", "/a%2Fb?c#", "/?b"],
)
def test_a_query_is_sent_as_it_is(web, monkeypatch, address):
    """Behind the path that was given."""
    asked = []
    monkeypatch.setattr(
        SimpleHTTPRequestHandler,
        "send_head",
        lambda self: asked.append(self.path) or self.send_error(404),
    )

    with pytest.raises(FileNotFoundError, match="no such file"):
        read_object(f"{web[1]}{address}")

    assert asked == [f"/{address.lstrip('/').rstrip('#')}"]


def test_web_servers_cannot_be_listed(web):
    """Nor is it tried."""
    with pytest.raises(InputError, match="is on a web server, which cannot list"):
        list_objects(f"{web[1]}/a")


def test_a_missing_file_on_a_web_server(web):
    """As anywhere else."""
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_object(f"{web[1]}/a.jpg")


def test_what_is_no_address_is_told():
    """By the client, in one line."""
    with pytest.raises(
        InputError, match=r"cannot use 'http://host:port': .*check the U"
    ):
        read_object("http://host:port/a.jpg")


@pytest.mark.parametrize("kind", ["s3", "web"])
def test_too_large_is_not_downloaded(request, kind, web):
    """Its size is known from the head of the answer."""
    if kind == "s3":
        url = request.getfixturevalue("s3_bucket")
        files_at(url).write("a", b"123")
    else:
        (web[0] / "a").write_bytes(b"123")
        url = web[1]

    with pytest.raises(OSError, match="it has 3 bytes, and at most 2 are taken"):
        read_object(f"{url}/a", limit=2)
    assert read_object(f"{url}/a", limit=3) == b"123"


def test_a_dead_server_is_found_out_once(dead):
    """All other files on it fail at once, with the same reason."""
    with pytest.raises(OSError, match=f"cannot connect to {dead}: Connection refused"):
        read_object(f"{dead}/a.jpg")
    start = time.monotonic()

    for i in range(1000):
        with pytest.raises(OSError, match=r"cannot connect to .*: Connection refused"):
            read_object(f"{dead}/{i}.jpg?x")

    assert time.monotonic() - start < 1


def test_a_dead_server_is_tried_again(dead, monkeypatch):
    """After a while."""
    with pytest.raises(OSError, match="Connection refused"):
        read_object(f"{dead}/a.jpg")
    later = time.monotonic() + objects.REMEMBERED
    monkeypatch.setattr(objects.time, "monotonic", lambda: later)
    asked = []
    monkeypatch.setattr(
        objects.obstore, "get", lambda *_: asked.append(1) or _answer(b"1")
    )

    assert read_object(f"{dead}/a.jpg") == b"1"
    assert asked == [1]


def test_an_unknown_host_is_told(dead):
    """By what the resolver said."""
    with pytest.raises(
        OSError,
        match=r"cannot connect to http://nobody\.invalid: .*(lookup|resolve|name)",
    ):
        read_object("http://nobody.invalid/a.jpg")


def test_the_endpoint_of_a_bucket_is_named(dead, s3_server, monkeypatch):
    """And another endpoint is another server."""
    with monkeypatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", dead)
        for call in (list_objects, find_object, read_object):
            with pytest.raises(OSError, match=f"cannot connect to {dead}: Connection"):
                call("s3://embedkit-tests/a")

    assert find_object("s3://embedkit-tests/no-such-file") is None


@pytest.mark.slow
def test_a_dead_endpoint_is_told_soon(s3_server, monkeypatch):
    """With the constants as they are, a port where nobody listens takes about 10 s."""
    objects._dead.clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    start = time.monotonic()

    with pytest.raises(OSError, match=r"cannot connect to http://127.0.0.1:9"):
        list_objects("s3://bucket/photos")

    assert time.monotonic() - start < 13
    objects._dead.clear()


def test_what_a_server_refuses_is_no_dead_server(s3_server):
    """The others on it are asked for."""
    for _ in range(2):
        with pytest.raises(OSError, match="bucket does not exist"):
            read_object("s3://no-such-bucket/a")

    assert not objects._dead


def _answer(data):
    class Answer:
        meta = {"size": len(data)}  # noqa: RUF012

        def bytes(self):
            return data

    return Answer()
