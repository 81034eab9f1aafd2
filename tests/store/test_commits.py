"""Commit records."""

import dataclasses
import itertools
import json
import threading
import time

import pytest

from embedkit.files.files import files_at
from embedkit.files.local import LocalFiles
from embedkit.planning.grid import BlockGrid
from embedkit.store import commits
from embedkit.store.commits import (
    Commit,
    Halving,
    compact,
    read_commit,
    read_commits,
    withdraw,
    write_commit,
)


@pytest.fixture
def place(tmp_path):
    """A place without any record."""
    return files_at(tmp_path / "s.zarr")


@pytest.fixture
def grid(schema, one):
    """Three blocks, the last one short."""
    return schema.grid(one)


@pytest.fixture
def written(place, one, grid, record):
    """A place with the records of all three blocks."""
    for block in range(3):
        write_commit(place, one, grid, record(one, block))
    return place


def _name(one, block):
    return f"_embedkit/commits/{one.key}/{block // 1000}/{block}.json"


def _killed(*_args):
    raise KeyboardInterrupt


def test_a_record_reads_back_as_written(place, one, grid, record):
    """Every field survives, text that is not ASCII too."""
    commit = record(one, 2, failures={"ä/1.jpg": "cut short"}, crc32={"fc": 7})

    write_commit(place, one, grid, commit)

    assert read_commit(place, one, grid, 2) == commit
    assert read_commit(place, one, grid, 1) is None


def test_records_lie_a_thousand_to_a_folder(place, one, record):
    """No folder grows beyond what file systems like."""
    grid = BlockGrid(n_images=5000 * 32, block=32)

    for block in (999, 1234):
        commit = record(one, block, n_images=5000 * 32)
        write_commit(place, one, grid, commit)

    assert place.names("_embedkit/commits") == [
        *(f"{one.key}/0/999.json", f"{one.key}/1/1234.json"),
    ]


def test_a_record_that_was_not_renamed_is_not_there(place, one, grid, record):
    """A writer that died before its last step has committed nothing."""
    hidden = _name(one, 1).replace("/1.json", f"/.1.json.{'0' * 32}.partial")

    place.write(hidden, record(one, 1).to_json())

    assert read_commit(place, one, grid, 1) is None
    assert read_commits(place, one, grid) == {}


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b"7", b'{"block": 1}', b'{"odd": 1}'),
        *(b"\xff\xfe", b"\x00" * 300, b"[" * 50),
    ],
)
def test_a_damaged_record_does_not_count(written, one, grid, content):
    """A record that is not whole means that the block is computed again."""
    written.write(_name(one, 1), content)

    assert read_commit(written, one, grid, 1) is None
    assert list(read_commits(written, one, grid)) == [0, 2]


@pytest.mark.parametrize(
    "changes",
    [
        *({"identity": "other"}, {"start": 0}, {"stop": 65}, {"block": 2}),
        *({"block": -1}, {"block": 3}, {"block": 10**30}, {"block": "1"}),
        *({"block": None}, {"block": [1]}, {"start": None}),
    ],
    ids=str,
)
def test_a_record_of_something_else_does_not_count(written, one, grid, record, changes):
    """Another identity, other rows or another number cannot vouch for this block."""
    line = dataclasses.replace(record(one, 1), **changes).to_json()
    written.write(_name(one, 1), line)

    assert read_commit(written, one, grid, 1) is None
    assert list(read_commits(written, one, grid)) == [0, 2]
    compact(written, one, read_commits(written, one, grid))
    gathered = f"_embedkit/commits/{one.key}.jsonl"
    written.write(gathered, written.read(gathered) + line + b"\n")
    assert list(read_commits(written, one, grid)) == [0, 2]


def test_a_block_that_grew_counts_no_more(written, one, grid):
    """The last block is short until the store grows; then its record is of other rows."""
    grown = BlockGrid(n_images=75, block=32)

    assert list(read_commits(written, one, grown)) == [0, 1]
    compact(written, one, read_commits(written, one, grid))
    assert list(read_commits(written, one, grown)) == [0, 1]


def test_an_invalid_record_is_replaced(written, one, grid, record):
    """What was left of another shape of the store does not block the new record."""
    written.write(_name(one, 1), b"{")

    write_commit(written, one, grid, record(one, 1, attempt=2))

    assert read_commit(written, one, grid, 1).attempt == 2


def test_the_record_of_a_twin_stays(written, one, grid, record):
    """Two tasks of one block write the same bytes; the first record is as good."""
    write_commit(written, one, grid, record(one, 1, attempt=2))

    assert read_commit(written, one, grid, 1).attempt == 1


def test_all_records_come_by_number_and_strays_are_ignored(written, one, grid, record):
    """Names that are no number of a block are passed over, huge and negative ones too."""
    folder = f"_embedkit/commits/{one.key}/0"
    body = record(one, 1).to_json()
    for stray in (
        "notes.json",
        "-1.json",
        "3.json",
        f"{'9' * 200}.json",
        "x",
        "².json",
    ):
        written.write(f"{folder}/{stray}", body)
    written.write(f"{folder}/1.txt", b"")

    found = read_commits(written, one, grid)

    assert list(found) == [0, 1, 2]
    assert found[1] == record(one, 1)


def test_compaction_keeps_every_record_in_one_file(written, one, grid, record):
    """A line a block, the small files gone; fresh records then come on top."""
    before = read_commits(written, one, grid)

    compact(written, one, before)

    assert written.names("_embedkit/commits") == [f"{one.key}.jsonl"]
    assert read_commits(written, one, grid) == before
    lines = written.read(f"_embedkit/commits/{one.key}.jsonl").splitlines()
    assert [json.loads(line)["block"] for line in lines] == [0, 1, 2]
    write_commit(written, one, grid, record(one, 1, attempt=5))
    assert read_commits(written, one, grid)[1].attempt == 5


