"""Tests of extraction from images that are not files of their own."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from embedkit.errors import InputError
from embedkit.extraction.block import task
from embedkit.extraction.driver import extract
from embedkit.extraction.verify import verify
from embedkit.images.open import open_images
from embedkit.networks.load import load_network

_N = 6


class _Items:
    """A dataset; item 2 fails."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.targets = list(range(_N))

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        if row == 2:
            raise ValueError("lost")
        return self.pixels[row], row


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def _tar(folder: Path, pixels: np.ndarray) -> str:
    for shard in (0, 1):
        with tarfile.open(folder / f"s-{shard}.tar", "w") as tar:
            for row in range(3 * shard, 3 * shard + 3):
                data = _png(pixels[row]) if row != 2 else b"no picture"
                info = tarfile.TarInfo(f"{row}.png")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return f"{folder}/s-{{0..1}}.tar"


def _parquet(folder: Path, pixels: np.ndarray) -> Path:
    rows = [None if row == 2 else _png(pixels[row]) for row in range(_N)]
    table = pa.table({"image": pa.array(rows, pa.binary())})
    pq.write_table(table, folder / "a.parquet", row_group_size=4)
    return folder / "a.parquet"


def _crops(folder: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(np.concatenate([*pixels])).save(folder / "all.png")
    top = 16.0 * np.arange(_N)
    top[2] = np.nan
    frame = pd.DataFrame({"path": "all.png", "x0": 0, "y0": top, "x1": 16})
    frame.assign(y1=top + 16).to_csv(folder / "a.csv", index=False)
    return folder / "a.csv"


_KINDS = {
    "tar": _tar,
    "parquet": _parquet,
    "dataset": lambda _, pixels: _Items(pixels),
    "crops": _crops,
}


@pytest.fixture(scope="module")
def digits() -> Any:
    """The bundled network."""
    return load_network("embedkit/digits")


@pytest.mark.parametrize("kind", _KINDS)
def test_every_kind_gives_what_the_array_gives(
    tmp_path: Path, digits: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same pixels give the same numbers, unreadable rows are NaN, and once is enough."""
    pixels = np.random.default_rng(3).integers(0, 256, (_N, 16, 16, 3), np.uint8)
    given = _KINDS[kind](tmp_path, pixels)
    url = str(tmp_path / "store")
    computed: list[int] = []
    true = task.extract_block

    def counted(job: Any, block: int, **options: Any) -> Any:
        computed.append(block)
        return true(job, block, **options)

    monkeypatch.setattr(task, "extract_block", counted)
    with dask.config.set(scheduler="synchronous"):
        expected = extract(pixels, digits, tmp_path / "array")
        store = extract(given, digits, url)
        assert computed == [0, 0]
        again = extract(given, digits, url)
        assert computed == [0, 0]
    status = store.images["status"].tolist()
    assert status == ["ok" if row != 2 else "unreadable" for row in range(_N)]
    good = [0, 1, 3, 4, 5]
    for name in expected:
        found = np.asarray(again[name])
        np.testing.assert_array_equal(found[good], np.asarray(expected[name])[good])
        assert np.isnan(found[2]).all()


@pytest.mark.parametrize("kind", _KINDS)
def test_a_damaged_block_is_computed_again_from_the_store_alone(
    tmp_path: Path, digits: Any, kind: str
) -> None:
    """Uris are enough to read the images again, but for those that were in memory."""
    pixels = np.random.default_rng(3).integers(0, 256, (_N, 16, 16, 3), np.uint8)
    given = _KINDS[kind](tmp_path, pixels)
    url = str(tmp_path / "store")
    with dask.config.set(scheduler="synchronous"):
        store = extract(given, digits, url)
        name = next(iter(store))
        before = np.asarray(store[name])
        (file,) = (tmp_path / "store/layers" / name / "activation").glob("c.0.*")
        file.write_bytes(file.read_bytes()[:-9])
        if kind == "dataset":
            with pytest.raises(InputError, match="array or a dataset, whose pixels"):
                verify(url, repair=True)
            report = verify(url, repair=True, images=open_images(given))
        else:
            report = verify(url, repair=True)
        assert report.repaired == 1
        np.testing.assert_array_equal(np.asarray(store[name]), before)


def test_a_dataset_of_other_pixels_is_noticed(tmp_path: Path, digits: Any) -> None:
    """Its rows have no times, so their pixels are compared."""
    pixels = np.random.default_rng(3).integers(0, 256, (_N, 16, 16, 3), np.uint8)
    url = str(tmp_path / "store")
    with dask.config.set(scheduler="synchronous"):
        extract(_Items(pixels), digits, url)
        other = pixels.copy()
        other[4] = 255 - other[4]
        store = extract(_Items(other), digits, url, update=True)
        expected = extract(other, digits, tmp_path / "array")
    name = next(iter(store))
    np.testing.assert_array_equal(
        np.asarray(store[name])[4], np.asarray(expected[name])[4]
    )
