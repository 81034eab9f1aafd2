"""What all tests share: where the real data lie, an object store, and an order in which
several processes run them."""

import ctypes
import gc
import logging
import os
import threading
import uuid
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
from hypothesis import HealthCheck, settings
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

ROOT = Path(__file__).parent.parent
BUCKET = "embedkit-tests"
CHAOS = "tests/chaos/"

# A machine that does other things as well makes no example wrong.
settings.register_profile(
    "patient",
    parent=settings.default,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("patient")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With ``-n``, the tests of a file stay in one process, which sets up once for all;
    so do all files of chaos, which count their kills together."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return _together(nodeid)

    config.option.loadscopereorder = False  # ours counts what takes long, not tests
    return ByFile(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """What takes long goes first: else one process ends with it and the others wait."""
    if not hasattr(config, "workerinput"):
        return
    slow = Counter(_together(x.nodeid) for x in items if x.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[_together(item.nodeid)])


def pytest_collection_finish():
    """What was imported stays: looking for garbage need not look at it each time."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish():
    """Libraries complain at the very end of what is still there."""
    gc.unfreeze()


@pytest.fixture(scope="module", autouse=True)
def _memory_goes_back():
    """Networks refer to themselves and wait for Python to notice; and the C library keeps
    what they had. Over the suite that comes to several GB."""
    yield
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc's
        trim(0)


def _together(nodeid):
    """Return what a test shares with those that run in the same process."""
    file = nodeid.partition("::")[0]
    return CHAOS if file.startswith(CHAOS) else file


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk():
    """Files of tests need not outlive a power cut, and bringing each to the disk takes
    long. Processes that tests start, and benchmarks that count, do wait."""
    with pytest.MonkeyPatch.context() as patch:
        if os.environ.get("EMBEDKIT_BENCH") != "1":
            patch.setattr("os.fsync", lambda file: os.fstat(file) and None)
        yield


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
    app = _one_at_a_time(DomainDispatcherApplication(create_backend_app))
    server = make_server(
        "127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    host, port = server.server_address
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
    server.shutdown()
    thread.join()
    server.server_close()


def _one_at_a_time(app):
    """A real object store decides and writes in one step; moto's only looks like it."""
    lock = threading.Lock()

    def answer(environ, start_response):
        with lock:
            return app(environ, start_response)

    return answer


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
