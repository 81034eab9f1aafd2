"""Tests of what a file system says of files: sizes and times, in one question."""

from __future__ import annotations

import io
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.images.open import open_images
from embedkit.images.paths import Stamp, stamp_of

# 2021-09-13T12:26:40.123456789Z, and a time before 1970.
TIMES = {"a.png": 1_631_536_000_123_456_789, "b.png": -86_400_000_000_001}


@pytest.fixture
def timed(tmp_path: Path, touch) -> list[Path]:
    """Return a missing file and two files that were last modified at `TIMES`."""
    files = touch(*TIMES)
    for file in files:
        os.utime(file, ns=(0, TIMES[file.name]))
    if [file.stat().st_mtime_ns for file in files] != [*TIMES.values()]:
        pytest.skip("this file system does not keep nanoseconds, or years before 1970")
    return [tmp_path / "none.png", *files]


@pytest.mark.parametrize("form", ["list", "frame", "csv", "folder", "glob"])
def test_every_form_knows_times(tmp_path: Path, timed: list[Path], form: str) -> None:
    """Folders, globs, lists and tables say when each file was modified."""
    frame = pd.DataFrame({"path": [str(file) for file in timed]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    source = {
        "list": timed,
        "frame": frame,
        "csv": tmp_path / "t.csv",
        "folder": tmp_path,
        "glob": f"{tmp_path}/*.png",
    }[form]
    images = open_images(source)
    expected = {name: TIMES.get(name, -1) for name in images.table.index}
    assert len(expected) == (2 if form in ("folder", "glob") else 3)
    assert images.mtimes.dtype == np.int64
    assert images.mtimes.tolist() == [*expected.values()]
    assert images.mtimes.flags.c_contiguous


def test_a_dangling_link_has_no_time(tmp_path: Path, touch) -> None:
    """A link in a folder that leads nowhere is a row of unknown size and time."""
    touch("a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    images = open_images(tmp_path)
    assert images.mtimes[0] > 0
    assert (images.sizes[1], images.mtimes[1]) == (-1, -1)


def test_arrays_have_no_time() -> None:
    """Nobody modified the rows of an array."""
    assert open_images(np.zeros((2, 3, 3, 3), np.uint8)).mtimes.tolist() == [-1, -1]


@pytest.mark.parametrize("name", ["none.png", "a\0b.png", "x" * 300])
def test_no_file_no_stamp(tmp_path: Path, name: str) -> None:
    """What cannot be asked is unknown, whatever the reason."""
    assert stamp_of(tmp_path / name) == Stamp(size=-1, mtime=-1)


@given(st.integers(0, 2**63), st.integers(-(2**70), 2**70))
def test_times_fit_64_bits_or_are_unknown(size: int, mtime: int) -> None:
    """A time in a year that 64 bits do not reach is unknown; the others are kept."""

    class File:
        def stat(self) -> SimpleNamespace:
            return SimpleNamespace(st_size=size, st_mtime_ns=mtime)

    kept = mtime if abs(mtime) < 2**63 else -1
    assert stamp_of(File()) == (size, kept)
    np.array([stamp_of(File()).mtime], np.int64)


@pytest.mark.parametrize("form", ["list", "frame", "folder"])
def test_a_file_is_asked_once(
    tmp_path: Path, touch, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """Size and time come from one question to the file system, and no file is opened."""
    files = touch("1.png", "2.png", "3.png")
    sources = {"list": files, "frame": pd.DataFrame({"path": files})}
    asked: list[str] = []
    ask = Path.stat

    def stat(self: Path, **options: bool) -> os.stat_result:
        asked.append(self.name)
        return ask(self, **options)

    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(io, "open", lambda *_, **__: pytest.fail("opened"))
    monkeypatch.setattr(io, "FileIO", lambda *_, **__: pytest.fail("opened"))
    images = open_images(sources.get(form, tmp_path))
    assert (images.mtimes > 0).all()
    once = [] if form == "folder" else ["1.png", "2.png", "3.png"]  # listing tells it
    assert sorted(name for name in asked if name.endswith(".png")) == once
