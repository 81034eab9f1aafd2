"""What only an object store has: endpoints that fail, lost answers, downloads."""

import errno
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import numpy as np
import obstore
import pytest
import zarr

from embedkit.errors import InputError
from embedkit.files import connect, remote
from embedkit.files.files import files_at
from embedkit.files.reasons import reason
from embedkit.files.remote import RemoteFiles

CALLS = {
    "read": lambda files: files.read("a"),
    "write": lambda files: files.write("a", b"1"),
    "create": lambda files: files.create("a", b"1"),
    "replace": lambda files: files.replace("a", b"1", b"2"),
    "delete": lambda files: files.delete("a"),
    "delete_tree": lambda files: files.delete_tree("a"),
    "names": lambda files: files.names(),
    "exists": lambda files: files.exists("a"),
    "nbytes": lambda files: files.nbytes(),
    "local_copy": lambda files: files.local_copy("a"),
}


@pytest.fixture
def files(s3_bucket):
    """An empty place in an S3 bucket."""
    return RemoteFiles(s3_bucket)


@pytest.fixture
def memory():
    """An empty place in memory."""
    return RemoteFiles(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def short(monkeypatch):
    """A place whose environment is the test's own, and patience to match."""
    connect._open.cache_clear()
    for name in ("CONNECT", "RETRY", "ANSWER"):
        monkeypatch.setattr(
            connect, name, getattr(connect, name) * 0 + connect.CONNECT / 3
        )
    yield monkeypatch
    connect._open.cache_clear()


class _Forgetful(BaseHTTPRequestHandler):
    """Passes requests on; of each `lost` method it answers 500 once, after it was done."""

    lost: set[str]
    behind: str

    def _pass_on(self):
        size = int(self.headers.get("Content-Length") or 0)
        request = urllib.request.Request(
            self.behind + self.path,
            data=self.rfile.read(size) if size else None,
            headers={"Content-Type": "application/octet-stream"} | dict(self.headers),
            method=self.command,
        )
        try:
            with urllib.request.urlopen(request) as answer:
                status, headers, body = answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                status, headers, body = error.code, error.headers, error.read()
        if self.command in self.lost:
            self.lost.discard(self.command)
            status, body = 500, b""
        self.send_response(status)
        for key, value in headers.items():
            if key.lower() not in {"content-length", "connection", "transfer-encoding"}:
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_GET = do_POST = _pass_on

    def log_message(self, *_):
        """Keep quiet."""


@pytest.fixture
def forgetful(s3_server, monkeypatch):
    """A server between us and S3 that loses the answer to one PUT once told to."""
    handler = type("Handler", (_Forgetful,), {"lost": set(), "behind": s3_server})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        yield handler.lost
        server.shutdown()


def test_a_create_whose_answer_was_lost_is_ours(forgetful, s3_bucket):
    """The repeated request finds its own object and knows it."""
    files = RemoteFiles(s3_bucket)
    forgetful.add("PUT")

    assert files.create("lock", b"mine") is True
    assert not forgetful
    assert files.create("lock", b"mine") is False
    assert files.read("lock") == b"mine"


def test_a_replacement_whose_answer_was_lost_is_ours(forgetful, s3_bucket):
    """Likewise, where the entity tag is no longer the one it had."""
    files = RemoteFiles(s3_bucket)
    files.write("lock", b"old")
    forgetful.add("PUT")

    assert files.replace("lock", b"old", b"new") is True
    assert not forgetful
    assert files.replace("lock", b"old", b"newer") is False
    assert files.read("lock") == b"new"


def test_a_winner_that_is_gone_is_not_ours(memory, monkeypatch):
    """Between the refusal and the question whose it is, the object may go."""

    def refuse(*_, **__):
        raise obstore.exceptions.AlreadyExistsError("Object already exists")

    monkeypatch.setattr("embedkit.files.remote.obstore.put", refuse)

    assert memory.create("lock", b"1") is False


def test_a_version_is_sent_back(memory, monkeypatch):
    """Stores that number versions compare those, so the number must come along."""
    memory.write("a", b"old")
    seen = []

    class Found:
        meta = {"e_tag": "tag", "version": "7"}  # noqa: RUF012

        def bytes(self):
            return b"old"

    monkeypatch.setattr("embedkit.files.remote.obstore.get", lambda *_: Found())
    monkeypatch.setattr(
        "embedkit.files.remote.obstore.put", lambda *_, **kw: seen.append(kw["mode"])
    )

    assert memory.replace("a", b"old", b"new") is True
    assert seen == [{"e_tag": "tag", "version": "7"}]


@pytest.mark.parametrize("call", CALLS)
def test_a_missing_bucket_is_told(files, call):
    """In one line, as another error than a missing file, by every method."""
    nowhere = RemoteFiles("s3://no-such-bucket/photos.zarr")

    with pytest.raises(
        OSError, match=r"cannot [\w ]+ it: .*bucket does not exist"
    ) as caught:
        CALLS[call](nowhere)

    assert not isinstance(caught.value, FileNotFoundError)
    assert caught.value.errno == errno.EIO
    assert "\n" not in str(caught.value)
    assert "s3://no-such-bucket/photos.zarr" in str(caught.value)


def test_no_permission_is_told(memory, monkeypatch):
    """As the error that Python has for it."""

    def refuse(*_, **__):
        raise obstore.exceptions.PermissionDeniedError(
            "<Code>AccessDenied</Code><Message>Access\n Denied</Message>"
        )

    monkeypatch.setattr("embedkit.files.remote.obstore.get", refuse)

    with pytest.raises(
        PermissionError, match=r"read it: Access Denied \(AccessDenied\)"
    ):
        memory.read("a")


@pytest.mark.slow
def test_a_dead_endpoint_is_told_soon(s3_server, monkeypatch):
    """With the constants as they are, a port where nobody listens takes about 10 s."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    files = files_at("s3://bucket/photos.zarr")
    start = time.monotonic()

    with pytest.raises(OSError, match="cannot read it: Connection refused"):
        files.read("a")

    assert time.monotonic() - start < 13


def test_an_unknown_host_is_told(short, s3_server):
    """By what the resolver said."""
    short.setenv("AWS_ENDPOINT_URL", "https://nobody.invalid")

    with pytest.raises(OSError, match=r"cannot write it: .*(lookup|resolve|name)"):
        files_at("s3://bucket/photos.zarr").write("a", b"1")


def test_a_silent_endpoint_is_told(short, s3_server):
    """One that takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        short.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")

        with pytest.raises(OSError, match="cannot list it: the server does not answer"):
            files_at("s3://bucket/photos.zarr").names()


def test_the_server_is_asked_again(forgetful, s3_bucket):
    """A single failure of the server is not told at all."""
    files = RemoteFiles(s3_bucket)
    files.write("a", b"1")
    forgetful.update({"PUT", "GET"})

    files.write("a", b"2")

    assert files.read("a") == b"2"
    assert not forgetful


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "PUT http://169.254.169.254/latest/api/token",
            "no credentials found: set the",
        ),
        ("GET 500 - oh\n  no\n\nDebug source:\nGeneric {}", "GET 500 - oh no"),
        ("x" * 400, "x" * 297 + "..."),
        (
            'Server returned non-2xx status code: 404 Not Found: <a message: "no">',
            "the server answers 404 Not Found",
        ),
        ('sent\n\nDebug source:\nOs { message: "Broken pipe" }', "Broken pipe"),
    ],
)
def test_reasons(text, expected):
    """One line each, of what matters."""
    assert reason(text).startswith(expected)
    assert len(reason(text)) <= 300
    assert "\n" not in reason(text)


