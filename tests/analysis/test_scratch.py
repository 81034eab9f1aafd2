"""A kept scratch folder: taken over on any cluster, used by one run at a time."""

from __future__ import annotations

import fcntl
import logging
import signal
import subprocess
import sys

import dask
import numpy as np
import pytest
import xarray as xr

from embedkit.analysis.exact import knn as exact_knn
from embedkit.analysis.exact import tile_tasks
from embedkit.analysis.exact.scratch import alone_in, scratch_folder
from embedkit.analysis.neighbors import neighbors
from embedkit.errors import InputError, PlanError
from embedkit.planning import neighbors as planning

HOLD = """
import sys, time
from pathlib import Path
from embedkit.analysis.exact.scratch import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def images(as_images):
    """Two thousand rows: one tile of the default size, or eight small ones."""
    rows = np.random.default_rng(0).normal(size=(2000, 8)).astype(np.float32)
    return as_images(rows)


def stop(*_args: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def interrupted(images, monkeypatch, tmp_path):
    """A scratch folder in which all products of small tiles are done, nothing more."""
    with monkeypatch.context() as patched, dask.config.set(scheduler="sync"):
        patched.setattr(planning, "LARGEST_TILE", 256)
        patched.setattr(exact_knn, "finish_band", stop)
        with pytest.raises(KeyboardInterrupt):
            neighbors(images, scratch=tmp_path)
    return tmp_path


def test_another_cluster_goes_on_in_the_tiles_it_finds(
    images, interrupted, monkeypatch
) -> None:
    """More workers and more memory choose other tiles, and would have begun anew."""
    expected = neighbors(images)
    with monkeypatch.context() as patched, dask.config.set(num_workers=7):
        patched.setattr(tile_tasks, "_pairs", stop)
        found = neighbors(images, scratch=interrupted)

    assert expected.attrs["tile_rows"] == 2048
    assert found.attrs["tile_rows"] == 256
    for name in ("indices", "distances"):
        assert found[name].values.tobytes() == expected[name].values.tobytes()
    assert len([*interrupted.glob("neighbors-*")]) == 1


def test_tiles_that_do_not_fit_any_more_are_told(images, tmp_path) -> None:
    """With both ways out; the files stay."""
    least = neighbors(images, plan_only=True)
    kept = neighbors(images, scratch=tmp_path)
    limit = least.projected_mem - 1

    with pytest.raises(
        PlanError,
        match=r"as begun with tiles of 2048 rows, take .*: delete the scratch folder, or",
    ):
        neighbors(images, scratch=tmp_path, memory_limit=limit)

    assert neighbors(images, memory_limit=limit).attrs["tile_rows"] < 2048
    xr.testing.assert_identical(neighbors(images, scratch=tmp_path), kept)


def test_a_damaged_layout_is_told(images, tmp_path) -> None:
    """Nobody knows what the other files mean then."""
    neighbors(images, scratch=tmp_path)
    (path,) = tmp_path.glob("neighbors-*/layout.json")

    for text in ("{", '{"tile": 3}', "[]"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"cannot read .*layout.json .*: delete"):
            neighbors(images, scratch=tmp_path)


def test_two_runs_at_once_are_kept_apart(images, tmp_path) -> None:
    """The second one is told who the first is; afterwards it may."""
    neighbors(images, scratch=tmp_path)
    (folder,) = tmp_path.glob("neighbors-*")

    with (
        alone_in(folder),
        pytest.raises(
            InputError, match=r"in use by process \d+ on .* since .*: wait for it"
        ),
    ):
        neighbors(images, scratch=tmp_path)

    neighbors(images, scratch=tmp_path, n_neighbors=3)  # another search, at any time
    neighbors(images, scratch=tmp_path)


def test_a_dead_process_holds_nothing(tmp_path) -> None:
    """However it died."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"  # type: ignore[union-attr]
        with (
            pytest.raises(InputError, match=f"in use by process {process.pid} on"),
            alone_in(tmp_path),
        ):
            raise AssertionError("taken twice")
        process.send_signal(signal.SIGKILL)

    with alone_in(tmp_path):
        assert str(process.pid) not in (tmp_path / "lock").read_text()


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, caplog) -> None:
    """The search goes on all the same."""

    def unsupported(*_args: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with caplog.at_level(logging.WARNING), alone_in(tmp_path):
        pass

    assert "no lock on" in caplog.text


def test_a_folder_of_its_own_is_removed(tmp_path) -> None:
    """Another one stays as it is."""
    with scratch_folder(None) as own:
        assert own.is_dir()
    with scratch_folder(tmp_path / "new") as given:
        assert given == tmp_path / "new"

    assert not own.exists()
    assert tmp_path.exists()
