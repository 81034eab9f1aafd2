"""What all tests share: where the real data lie."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


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
