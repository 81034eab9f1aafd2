"""What only a folder of a file system has: links, guards, temporary files, processes."""

import errno
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from embedkit.files.local import LocalFiles

HEX = uuid.uuid4().hex


@pytest.fixture
def files(tmp_path):
    """An empty place."""
    return LocalFiles(tmp_path / "place")


def _no_links(*_):
    raise OSError(errno.EOPNOTSUPP, "Operation not supported")


def _inside(files):
    return sorted(each.name for each in Path(files.url).iterdir())


def _failing(number, text):
    def fail(*_, **__):
        raise OSError(number, text)

    return fail


def _in_processes(place, line, n=4):
    """What `line` printed in `n` processes that start at once."""
    code = (
        "import sys, time\n"
        "from embedkit.files.local import LocalFiles\n"
        "files, i = LocalFiles(sys.argv[1]), sys.argv[2]\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        f"{line}\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, place.url, str(i)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(n)
    ]
    for each in started:
        assert each.stdout.readline() == "ready\n"
    for each in started:
        each.stdin.write("\n")
        each.stdin.flush()
    return [each.communicate()[0].strip() for each in started]


def test_a_relative_path_is_made_absolute(tmp_path, monkeypatch):
    """A later change of the current folder does not move the place."""
    monkeypatch.chdir(tmp_path)

    files = LocalFiles("photos.zarr")
    monkeypatch.chdir("/")

    assert files.url == files.for_zarr() == str(tmp_path / "photos.zarr")


def test_nothing_is_made_by_looking(files):
    """Asking leaves no folder behind."""
    files.names()
    files.exists("a")
    files.nbytes()
    files.delete("a")
    files.delete_tree("a")
    files.replace("a", b"", b"")
    files.clean()

    assert not Path(files.url).exists()


def test_create_has_one_winner_among_processes(files):
    """Rounds of four processes: one wins each, and its bytes are there."""
    line = "print([files.create(f'lock{j}', i.encode()) for j in range(50)])"

    answers = [eval(each) for each in _in_processes(files, line)]

    for j, won in enumerate(zip(*answers, strict=True)):
        assert sum(won) == 1
        assert files.read(f"lock{j}") == b"%d" % won.index(True)


def test_replace_loses_no_update_of_another_process(files):
    """Four processes that count by compare-and-swap count to forty."""
    files.write("count", b"0")
    line = (
        "for _ in range(10):\n"
        "    while not files.replace('count', now := files.read('count'),\n"
        "                            b'%d' % (int(now) + 1)):\n"
        "        pass"
    )

    _in_processes(files, line)

    assert files.read("count") == b"40"


def test_create_without_links(files, monkeypatch):
    """On file systems that have none it is exclusive all the same."""
    monkeypatch.setattr("embedkit.files.local.os.link", _no_links)

    assert files.create("a", b"first") is True
    assert files.create("a", b"second") is False
    assert files.read("a") == b"first"
    assert _inside(files) == ["a"]


def test_create_that_is_overtaken(files, monkeypatch):
    """One that comes into being after the first look is seen by both ways to create."""
    files.write("a", b"first")
    monkeypatch.setattr(Path, "exists", lambda self: False)

    linked = files.create("a", b"second")
    monkeypatch.setattr("embedkit.files.local.os.link", _no_links)
    opened = files.create("a", b"third")

    assert not linked
    assert not opened
    assert files.read("a") == b"first"


def test_a_link_whose_answer_was_lost(files, monkeypatch):
    """Over NFS a link may be made and the repeated request be refused: it is ours."""
    link = os.link

    def twice(old, new):
        link(old, new)
        link(old, new)

    monkeypatch.setattr("embedkit.files.local.os.link", twice)

    assert files.create("a", b"mine") is True


def test_create_tells_other_errors_of_links(files, monkeypatch):
    """A full disk is no missing feature; nothing stays."""
    monkeypatch.setattr(
        "embedkit.files.local.os.link",
        _failing(errno.ENOSPC, "No space left on device"),
    )

    with pytest.raises(OSError, match="No space left"):
        files.create("a", b"1")

    assert _inside(files) == []


def test_create_in_place_leaves_no_torn_file(files, monkeypatch):
    """Where there are no links, a write that fails is taken back."""
    calls = []

    def second_fails(file):
        calls.append(file)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("embedkit.files.local.os.link", _no_links)
    monkeypatch.setattr("embedkit.files.local.to_disk", second_fails)

    with pytest.raises(OSError, match="No space left"):
        files.create("a", b"1")

    assert _inside(files) == []


