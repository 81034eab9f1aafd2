"""What all tests share: where the real data lie, and an object store."""

import logging
import os
import threading
import uuid
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

ROOT = Path(__file__).parent.parent
BUCKET = "embedkit-tests"


@pytest.fixture(scope="session")
def root():
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real images and weights; tests that need it skip without it."""
    default = ROOT.parent / "shared" / "data"
    folder = Path(os.environ.get("EMBEDKIT_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}: set EMBEDKIT_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def s3_server():
    """An S3 server on this machine, as the environment tells every child process."""
    logging.getLogger("werkzeug").setLevel(
        logging.ERROR
    )  # one line a request otherwise
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in [each for each in os.environ if each.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_bucket(s3_server):
    """The URL of a place in the object store that no other test has."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


class _Web(SimpleHTTPRequestHandler):
    """A folder as a web server shows it, on connections that stay open."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        """Keep quiet."""


@pytest.fixture
def web(tmp_path):
    """A folder, and the URL under which a server on this machine shows it."""
    folder = tmp_path / "web"
    folder.mkdir()
    handler = partial(_Web, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
