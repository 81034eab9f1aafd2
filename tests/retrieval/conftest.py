"""A store of digits with a table, a twin of the same bytes, and a broken file."""

import shutil

import numpy as np
import pandas as pd
import pytest

import embedkit as ek
from embedkit.networks.bundled.held_out import write_held_out


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    """Ten held-out digits of each class; row 7 is broken, row 50 is a copy of row 3."""
    folder = write_held_out(tmp_path_factory.mktemp("held") / "digits")
    files = [
        file
        for place in sorted(folder.iterdir())
        for file in sorted(place.iterdir())[:10]
    ]
    files[7].write_bytes(b"no picture")
    shutil.copy(files[3], files[50])
    rows = np.arange(len(files))
    return pd.DataFrame(
        {
            "path": [str(file) for file in files],
            "name": [f"{file.parent.name}/{row}" for row, file in enumerate(files)],
            "label": [file.parent.name for file in files],
            "part": np.where(rows % 3 == 0, "test", "train"),
            "width": rows * 10,
            "two words": rows / 2,
        }
    )


@pytest.fixture(scope="session")
def images(table):
    """The digits, opened."""
    return ek.open_images(table, id_column="name")


@pytest.fixture(scope="session")
def path(images, tmp_path_factory):
    """Where the store of their stages lies, in blocks of 16 rows."""
    path = tmp_path_factory.mktemp("stored") / "digits.zarr"
    ek.extract(images, "embedkit/digits", path, layers="stages", batch_size=4)
    return path


@pytest.fixture
def store(path):
    """The store, opened."""
    return ek.open_store(path)


@pytest.fixture(scope="session")
def brute():
    """Rank rows for one query in float64 by (distance, row)."""

    def rank(rows, query, *, metric="euclidean", allowed=None, own=-1):
        rows, query = np.asarray(rows, np.float64), np.asarray(query, np.float64)
        if metric == "euclidean":
            found = np.sqrt(((rows - query) ** 2).sum(axis=1))
        elif metric == "inner_product":
            found = -(rows * query).sum(axis=1)
        else:
            lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(query)
            found = 1 - (rows * query).sum(axis=1) / np.where(lengths, lengths, 1)
        usable = np.isfinite(found)
        if allowed is not None:
            usable &= allowed
        if own >= 0:
            usable[own] = False
        kept = np.flatnonzero(usable)
        return kept[np.lexsort((kept, found[kept]))], found

    return rank
