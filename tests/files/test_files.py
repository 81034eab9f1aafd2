"""One suite for every kind of place: they behave alike."""

import os
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedkit.errors import EmbedkitError, InputError, MissingDependencyError
from embedkit.files.files import files_at, is_url
from embedkit.files.local import LocalFiles
from embedkit.files.remote import RemoteFiles

BAD = ["/etc/passwd", "..", "a/../b", "a//b", "a/", "./a", "a\0b"]
METHODS = {
    "read": lambda files, name: files.read(name),
    "write": lambda files, name: files.write(name, b""),
    "create": lambda files, name: files.create(name, b""),
    "replace": lambda files, name: files.replace(name, b"", b""),
    "delete": lambda files, name: files.delete(name),
    "delete_tree": lambda files, name: files.delete_tree(name),
    "names": lambda files, name: files.names(name),
    "exists": lambda files, name: files.exists(name),
    "nbytes": lambda files, name: files.nbytes(name),
    "local_copy": lambda files, name: files.local_copy(name),
    "sync": lambda files, name: files.sync(name),
}


def _together(work, n=16):
    """The results of `work(i)` in `n` threads that start at once."""
    barrier = threading.Barrier(n)

    def run(i):
        barrier.wait()
        return work(i)

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(run, range(n)))


def test_what_is_written_is_read(files):
    """Bytes come back as they went, the later ones of two, and folders are made."""
    files.write("a/b/c.bin", b"first, and longer")
    files.write("a/b/c.bin", bytes(range(256)))
    files.write("empty", b"")

    assert files.read("a/b/c.bin") == bytes(range(256))
    assert files.read("empty") == b""


@pytest.mark.parametrize("name", ["missing", "a/missing", "a", "a/b/below a file"])
def test_no_file_to_read_is_told(files, name):
    """A missing file, a folder, and a name below a file are no files."""
    files.write("a/b", b"1")

    with pytest.raises(FileNotFoundError, match="no such file"):
        files.read(name)
    with pytest.raises(FileNotFoundError, match="no such file"):
        files.local_copy(name)


def test_create_does_not_touch_what_exists(files):
    """The first wins; the second changes nothing and says so."""
    assert files.create("a/lock", b"first") is True
    assert files.create("a/lock", b"second") is False
    assert files.read("a/lock") == b"first"


def test_create_has_one_winner_among_threads(files):
    """Of sixteen creators at once, one is told that it won, and its bytes are there."""
    won = _together(lambda i: files.create("lock", b"%d" % i))

    assert sum(won) == 1
    assert files.read("lock") == b"%d" % won.index(True)


def test_create_of_equal_bytes_has_one_winner_too(files):
    """What is there being what was to be written does not make a second winner."""
    assert sum(_together(lambda i: files.create("lock", b"same"))) == 1


def test_replace_needs_the_old_content(files):
    """It replaces what it was told is there, and nothing else, nor a missing file."""
    files.write("a", b"old")

    assert files.replace("a", b"other", b"new") is False
    assert files.read("a") == b"old"
    assert files.replace("a", b"old", b"new") is True
    assert files.read("a") == b"new"
    assert files.replace("missing", b"", b"new") is False
    assert not files.exists("missing")


def test_replace_has_one_winner_among_threads(files):
    """Of sixteen that saw the same content, one replaces it."""
    files.write("lock", b"stale")

    won = _together(lambda i: files.replace("lock", b"stale", b"%d" % i))

    assert sum(won) == 1
    assert files.read("lock") == b"%d" % won.index(True)


@pytest.mark.slow
def test_replace_loses_no_update(files):
    """Eight threads that count by compare-and-swap count to forty."""
    files.write("count", b"0")

    def count(i):
        for _ in range(5):
            while not files.replace(
                "count", now := files.read("count"), b"%d" % (int(now) + 1)
            ):
                pass

    _together(count, n=8)

    assert files.read("count") == b"40"


