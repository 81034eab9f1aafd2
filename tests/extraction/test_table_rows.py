"""Ids and places of a block's images, from the image table."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from embedkit.extraction.block import table_rows as module
from embedkit.extraction.block.table_rows import TableRows, table_rows
from embedkit.files.files import files_at
from embedkit.store import arrays
from embedkit.store.table import text

N = 100
IDS = [f"é{i}" for i in range(N)]


@pytest.fixture
def files(tmp_path):
    """A hundred ids in chunks of ten."""
    files = files_at(tmp_path / "s.zarr")
    arrays.make_group(files)
    values = text(IDS)
    arrays.make(files, "image", shape=(N,), chunks=(10,), dtype=values.dtype, fill="")
    arrays.write(files, "image", values)
    return files


@pytest.fixture
def reads(monkeypatch):
    """Which rows were read from the store."""
    found = []

    def read(files, name, *, rows):
        found.append((rows.start, rows.stop))
        return arrays.read(files, name, rows=rows)

    monkeypatch.setattr(module, "read", read)
    return found


def _blocks(size):
    return [slice(start, min(start + size, N)) for start in range(0, N, size)]


def test_a_table_that_is_broadcast_is_read_once(files, reads):
    """Behind the first block, which tells how long its texts are."""
    table = TableRows(files, n_images=N, block=8, n_workers=1)

    found = [each for rows in _blocks(8) for each in table.read("image", rows)]

    assert found == IDS
    assert reads == [(0, 8), (0, N)]
    assert table.choice["image"].join == "broadcast"


def test_a_table_that_is_partitioned_is_read_by_rows(files, reads):
    """As many workers as blocks: each reads its own."""
    table = TableRows(files, n_images=N, block=8, n_workers=13)

    found = [each for rows in _blocks(8) for each in table.read("image", rows)]

    assert found == IDS
    assert reads == [(rows.start, rows.stop) for rows in _blocks(8)]
    assert table.choice["image"].join == "partitioned"


def test_threads_read_the_table_once(files, reads):
    """The others wait for it."""
    table = TableRows(files, n_images=N, block=8, n_workers=1)
    table.read("image", slice(0, 8))

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda rows: table.read("image", rows), _blocks(8)))

    assert [each for some in found for each in some] == IDS
    assert reads == [(0, 8), (0, N)]


def test_a_damaged_chunk_concerns_its_own_blocks_alone(files, reads):
    """The others are read by rows then."""
    (files_at(files.url + "/image").write("c.9", b"this is no chunk"))
    table = TableRows(files, n_images=N, block=10, n_workers=1)

    found = [each for rows in _blocks(10)[:9] for each in table.read("image", rows)]

    assert found == IDS[:90]
    assert "cannot be read" in table.choice["image"].why
    assert reads.count((0, N)) == 1
    with pytest.raises(arrays.DAMAGE):
        table.read("image", slice(90, 100))


def test_tasks_of_one_run_share_a_table(files):
    """Another run has its own: the table may have changed in between."""
    same = {"n_images": N, "block": 8, "n_workers": 1}

    first = table_rows(files, "run", **same)

    assert table_rows(files, "run", **same) is first
    assert table_rows(files, "another", **same) is not first