def test_settings_that_obstore_refuses_are_told(monkeypatch):
    """When the place is named, not when it is used."""
    for name in [each for each in os.environ if each.startswith("AZURE_")]:
        monkeypatch.delenv(name)

    with pytest.raises(
        InputError, match=r"cannot use 'az://box/x': .*Account must be spec"
    ):
        files_at("az://box/x")


def test_plain_http_elsewhere_is_refused(s3_server, monkeypatch):
    """Before anything is sent."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio.example.org")

    with pytest.raises(InputError, match="in the clear"):
        files_at("s3://bucket/photos.zarr")


def test_a_place_below_a_place(files):
    """A longer prefix is a folder of the shorter one; a bucket needs no prefix."""
    files.write("a/b/c", b"1")

    below = RemoteFiles(f"{files.url}/a")
    bucket, _, prefix = files.url.removeprefix("s3://").partition("/")

    assert below.read("b/c") == b"1"
    assert RemoteFiles(f"s3://{bucket}").read(f"{prefix}/a/b/c") == b"1"
    keys = boto3.client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
    assert [each["Key"] for each in keys] == [f"{prefix}/a/b/c"]


def test_another_process_sees_the_same(files):
    """By the URL and the environment alone."""
    files.write("a", b"1")
    code = (
        "import sys\n"
        "from embedkit.files.files import files_at\n"
        "print(files_at(sys.argv[1]).create('a', b'2'), end='')"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, files.url],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "False"


@pytest.mark.parametrize("folder", ["", "a"])
def test_the_marker_of_a_folder_is_no_file(files, folder):
    """Web consoles put an empty object where they show a folder."""
    bucket, _, prefix = f"{files.url}/{folder}".removeprefix("s3://").partition("/")
    key = f"{prefix.rstrip('/')}/"
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=b"")

    empty = files.exists(folder)
    files.write(f"{folder}/b".lstrip("/"), b"1")
    names = files.names(folder)
    files.delete_tree(folder)  # ends, although a marker may stay

    assert not empty
    assert names == ["b"]
    assert not files.exists(folder)
    assert files.names(folder) == []


def test_names_in_memory_are_places_of_their_own():
    """One is what it was under its name, another is empty."""
    name = uuid.uuid4().hex

    files_at(f"memory://{name}").write("a", b"1")

    assert files_at(f"memory://{name}/").names() == ["a"]
    assert files_at(f"memory://{name}/a").names() == []


def test_threads_share_one_memory():
    """Even when they name it for the first time at once."""
    url = f"memory://{uuid.uuid4().hex}"
    threads = [
        threading.Thread(target=lambda i=i: RemoteFiles(url).write(str(i), b""))
        for i in range(8)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert RemoteFiles(url).names() == [str(i) for i in range(8)]


def test_a_download_in_pieces(files, monkeypatch):
    """Larger than one request, it is put together right, and nothing else stays."""
    monkeypatch.setattr(remote, "PIECE", 1000)
    data = os.urandom(4321)
    files.write("arrays/x.npy", data)

    path = files.local_copy("arrays/x.npy")

    assert path.read_bytes() == data
    assert [each.name for each in path.parent.iterdir()] == ["x.npy"]


def test_a_download_happens_once(files):
    """Names that are downloaded say their content, so a second look is not needed."""
    files.write("x", b"1")
    first = files.local_copy("x")
    files.delete("x")

    assert files.local_copy("x") == first
    assert first.read_bytes() == b"1"


def test_downloads_are_gone_at_exit(files):
    """With the process that made them, and not with a fork of it."""
    files.write("x", b"1")
    code = (
        "import os, sys\n"
        "from embedkit.files.files import files_at\n"
        "path = files_at(sys.argv[1]).local_copy('x')\n"
        "from embedkit.files.remote import _remove_downloads\n"
        "_remove_downloads(path.parent, os.getpid() + 1)\n"
        "print(path, path.exists(), end='')"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, files.url],
        capture_output=True,
        text=True,
        check=True,
    )

    path, existed = done.stdout.rsplit(" ", 1)
    assert existed == "True"
    assert not os.path.lexists(path)
    assert not os.path.lexists(os.path.dirname(os.path.dirname(path)))  # noqa: PTH120


def test_nothing_to_clean(files):
    """A killed writer leaves nothing that can be seen."""
    files.write("a", b"1")

    assert files.clean() == 0
    assert files.names() == ["a"]


@pytest.mark.filterwarnings("ignore:.*experimental:FutureWarning")
@pytest.mark.parametrize("kind", ["memory", "files"])
def test_zarr_opens_it(request, kind):
    """An array written by Zarr lies among the names."""
    files = request.getfixturevalue(kind)
    data = np.arange(12.0).reshape(3, 4)

    store = zarr.storage.ObjectStore(files.for_zarr())
    zarr.create_array(store, name="x", data=data, chunks=(2, 4))

    again = zarr.open_array(zarr.storage.ObjectStore(files.for_zarr()), path="x")
    assert np.array_equal(again[:], data)
    assert files.names("x") == ["c/0/0", "c/1/0", "zarr.json"]