def test_a_release_and_a_take_over_leave_one_owner(files):
    """A deleter, a creator and a replacer at once end as one after another would."""
    in_turn = {
        (True, False, b"created"),  # deleted, created; nothing left to take over
        (True, True, b"created"),  # taken over, deleted, created
        (False, True, None),  # taken over, deleted
        (False, False, None),  # deleted last
    }
    for _ in range(10):
        files.write("lock", b"stale")
        files.replace("lock", b"stale", b"held")
        work = [
            lambda: files.delete("lock"),
            lambda: files.create("lock", b"created"),
            lambda: files.replace("lock", b"held", b"taken"),
        ]

        _, created, taken = _together(lambda i, work=work: work[i](), n=3)

        there = files.read("lock") if files.exists("lock") else None
        assert (created, taken, there) in in_turn


def test_a_reader_never_sees_half(files):
    """While 1 MB is rewritten again and again, every read is one of the versions."""
    versions = [bytes([i]) * 2**20 for i in range(4)]
    files.write("big", versions[0])
    done = threading.Event()
    seen = []

    def read():
        while not done.is_set():
            seen.append(files.read("big"))

    reader = threading.Thread(target=read)
    reader.start()
    i = 0
    while i < 24 or len(seen) < 12:
        files.write("big", versions[i % 4])
        i += 1
    done.set()
    reader.join()

    assert all(each in versions for each in seen)


def test_deleting_twice_is_fine(files):
    """What is gone stays gone; what was never there, and below a file, too."""
    files.write("a/b", b"1")

    files.delete("a/b")
    files.delete("a/b")
    files.delete("never/there")
    files.write("file", b"")
    files.delete("file/below")

    assert files.names() == ["file"]


def test_delete_tree_takes_a_folder_and_nothing_else(files):
    """Not what merely begins with the same letters, nor a file of that name."""
    for name in ["a/1", "a/b/2", "ab/3", "a.json", "file"]:
        files.write(name, b"1")

    files.delete_tree("a")
    files.delete_tree("a")
    files.delete_tree("file")

    assert files.names() == ["a.json", "ab/3", "file"]
    assert not files.exists("a")


def test_delete_tree_of_all(files):
    """The place itself goes, and can be written again."""
    files.write("a/1", b"1")

    files.delete_tree("")
    gone = not files.exists("")
    files.write("b", b"2")

    assert gone
    assert files.names() == ["b"]


def test_delete_tree_among_threads(files):
    """Several that delete the same are all content."""
    for i in range(20):
        files.write(f"a/{i}/x", b"1")

    _together(lambda i: files.delete_tree("a"), n=4)

    assert files.names() == []


def test_names_are_sorted_and_relative(files):
    """All levels, as POSIX paths relative to the folder asked for."""
    for name in ["z", "a/10", "a/9", "a/b/c", "ab/1"]:
        files.write(name, b"")

    assert files.names() == ["a/10", "a/9", "a/b/c", "ab/1", "z"]
    assert files.names("a") == ["10", "9", "b/c"]
    assert files.names("a/b") == ["c"]
    assert files.names("none") == []
    assert files.names("z") == []


@pytest.mark.slow
def test_names_beyond_one_page(files):
    """An object store lists a thousand at a time."""
    n = 1003 if isinstance(files, RemoteFiles) else 20
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: files.write(f"a/{i:04d}", b"12"), range(n)))

    assert files.names("a") == [f"{i:04d}" for i in range(n)]
    assert files.nbytes("a") == 2 * n
    files.delete_tree("a")
    assert files.names() == []


def test_unfinished_files_have_no_names(files):
    """Temporary files of ours and of Zarr, and guards, are not listed or counted."""
    hex32 = "0123456789abcdef" * 2
    for name in [
        f".x.{hex32}.partial",
        f"c/0.{hex32}.partial",
        f".y.{hex32}.partial/z",
    ]:
        files.write(name, b"half")
    files.write(".x.guard", b"half")
    files.write("my.partial", b"whole")
    files.write(".hidden", b"whole")

    assert files.names() == [".hidden", "my.partial"]
    assert files.nbytes() == 10


def test_exists(files):
    """Files and folders with something in them do; prefixes of names do not."""
    nothing = files.exists("")
    files.write("abc/def", b"1")

    assert not nothing
    for name in ["", "abc", "abc/def"]:
        assert files.exists(name)
    for name in ["ab", "abc/de", "abc/def/g", "def"]:
        assert not files.exists(name)


def test_nbytes(files):
    """The sum below a folder."""
    files.write("a/1", b"12345")
    files.write("a/b/2", b"123")
    files.write("c", b"1")

    assert [files.nbytes(), files.nbytes("a"), files.nbytes("none")] == [9, 8, 0]