def test_only_what_is_replaced_has_a_guard(files):
    """Files written once cost one entry; the guard stays for the next replacement."""
    files.write("once", b"1")
    files.create("created", b"1")
    files.write("lock", b"1")

    files.replace("lock", b"1", b"2")
    files.delete("lock")

    assert _inside(files) == [".lock.guard", "created", "once"]
    assert files.names() == ["created", "once"]


def test_replace_of_what_vanishes_while_it_waits(files, monkeypatch):
    """Deleted between the first look and the guard: nothing to replace."""
    files.write("a", b"1")

    def gone(*_):
        (Path(files.url) / "a").unlink()

    monkeypatch.setattr("embedkit.files.local.fcntl.flock", gone)

    assert files.replace("a", b"1", b"2") is False
    assert not files.exists("a")


def test_clean_deletes_what_killed_writers_left(files):
    """Files and folders, ours and Zarr's, anywhere; nothing else."""
    place = Path(files.url)
    kept = ["a/b.json", "my.partial", "x.partial/y", f"{HEX}.json"]
    left = [
        f".b.json.{HEX}.partial",
        f"a/c/0.{HEX}.partial",
        f"results/.umap.{HEX}.partial/zarr.json",
        f"results/.umap.{HEX}.partial/.z.{HEX}.partial",
    ]
    for name in kept + left:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"1")
    (place / f".link.{HEX}.partial").symlink_to(place / "a")

    assert files.clean() == 4
    assert files.clean() == 0
    assert files.names() == sorted(kept)
    assert not (place / "results").joinpath(f".umap.{HEX}.partial").exists()


def test_clean_beside_another(files, monkeypatch):
    """What vanishes meanwhile was cleaned by somebody else."""
    (Path(files.url) / "a").mkdir(parents=True)
    (Path(files.url) / "a" / f".b.{HEX}.partial").touch()
    monkeypatch.setattr(
        "embedkit.files.local._remove", _failing(errno.ENOENT, "No such file")
    )

    assert files.clean() == 1


def test_a_tree_disappears_at_once(files, monkeypatch):
    """Killed while it deletes, it leaves a folder without a name, which `clean` finds."""
    files.write("a/b", b"1")
    monkeypatch.setattr(
        "embedkit.files.local.shutil.rmtree", _failing(errno.EIO, "killed")
    )

    with pytest.raises(OSError, match="killed"):
        files.delete_tree("a")
    monkeypatch.undo()

    assert not files.exists("a")
    assert files.names() == []
    assert files.clean() == 1
    assert _inside(files) == []


def test_deletion_is_synced(files, monkeypatch):
    """What was deleted does not come back after a loss of power."""
    files.write("a/b", b"1")
    files.write("a/c/d", b"1")
    synced = []
    monkeypatch.setattr("embedkit.files.local.sync_folder", synced.append)

    files.delete("a/b")
    files.delete_tree("a/c")

    assert synced == [Path(files.url, "a"), Path(files.url, "a")]


def test_sync_brings_the_name_to_the_disk_too(files, monkeypatch):
    """The file, its folder, and each folder that its writer may have made."""
    files.write("c/0/0", b"1")
    synced = []
    monkeypatch.setattr("embedkit.files.local.sync_file", synced.append)
    monkeypatch.setattr("embedkit.files.local.sync_folder", synced.append)

    files.sync("c/0/0")

    assert synced == [Path(files.url, "c/0/0"), Path(files.url, "c/0")]


def test_sync_of_a_missing_file(files):
    """It is told: a writer that did not write is no success."""
    with pytest.raises(FileNotFoundError, match="c/0"):
        files.sync("c/0")


def test_a_folder_that_may_not_be_read_is_told(files, monkeypatch):
    """No permission is not the same as no files."""
    files.write("a/b", b"1")
    monkeypatch.setattr("os.scandir", _failing(errno.EACCES, "Permission denied"))

    with pytest.raises(PermissionError, match="Permission denied"):
        files.names()
    with pytest.raises(PermissionError, match="Permission denied"):
        files.clean()


def test_a_file_that_vanishes_weighs_nothing(files, monkeypatch):
    """Between listing and asking its size it may go."""
    files.write("a", b"12")
    monkeypatch.setattr(LocalFiles, "names", lambda self, folder: ["a", "gone"])

    assert files.nbytes() == 2


def test_a_file_is_its_own_local_copy(files):
    """Nothing is copied."""
    files.write("a/b", b"1")

    assert files.local_copy("a/b") == Path(files.url, "a", "b")
