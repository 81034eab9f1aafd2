"""Tests of what a store can read its images with, by their uris alone."""

from __future__ import annotations

from typing import Any

import pytest

from embedkit.images.array_files import ArrayFileSource
from embedkit.images.crops import CropSource
from embedkit.images.parquet_source import ParquetSource
from embedkit.images.restore import restored
from embedkit.images.source import FileSource
from embedkit.images.tar_source import TarSource

_URIS = {
    "/data/a.png": FileSource(),
    "/data/a.png#xywh=0,0,4,4": CropSource(),
    "/data/a.png#xywh=none": CropSource(),
    "tar:/data/a.tar#512+9/a.png": TarSource(),
    "tar:/data/a.tar#512+damaged/": TarSource(),
    "tar:/data/a.tar#512+sparse/a.png": TarSource(),
    "parquet:/data/a.parquet#0/1/image": ParquetSource(),
    "npy:/data/a.npy#3": ArrayFileSource(),
    "hdf5:/data/a.h5#in/photos/3": ArrayFileSource(),
    "zarr:/data/a.zarr#/3": ArrayFileSource(),
    "array:0": None,
    "dataset:0": None,
    "a.png": None,
}


@pytest.mark.parametrize(("uri", "source"), _URIS.items())
def test_each_kind_has_its_source(uri: str, source: Any) -> None:
    """Uris of one kind are read by what wrote them; what was in memory by nothing."""
    assert restored([uri, uri]) == source


@pytest.mark.parametrize("uri", [each for each in _URIS if each[0] != "/"])
def test_kinds_do_not_mix(uri: str) -> None:
    """Files beside other things cannot be read by one source."""
    assert restored(["/data/a.png", uri]) is None
