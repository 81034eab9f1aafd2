"""Connections: made once, and described by the environment."""

import uuid

import pytest

from embedkit.errors import InputError
from embedkit.files.connect import (
    memory,
    memory_above,
    opened,
    opened_http,
    readable,
    settings,
)


def test_a_store_is_opened_once_for_one_environment(s3_server, monkeypatch):
    """So that its connections stay open."""
    first = opened("s3://bucket")

    assert opened("s3://bucket") is first
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert opened("s3://bucket") is not first
    assert ("AWS_REGION", "eu-west-1") in settings()


def test_a_web_server_is_opened_once(monkeypatch):
    """Whatever the environment says of object stores."""
    first = opened_http("http://host")

    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert opened_http("http://host") is first
    with pytest.raises(InputError, match=r"cannot use 'http://a:b': .*check the URL"):
        opened_http("http://a:b")


def test_settings_are_those_of_object_stores(monkeypatch):
    """Sorted, so that they can be compared."""
    monkeypatch.setenv("GOOGLE_X", "2")
    monkeypatch.setenv("AZURE_X", "1")
    monkeypatch.setenv("OTHER", "3")

    found = settings()

    assert {("AZURE_X", "1"), ("GOOGLE_X", "2")} <= {*found}
    assert "OTHER" not in dict(found)
    assert [*found] == sorted(found)


def test_memory_above():
    """The longest name there is; none before something was written."""
    url = f"memory://{uuid.uuid4().hex}"
    assert memory_above(f"{url}/a") is None

    memory(url)
    memory(f"{url}/a/b")

    assert memory_above(f"{url}/a") == memory_above(url) == url
    assert memory_above(f"{url}/a/b/c") == memory_above(f"{url}/a/b") == f"{url}/a/b"


def test_other_errors_are_let_through():
    """Only what obstore raises is told anew."""
    with pytest.raises(ValueError, match=r"^mine$"), readable("read", "s3://b/a"):
        raise ValueError("mine")
    with pytest.raises(FileNotFoundError) as caught, readable("read", "s3://b/a"):
        raise FileNotFoundError("Object at location a not found")
    assert caught.value.filename == "s3://b/a"
