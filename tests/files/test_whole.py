"""Files that are there whole or not at all."""

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from stat import S_ISDIR

import pytest

from embedkit.files.local import LocalFiles
from embedkit.files.whole import make_folder, sync_folder, whole_file


def test_the_second_content_replaces_the_first_whole(tmp_path):
    """Nothing of a longer earlier file shows through; no temporary file stays."""
    path = tmp_path / "record.json"

    for content in (b"first, and longer", b"second"):
        with whole_file(path) as file:
            file.write(content)

    assert path.read_bytes() == b"second"
    assert [each.name for each in tmp_path.iterdir()] == ["record.json"]


def test_nothing_shows_before_the_end(tmp_path):
    """While the file is being written, its name is not there."""
    path = tmp_path / "record.json"

    with whole_file(path) as file:
        file.write(b"half")
        seen = path.exists()

    assert not seen
    assert path.exists()


def test_an_error_leaves_what_was_there(tmp_path):
    """The earlier content stays, the temporary file does not."""
    path = tmp_path / "record.json"
    path.write_bytes(b"before")

    with pytest.raises(OSError, match="disk full"), whole_file(path) as file:  # noqa: PT012
        file.write(b"half")
        raise OSError("disk full")

    assert path.read_bytes() == b"before"
    assert [each.name for each in tmp_path.iterdir()] == ["record.json"]


def test_the_name_is_synced_after_the_bytes(tmp_path, monkeypatch):
    """File, then rename, then folder: no other order survives a loss of power."""
    path = tmp_path / "record.json"
    order = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(
        "embedkit.files.whole.os.fsync",
        lambda fd: (
            order.append("folder" if S_ISDIR(os.fstat(fd).st_mode) else "file"),
            sync(fd),
        ),
    )
    monkeypatch.setattr(
        Path, "replace", lambda a, b: (order.append("rename"), replace(a, b))
    )

    with whole_file(path) as file:
        file.write(b"1")

    assert order == ["file", "rename", "folder"]


def test_a_folder_that_cannot_be_synced_is_left_alone(tmp_path, monkeypatch):
    """Some network file systems refuse; the file itself was synced."""

    def refuse(descriptor):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("embedkit.files.whole.os.fsync", refuse)

    sync_folder(tmp_path)


def test_a_folder_on_a_broken_disk_is_told(tmp_path, monkeypatch):
    """Any other error counts."""

    def fail(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("embedkit.files.whole.os.fsync", fail)

    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)


def test_folders_are_made_and_synced_from_above(tmp_path, monkeypatch):
    """Each new entry is on disk before something is put below it."""
    synced = []
    monkeypatch.setattr("embedkit.files.whole.sync_folder", synced.append)

    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")

    assert (tmp_path / "a" / "b").is_dir()
    assert synced == [tmp_path, tmp_path / "a"]


def test_a_killed_writer_leaves_one_temporary_file(tmp_path):
    """After SIGKILL in the block the earlier content stays, and `clean` finds the rest."""
    path = tmp_path / "folder" / "record.json"
    LocalFiles(tmp_path).write("folder/record.json", b"before")
    code = (
        "import os, signal, sys, pathlib\n"
        "from embedkit.files.whole import whole_file\n"
        "with whole_file(pathlib.Path(sys.argv[1])) as file:\n"
        "    file.write(b'half' * 100_000)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)

    left = [each for each in path.parent.iterdir() if each != path]
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"before"
    assert len(left) == 1
    assert re.fullmatch(r"\.record\.json\.[0-9a-f]{32}\.partial", left[0].name)
    assert LocalFiles(tmp_path).names() == ["folder/record.json"]
    assert LocalFiles(tmp_path).clean() == 1
    assert list(path.parent.iterdir()) == [path]
