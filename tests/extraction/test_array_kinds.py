"""Tests of extraction from arrays in files, and from lazy ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import h5py
import numpy as np
import pytest
import xarray as xr
import zarr

import embedkit as ek
from embedkit.errors import InputError
from embedkit.extraction.block import task

_N = 12
_CHUNKS = (5, 8, 16, 3)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Twelve images of noise."""
    return np.random.default_rng(5).integers(0, 256, (_N, 16, 16, 3), np.uint8)


def _npy(folder: Path, pixels: np.ndarray) -> Path:
    np.save(folder / "a.npy", pixels)
    return folder / "a.npy"


def _hdf5(folder: Path, pixels: np.ndarray) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("photos", data=pixels, chunks=_CHUNKS, compression="gzip")
    return folder / "a.h5"


def _zarr(folder: Path, pixels: np.ndarray) -> Path:
    zarr.create_array(folder / "a.zarr", data=pixels, chunks=_CHUNKS)
    return folder / "a.zarr"


def _dask(_: Path, pixels: np.ndarray) -> Any:
    return da.from_array(255 - pixels, chunks=_CHUNKS).map_blocks(lambda x: 255 - x)


def _xarray(folder: Path, pixels: np.ndarray) -> Any:
    return xr.DataArray(_dask(folder, pixels), dims=("image", "y", "x", "channel"))


_FILES: dict[str, Callable[[Path, np.ndarray], Any]] = {
    "npy": _npy,
    "hdf5": _hdf5,
    "zarr": _zarr,
}
_LAZY = {"dask": _dask, "xarray": _xarray}


def _hashes(store: Any) -> dict[str, str]:
    """Hash every file of every layer and of the content hashes, by relative path."""
    root = store.path
    files = [file for file in sorted(root.rglob("c.*")) if file.is_file()]
    inside = {file.relative_to(root).as_posix(): file for file in files}
    return {
        name: hashlib.sha256(file.read_bytes()).hexdigest()
        for name, file in inside.items()
        if name.startswith("layers/") or "content" in name
    }


@pytest.fixture(scope="module")
def expected(pixels: np.ndarray, tmp_path_factory: Any) -> dict[str, str]:
    """What the store of an array in memory holds."""
    with dask.config.set(scheduler="synchronous"):
        path = tmp_path_factory.mktemp("array") / "store"
        found = _hashes(ek.extract(pixels, "embedkit/digits", path))
    assert any("content" in name for name in found)
    return found


@pytest.mark.parametrize("kind", [*_FILES, *_LAZY])
def test_every_kind_gives_the_bytes_of_the_array(
    kind: str,
    pixels: np.ndarray,
    expected: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Layers and content hashes are the same to the byte, and once is enough."""
    given = {**_FILES, **_LAZY}[kind](tmp_path, pixels)
    computed: list[int] = []
    true = task.extract_block

    def counted(job: Any, block: int, **options: Any) -> Any:
        computed.append(block)
        return true(job, block, **options)

    monkeypatch.setattr(task, "extract_block", counted)
    with dask.config.set(scheduler="synchronous"):
        store = ek.extract(given, "embedkit/digits", tmp_path / "store")
        assert computed == [0]
        ek.extract(given, "embedkit/digits", tmp_path / "store")
    assert computed == [0]
    assert _hashes(store) == expected
    assert not list(store.path.rglob("pixels-*"))


@pytest.mark.parametrize("kind", [*_FILES, *_LAZY])
def test_a_damaged_block_is_repaired(
    kind: str, pixels: np.ndarray, expected: dict[str, str], tmp_path: Path
) -> None:
    """Arrays in files are found again by the store alone; lazy ones are given again."""
    given = {**_FILES, **_LAZY}[kind](tmp_path, pixels)
    with dask.config.set(scheduler="synchronous"):
        store = ek.extract(given, "embedkit/digits", tmp_path / "store")
        assert ek.verify(store.path, images=ek.open_images(given)).ok
        layer = next(iter(store))
        (file,) = (store.path / "layers" / layer / "activation").glob("c.0.*")
        file.write_bytes(file.read_bytes()[:-9])
        if kind in _LAZY:
            with pytest.raises(InputError, match="array or a dataset, whose pixels"):
                ek.verify(store.path, repair=True)
            report = ek.verify(store.path, repair=True, images=ek.open_images(given))
        else:
            report = ek.verify(store.path, repair=True)
    assert report.repaired == 1
    assert _hashes(store) == expected


@pytest.mark.parametrize("kind", _FILES)
def test_a_changed_row_is_computed_again(
    kind: str, pixels: np.ndarray, tmp_path: Path
) -> None:
    """An array that was written again is followed, although its chunks are held."""
    other = pixels.copy()
    other[4] = 255 - other[4]
    with dask.config.set(scheduler="synchronous"):
        given = _FILES[kind](tmp_path, pixels)
        store = ek.extract(given, "embedkit/digits", tmp_path / "store")
        if kind == "zarr":
            zarr.open_array(given, mode="r+")[4] = other[4]
        else:
            _FILES[kind](tmp_path, other)
        ek.extract(given, "embedkit/digits", tmp_path / "store", update=True)
        truth = ek.extract(other, "embedkit/digits", tmp_path / "truth")
    for layer in truth:
        np.testing.assert_array_equal(store[layer].values, truth[layer].values)


@pytest.mark.slow
def test_worker_processes_read_arrays_and_datasets(
    pixels: np.ndarray, expected: dict[str, str], tmp_path: Path
) -> None:
    """Two real processes read each kind by its path, or from the spool, to the byte."""

    class Items:
        def __len__(self) -> int:
            return _N

        def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
            return pixels[row], row

    kinds = {"hdf5": _hdf5, "zarr": _zarr, "dask": _dask}
    with ek.connect(n_workers=2, dashboard_port=0):
        for kind, make in kinds.items():
            given = make(tmp_path, pixels)
            found = ek.extract(given, "embedkit/digits", tmp_path / f"{kind}-store")
            assert _hashes(found) == expected, kind
        found = ek.extract(Items(), "embedkit/digits", tmp_path / "items-store")
    assert found.images["status"].tolist() == ["ok"] * _N
    assert _hashes(found) == expected
