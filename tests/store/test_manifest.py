"""What a store remembers of its image files."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.files.local import LocalFiles
from embedkit.store import arrays, ids, manifest
from embedkit.store.manifest import (
    remembered,
    rows_of,
    seal,
    sealed,
    unseal,
    write_manifest,
)

N = 70
KNOWN = [f"a/{i}.jpg" for i in range(N)]


def test_columns_come_back(files):
    """Sizes and times are remembered by row."""
    assert remembered(files, "size").tolist() == list(range(N))
    assert remembered(files, "mtime").tolist() == list(range(0, 2 * N, 2))
    assert remembered(files, "size").dtype == np.int64


def test_a_column_in_a_folder_is_mapped_not_read(files):
    """Five million hashes are 40 MB; a search touches a few pages of them."""
    assert isinstance(remembered(files, "index"), np.memmap)


def test_columns_in_an_object_store(create, schema, tmp_path):
    """Where nothing can be mapped, the same numbers are read."""
    files = create(f"memory://{tmp_path.name}", schema)

    assert remembered(files, "mtime").tolist() == list(range(0, 2 * N, 2))
    assert rows_of(files, ["a/3.jpg", "b"], N).tolist() == [3, -1]


@given(st.lists(st.sampled_from([*KNOWN, "", "a/70.jpg", "é", "a\udcff"]), max_size=40))
def test_rows_are_those_of_a_pandas_index(small, wanted):
    """In the order asked, as often as asked, -1 for what is not there."""
    found = rows_of(small, wanted, N)

    assert found.dtype == np.int64
    asked = pd.Index(wanted, dtype=object)
    assert found.tolist() == pd.Index(KNOWN, dtype=object).get_indexer(asked).tolist()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A place with ids alone."""
    files = LocalFiles(tmp_path_factory.mktemp("manifest"))
    arrays.make_group(files)
    text = np.array(KNOWN, dtype=np.dtypes.StringDType())
    arrays.make(
        files, "image", shape=(N,), chunks=(16,), dtype=text.dtype, fill="", dims=None
    )
    arrays.write(files, "image", text)
    write_manifest(files, KNOWN, {})
    return files


def test_ids_whose_hashes_collide_are_told_apart(small, tmp_path, monkeypatch):
    """Every candidate's id is read and compared."""
    monkeypatch.setattr(
        ids, "hashes", lambda names: np.array([len(n) for n in names], np.uint64)
    )
    files = LocalFiles(small.url)
    write_manifest(files, KNOWN, {})
    try:
        found = rows_of(files, ["a/65.jpg", "b/65.jpg", "a/3.jpg", "a/65.jpg"], N)
    finally:
        monkeypatch.undo()
        write_manifest(files, KNOWN, {})

    assert found.tolist() == [65, -1, 3, 65]


def test_rows_behind_the_last_are_not_found(files):
    """While a store grows, its new ids are not there yet."""
    assert rows_of(files, ["a/9.jpg", "a/10.jpg"], 10).tolist() == [9, -1]


def test_only_the_chunks_of_the_ids_are_read(small, monkeypatch):
    """Looking up an id does not read the whole column."""
    seen = []
    real = arrays.read_text

    def spied(files, name, *, rows):
        seen.append(rows.tolist())
        return real(files, name, rows=rows)

    monkeypatch.setattr(arrays, "read_text", spied)
    rows_of(small, ["a/60.jpg", "a/2.jpg", "a/60.jpg"], N)
    rows_of(small, ["nothing"], N)

    assert seen == [[2, 60]]


def test_ids_far_apart_are_read_in_turn(small, monkeypatch):
    """So that not all chunks of a large table are in memory at once."""
    monkeypatch.setattr(manifest, "_SPAN", 16)
    wanted = ["a/60.jpg", "a/2.jpg", "a/69.jpg", "a/15.jpg", "a/16.jpg", "a/2.jpg", "x"]

    assert rows_of(small, wanted, N).tolist() == [60, 2, 69, 15, 16, 2, -1]


def test_a_death_between_the_files_mixes_nothing(files, dying):
    """Hashes and rows are one file: every id of before is found at any moment."""
    more = [f"z/{i}.jpg" for i in range(30)] + KNOWN  # hashes in quite another order
    columns = {"size": np.arange(100), "mtime": np.arange(100)}
    for after in range(4):
        with dying(after):
            write_manifest(files, [*KNOWN, *more[:30]], columns)
        assert rows_of(files, KNOWN, N).tolist() == list(range(N))


def test_the_seal_is_there_until_it_is_broken(files):
    """A store says that it is in line with its images only while it is."""
    assert sealed(files) is None
    seal(files, "abc")
    assert sealed(files) == "abc"
    unseal(files)
    unseal(files)
    assert sealed(files) is None
    assert manifest._name("size") in files.names()