def test_local_copy(files):
    """A file of this machine with the same bytes, the same one each time."""
    data = os.urandom(100_000)
    files.write("arrays/abc.npy", data)

    paths = _together(lambda i: files.local_copy("arrays/abc.npy"), n=4)

    assert len(set(paths)) == 1
    assert paths[0].is_file()
    assert paths[0].read_bytes() == data


def test_sync_of_a_file_of_somebody_else(files):
    """It changes nothing that can be seen."""
    files.write("c/0/0", b"shard")

    files.sync("c/0/0")

    assert files.read("c/0/0") == b"shard"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", BAD)
def test_names_that_leave_the_place_are_refused(files, method, name):
    """Absolute ones and dots, by every method."""
    with pytest.raises(ValueError, match="is not a relative path of plain parts"):
        METHODS[method](files, name)


@pytest.mark.parametrize("method", ["read", "write", "create", "delete", "sync"])
def test_the_place_itself_is_no_file(files, method):
    """An empty name stands for a folder only."""
    with pytest.raises(ValueError, match="name '' is not a relative path"):
        METHODS[method](files, "")


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    name=st.text(
        st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"),
        min_size=1,
        max_size=40,
    ).filter(lambda name: name not in {".", ".."} and "partial" not in name),
    data=st.binary(max_size=100),
)
def test_any_name_and_any_bytes(files, name, data):
    """Blanks, percent signs and letters of all scripts name one file each."""
    name = f"ünï códe %20/{name}"

    files.write(name, data)

    assert files.read(name) == data
    assert name in files.names()
    files.delete(name)
    assert files.names() == []


def test_equal_and_pickled_by_url(files):
    """A copy sent to another process is the same place; nothing can be set."""
    files.write("a", b"1")

    again = pickle.loads(pickle.dumps(files))

    assert again == files == files_at(files.url) == files_at(f"{files.url}/")
    assert len({again, files, files_at(files.url)}) == 1
    assert again.read("a") == b"1"
    assert files_at(f"{files.url}2") != files
    assert len(pickle.dumps(files)) < 300
    with pytest.raises(AttributeError):
        files.url = "elsewhere"


def test_what_may_fail_is_named(files):
    """`failures` can be caught, OSError among them."""
    assert OSError in files.failures
    with pytest.raises(files.failures):
        files.read("missing")


def test_shared_unless_in_memory(files):
    """Only memory belongs to one process."""
    assert files.shared is not files.url.startswith("memory://")


@pytest.mark.parametrize(
    ("place", "expected"),
    [("s3://b", True), ("memory://x", True), ("photos", False), ("/a:/b", False)],
)
def test_is_url(place, expected):
    """A str with :// in it."""
    assert is_url(place) is expected


def test_a_path_object_is_no_url(tmp_path):
    """Whatever it holds."""
    assert not is_url(tmp_path)
    assert files_at(tmp_path) == LocalFiles(tmp_path) == files_at(str(tmp_path))


def test_a_url_that_was_a_path_is_told(tmp_path):
    """`pathlib` makes one slash of two, which would be a folder called s3:."""
    path = type(tmp_path)("s3://bucket/photos.zarr")

    with pytest.raises(InputError, match=r"'s3:/bucket/photos.zarr' looks like a URL"):
        files_at(path)


def test_without_obstore_the_extra_is_named(monkeypatch):
    """A URL needs it, a folder does not."""
    monkeypatch.delitem(sys.modules, "embedkit.files.remote")
    monkeypatch.setitem(sys.modules, "obstore", None)

    with pytest.raises(
        MissingDependencyError, match=r"pip install 'embedkit\[cloud\]'"
    ) as caught:
        files_at("s3://bucket/photos.zarr")

    assert isinstance(caught.value, EmbedkitError)


def test_another_missing_module_is_not_hidden(monkeypatch):
    """Only obstore itself is an extra."""
    monkeypatch.delitem(sys.modules, "embedkit.files.remote")
    monkeypatch.setitem(sys.modules, "embedkit.files.connect", None)

    with pytest.raises(ModuleNotFoundError, match=r"embedkit\.files\.connect"):
        files_at("s3://bucket/photos.zarr")