@pytest.mark.parametrize("dies_in", ["write", "delete_tree"])
def test_compaction_may_die_anywhere(written, one, grid, monkeypatch, dies_in):
    """Before or after the file of all is written, every record is there once."""
    before = read_commits(written, one, grid)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, dies_in, _killed)
        with pytest.raises(KeyboardInterrupt):
            compact(written, one, before)

    assert read_commits(written, one, grid) == before
    compact(written, one, read_commits(written, one, grid))
    assert read_commits(written, one, grid) == before


def test_a_reader_never_misses_a_record_while_they_are_gathered(place, one, record):
    """Whoever reads during compaction finds every record, here or there."""
    grid = BlockGrid(n_images=100 * 32, block=32)
    all_of = {i: record(one, i, n_images=100 * 32) for i in range(100)}
    counts, done = [], threading.Event()

    def read():
        while not done.is_set():
            counts.append(len(read_commits(place, one, grid)))

    for commit in all_of.values():
        place.write(_name(one, commit.block), commit.to_json())
    reader = threading.Thread(target=read)
    reader.start()
    try:
        for times in itertools.count(1):
            for block in range(0, 100, 8):
                place.write(_name(one, block), all_of[block].to_json())
            compact(place, one, all_of)
            if times >= 4 and (len(counts) > 5 or not reader.is_alive()):
                break
    finally:
        done.set()
        reader.join()

    assert len(counts) > 5  # nor did it stop before
    assert set(counts) == {100}


def test_withdrawn_blocks_count_as_not_computed(written, one, grid, record):
    """Fresh or gathered, a withdrawn record is gone; the others and unknown ones stay."""
    withdraw(written, one, grid, [1, 77])
    assert list(read_commits(written, one, grid)) == [0, 2]

    write_commit(written, one, grid, record(one, 1))
    withdraw(written, one, grid, {0, 1})

    assert list(read_commits(written, one, grid)) == [2]
    assert read_commit(written, one, grid, 1) is None


def test_passes_do_not_see_each_other(written, one, other, grid, schema, record):
    """Each has records of its own, and gathering one leaves the other alone."""
    write_commit(written, other, schema.grid(other), record(other, 4))

    compact(written, one, read_commits(written, one, grid))

    assert list(read_commits(written, other, schema.grid(other))) == [4]


@pytest.mark.slow
def test_thousands_of_fresh_records_are_read_in_seconds(place, one, record, tmp_path):
    """What a cluster leaves behind in a minute does not take minutes to read."""
    n = 3000
    grid = BlockGrid(n_images=n * 32, block=32)
    for block in range(n):
        file = tmp_path / "s.zarr" / _name(one, block)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(record(one, block, n_images=n * 32).to_json())
    began = time.perf_counter()

    found = read_commits(place, one, grid)

    assert list(found) == list(range(n))
    assert time.perf_counter() - began < 20


def test_a_record_is_one_line_of_sorted_json(one, record):
    """So that a file of all is a line a block, and the same block the same bytes."""
    halved = (Halving(row=40, batch_size=2, why="c\nd"),)
    data = record(one, 1, failures={"a\nb": "x\ny"}, halvings=halved).to_json()

    assert b"\n" not in data
    assert list(json.loads(data)) == sorted(
        field.name for field in dataclasses.fields(commits.Commit)
    )


def test_where_batches_were_halved_comes_back(written, one, grid, record):
    """Fresh and gathered records tell it, beside records of blocks without any."""
    halved = (
        Halving(row=32, batch_size=4, why="2 workers died in this block"),
        Halving(row=36, batch_size=2, why="out of memory: no"),
    )
    withdraw(written, one, grid, [1])
    write_commit(written, one, grid, record(one, 1, halvings=halved))

    fresh = read_commits(written, one, grid)
    compact(written, one, fresh)

    assert {b: each.halvings for b, each in fresh.items()} == {0: (), 1: halved, 2: ()}
    assert read_commits(written, one, grid) == fresh


def test_a_record_without_halvings_is_written_as_it_always_was(one, record):
    """An embedkit that knows no halvings reads it; an old record has none."""
    data = record(one, 1).to_json()

    assert b"halvings" not in data
    assert Commit.from_json(data) == record(one, 1)
    assert Commit.from_json(data).halvings == ()


def test_what_later_records_have_besides_is_passed_over(one, record):
    """A block is not computed again because somebody noted more about it."""
    found = json.loads(record(one, 1).to_json()) | {"weather": "fine"}

    assert Commit.from_json(json.dumps(found).encode()) == record(one, 1)


def test_a_list_is_no_record():
    """Valid JSON need not be a record."""
    with pytest.raises(TypeError, match="a record is an object, found list"):
        Commit.from_json(b"[1]")


@pytest.mark.parametrize(
    ("first", "expected"),
    [(32, [(32, 4), (40, 2)]), (36, [(32, 8), (36, 4), (40, 2)])],
    ids=["from the start", "later"],
)
def test_every_row_has_a_batch_size(first, expected, one, record):
    """Those before the first halving have the pass's own."""
    halved = (
        Halving(row=first, batch_size=4, why="a"),
        Halving(row=40, batch_size=2, why="b"),
    )

    assert list(record(one, 1, halvings=halved).batch_sizes(8)) == expected


def test_without_halvings_all_rows_have_the_size_of_the_pass(one, record):
    """One size, from the first row on."""
    assert list(record(one, 2).batch_sizes(8)) == [(64, 8)]
