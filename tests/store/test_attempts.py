"""Marks of blocks that are being computed."""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys

import pytest

from embedkit.files.files import files_at
from embedkit.files.local import LocalFiles
from embedkit.store.attempts import (
    begin,
    deaths,
    deaths_in,
    deaths_of_memory,
    end,
    forget,
)


@pytest.fixture
def place(tmp_path):
    """A place without any mark."""
    return files_at(tmp_path / "s.zarr")


def test_a_mark_that_is_taken_away_is_no_death(place, one):
    """A block that ended, however it ended, has killed nobody."""
    end(place, begin(place, one, 7))

    assert deaths(place, one) == {}
    assert deaths_in(place, one, 7) == []


def test_marks_that_stay_are_counted_by_block(place, one, other):
    """Deaths add up over runs; other blocks and other passes have their own."""
    for block in (7, 7, 12):
        begin(place, one, block)
    begin(place, other, 7)

    assert deaths(place, one) == {7: 2, 12: 1}
    assert deaths(place, other) == {7: 1}
    assert len(deaths_in(place, one, 7)) == 2


def test_a_mark_says_who_and_where(place, one):
    """The process, its machine and the time, for people."""
    begin(place, one, 1)

    (told,) = deaths_in(place, one, 1)

    assert told.startswith(f"process {os.getpid()} on {socket.gethostname()} at 20")


def test_a_death_with_room_to_spare_was_not_for_want_of_memory(place, one):
    """One that had needed more than a plan allows may have been."""
    for memory in (0.59, 0.61, 0.95):
        begin(place, one, 5, memory=memory)
    begin(place, one, 6, memory=0.9)

    assert deaths_of_memory(place, one, 5) == 2
    assert deaths_of_memory(place, one, 6) == 1
    assert deaths_of_memory(place, one, 7) == 0


def test_the_first_death_of_which_nothing_is_known_does_not_count(place, one):
    """A worker killed in its first block leaves no other bytes; two may have had a reason."""
    found = []
    for _ in range(3):
        begin(place, one, 5)
        found.append(deaths_of_memory(place, one, 5))
    begin(place, one, 5, memory=0.9)

    assert found == [0, 1, 2]
    assert deaths_of_memory(place, one, 5) == 3


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"memory": "much"}'])
def test_a_mark_that_says_nothing_of_memory_is_of_an_unknown_death(content, place, one):
    """Cut short, or left by an earlier version."""
    for expected in (0, 1):
        place.write(begin(place, one, 2, memory=0.1), content)

        assert deaths_of_memory(place, one, 2) == expected


_DIES = """
import os, pickle, signal, sys
from embedkit.files.files import files_at
from embedkit.store.attempts import begin
begin(files_at(sys.argv[1]), pickle.loads(bytes.fromhex(sys.argv[2])), 3)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_mark_of_a_killed_process_stays(place, one):
    """Nothing has to be done in time: what is left tells."""
    done = subprocess.run(
        [sys.executable, "-c", _DIES, place.url, pickle.dumps(one).hex()], check=False
    )

    assert done.returncode == -signal.SIGKILL
    assert deaths(place, one) == {3: 1}


def test_marks_are_forgotten_together(place, one, other):
    """At the end of a run nothing of a pass is left."""
    for each in (one, other):
        begin(place, each, 7)

    forget(place, one)

    assert deaths(place, one) == {}
    assert deaths(place, other) == {7: 1}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"null", b"\xff"])
def test_a_torn_mark_still_counts(place, one, content):
    """Whoever died while writing it has died all the same."""
    place.write(begin(place, one, 2), content)

    assert deaths(place, one) == {2: 1}
    assert deaths_in(place, one, 2) == ["a process that left no name"]


def test_what_a_file_system_leaves_there_is_no_mark(place, one):
    """Network file systems keep deleted files under names of their own for a while."""
    name = begin(place, one, 2)
    place.write(f"{name.rpartition('/')[0]}/.nfs000012", b"")
    place.write(f"{name.rpartition('/')[0]}/notes.txt", b"")

    assert deaths(place, one) == {2: 1}
    assert len(deaths_in(place, one, 2)) == 1


def test_an_end_that_cannot_be_written_does_not_hide_what_went_wrong(
    place, one, monkeypatch
):
    """What failed in the block is raised, not that the mark could not be deleted."""
    name = begin(place, one, 2)

    def full(*_args):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(LocalFiles, "delete", full)
    end(place, name)

    assert json.loads(place.read(name))["pid"] == os.getpid()
