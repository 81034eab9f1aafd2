"""Commit records."""

import dataclasses
import json

import pytest

from embedkit.store.commits import (
    Commit,
    commit_path,
    read_commit,
    read_commits,
    write_commit,
)

COMMIT = Commit(
    block=1234,
    identity="abc",
    start=0,
    stop=32,
    failures={"ä/1.jpg": "cut short"},
    crc32={"fc": 7},
    seconds={"total": 1.5},
    device="cpu",
)


def test_a_record_reads_back_as_written(tmp_path):
    """Every field survives, text that is not ASCII too."""
    write_commit(tmp_path, COMMIT)

    assert read_commit(tmp_path, 1234, identity="abc") == COMMIT


def test_records_lie_a_thousand_to_a_folder(tmp_path):
    """No folder grows beyond what file systems like."""
    assert commit_path(tmp_path, 1234).relative_to(tmp_path).as_posix() == (
        "_embedkit/commits/1/1234.json"
    )


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"block": 1234}', json.dumps({"odd": 1})],
)
def test_a_damaged_record_does_not_count(tmp_path, content):
    """A record that is not whole means the block is computed again."""
    path = commit_path(tmp_path, 1234)
    path.parent.mkdir(parents=True)
    path.write_text(content)

    assert read_commit(tmp_path, 1234, identity="abc") is None


def test_a_record_of_another_identity_or_block_does_not_count(tmp_path):
    """A copied record cannot vouch for other bytes."""
    write_commit(tmp_path, COMMIT)
    moved = commit_path(tmp_path, 5)
    moved.parent.mkdir(parents=True, exist_ok=True)
    moved.write_bytes(commit_path(tmp_path, 1234).read_bytes())

    assert read_commit(tmp_path, 1234, identity="other") is None
    assert read_commit(tmp_path, 5, identity="abc") is None


def test_all_records_come_by_number_and_strays_are_ignored(tmp_path):
    """Temporary files, numbers beyond the grid and broken records are passed over."""
    for block in (2, 0, 11):
        write_commit(tmp_path, dataclasses.replace(COMMIT, block=block))
    folder = commit_path(tmp_path, 0).parent
    (folder / ".3.json.ff.partial").write_text("{}")
    (folder / "notes.json").write_text("{}")
    (folder / "1.json").write_text("{")

    found = read_commits(tmp_path, 10, identity="abc")

    assert list(found) == [0, 2]
