"""One place of each kind."""

import uuid

import pytest

from embedkit.files.files import files_at


@pytest.fixture(params=["local", "memory", "s3"])
def files(request, tmp_path):
    """An empty place, by its public door."""
    if request.param == "s3":
        return files_at(request.getfixturevalue("s3_bucket"))
    if request.param == "memory":
        return files_at(f"memory://{uuid.uuid4().hex}")
    return files_at(tmp_path / "place")
