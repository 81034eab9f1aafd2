"""Fixtures for the tests of images: real files, and the shared data."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedkit.files.files import Files, files_at
from embedkit.images.imageset import ImageSet

_SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Return a folder of the shared data by name, or skip with the reason."""

    def folder(name: str) -> Path:
        found = Path(os.environ.get("EMBEDKIT_SHARED_DATA", _SHARED)) / name
        if not found.is_dir():
            pytest.skip(f"shared data {name} is not at {found}")
        return found

    return folder


@pytest.fixture
def pixels() -> np.ndarray:
    """Return 12 x 10 random RGB pixels."""
    return np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)


@pytest.fixture
def touch(tmp_path: Path) -> Callable[..., list[Path]]:
    """Write a tiny PNG at each of some paths below `tmp_path`."""

    def write(*names: str) -> list[Path]:
        files = [tmp_path / name for name in names]
        for shade, file in enumerate(files):
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 3), (shade, 0, 0)).save(file, format="PNG")
        return files

    return write


@pytest.fixture
def spool(tmp_path: Path) -> Files:
    """Return a place for spooled pixels that does not exist yet."""
    return files_at(tmp_path / "new" / "spool")


@pytest.fixture
def same() -> Callable[[ImageSet, ImageSet], bool]:
    """Return whether two sets hold the same images: ids, sizes, times and contents."""

    def compare(one: ImageSet, other: ImageSet) -> bool:
        if one.table.index.tolist() != other.table.index.tolist():
            return False
        rows = np.arange(len(one))
        return (
            one.sizes.tolist() == other.sizes.tolist()
            and one.mtimes.tolist() == other.mtimes.tolist()
            and one.contents(rows).tolist() == other.contents(rows).tolist()
        )

    return compare
