"""One driver a store."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from embedkit.errors import StoreError
from embedkit.files.files import files_at
from embedkit.files.local import LocalFiles
from embedkit.store import lock as module
from embedkit.store.lock import LOCK, SILENCE, Owner, holder, locked


@pytest.fixture
def place(tmp_path):
    """A place that nobody holds."""
    return files_at(tmp_path / "s.zarr")


@pytest.fixture
def owner(monkeypatch):
    """Whoever holds a lock here and now."""
    owner = module._myself()
    monkeypatch.setattr(module, "_held", {owner.token, "old", "faster"})
    return owner


@pytest.fixture
def fast(monkeypatch):
    """Signs of life every 20 ms."""
    monkeypatch.setattr(module, "BEAT", 0.02)


_HOLDS = """
import sys
from embedkit.files.files import files_at
from embedkit.store.lock import locked
with locked(files_at(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def _held_elsewhere(place):
    """Hold the lock in another process."""
    child = subprocess.Popen(
        [sys.executable, "-c", _HOLDS, place.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline() == "held\n"
        yield child
    finally:
        child.kill()
        child.communicate()


def _eventually(true, seconds=10.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited for too long"
        time.sleep(0.005)


def _taken(place):
    with locked(place) as lock:
        return holder(place) == lock.token


def test_the_lock_is_there_for_the_length_of_the_block(place):
    """Its token is in the file while it is held, and nothing is left after."""
    assert holder(place) is None

    with locked(place) as lock:
        assert holder(place) == lock.token
        lock.check()

    assert holder(place) is None
    assert not place.exists(LOCK)


def test_it_is_let_go_after_an_error(place):
    """An error inside passes through, and the next one can take the lock."""
    with pytest.raises(KeyError, match="mine"), locked(place):
        raise KeyError("mine")

    assert _taken(place)


def test_a_second_taker_in_this_process_is_refused_at_once(place):
    """The message has host, process, since when, and what to do; the first goes on."""
    who = rf"process {os.getpid()} on {socket.gethostname()} since 20\d\d-\d\d-\d\dT"
    began = time.monotonic()

    with locked(place) as lock:
        with pytest.raises(StoreError, match=who) as caught, locked(place):
            pass
        assert holder(place) == lock.token

    assert f"store {place.url} is being written by" in str(caught.value)
    assert "wait for it, or end it" in str(caught.value)
    assert time.monotonic() - began < 5


def test_a_second_taker_in_another_thread_is_refused(place):
    """Threads of one process exclude each other too."""
    refused = []

    def take():
        try:
            with locked(place):
                pass
        except StoreError as error:
            refused.append(str(error))

    with locked(place):
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()

    assert len(refused) == 1
    assert f"process {os.getpid()} on" in refused[0]


def test_a_live_process_elsewhere_is_respected(place):
    """It is refused while the other one lives, even while that one is stopped."""
    with _held_elsewhere(place) as child:
        for sent in (None, signal.SIGSTOP):
            if sent:
                child.send_signal(sent)
            with pytest.raises(StoreError, match=f"by process {child.pid} on"):
                _taken(place)
        child.send_signal(signal.SIGCONT)
        child.communicate("\n")

    assert child.returncode == 0
    assert _taken(place)


def test_the_lock_of_a_killed_process_is_taken_over_at_once(place):
    """Nobody waits for a process that is gone."""
    with _held_elsewhere(place) as child:
        child.kill()
        child.wait()
    assert holder(place) is not None
    began = time.monotonic()

    assert _taken(place)

    assert time.monotonic() - began < 2


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_zombie_is_dead(place):
    """A killed process that its parent has not waited for holds nothing."""
    with _held_elsewhere(place) as child:
        child.kill()
        _eventually(lambda: psutil.Process(child.pid).status() == "zombie")

        assert _taken(place)


def test_a_lock_of_this_process_that_could_not_be_deleted_is_dead(place, monkeypatch):
    """The disk became read-only for a while; this process need not end for that."""

    def denied(*_args):
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch, locked(place):
        patch.setattr(LocalFiles, "delete", denied)

    assert place.exists(LOCK)
    assert _taken(place)


def test_a_lock_that_is_being_let_go_is_not_taken(place, monkeypatch):
    """Until its file is gone: or else its owner would delete the lock of another."""
    real, refused = LocalFiles.delete, []

    def late(self, name):
        with pytest.raises(StoreError, match="is being written") as caught:
            _taken(place)
        refused.append(caught)
        real(self, name)

    monkeypatch.setattr(LocalFiles, "delete", late)
    with locked(place):
        pass

    assert len(refused) == 1
    assert not place.exists(LOCK)


def test_a_process_has_a_name_that_tells_whether_it_is_gone(place):
    """Here and alive, here and gone, here with another birth, and elsewhere."""
    name = module.process_name()
    space, pid, born = name.split("-")
    with _held_elsewhere(place) as child:
        other = f"{space}-{child.pid}-{module._born(child.pid):.0f}"
        assert not module.is_dead(other)
    assert pid == str(os.getpid())
    assert module.is_dead(other)
    assert not module.is_dead(name)
    assert module.is_dead(f"{space}-{pid}-{int(born) + 1}")
    assert not module.is_dead(f"deadbeef-{pid}-{born}")


def test_a_number_that_was_used_again_is_another_process(place, owner):
    """The same process number with another time of birth is somebody else's."""
    before = replace(owner, token="old", born=owner.born - 1)
    place.write(LOCK, before.to_bytes())

    assert before.dead
    assert not owner.dead
    assert _taken(place)


def test_an_owner_here_needs_no_sign_of_life(place, owner):
    """On the same machine the process itself is looked for, whatever the clock says."""
    place.write(LOCK, replace(owner, beat=0.0).to_bytes())

    with pytest.raises(StoreError, match=f"by process {os.getpid()}"):
        _taken(place)


@pytest.mark.parametrize("silent", [0, SILENCE - 20, -1000])
def test_an_owner_elsewhere_is_alive_until_it_was_silent_for_long(place, owner, silent):
    """Its process number says nothing here: only its signs of life count."""
    elsewhere = replace(
        owner, host="node7", space="node7 x", pid=2**22 + 1, beat=time.time() - silent
    )
    place.write(LOCK, elsewhere.to_bytes())

    with pytest.raises(StoreError, match=rf"by process {2**22 + 1} on node7 since"):
        _taken(place)

    assert place.read(LOCK) == elsewhere.to_bytes()


def test_an_owner_elsewhere_that_was_silent_for_long_is_dead(place, owner):
    """Even if a process of its number is alive here."""
    elsewhere = replace(
        owner, host="node7", space="node7 x", beat=time.time() - SILENCE - 1
    )
    place.write(LOCK, elsewhere.to_bytes())

    assert _taken(place)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"7", b'{"token": "x"}', b'{"odd": 1}', b"\xff"],
)
def test_a_torn_lock_holds_nobody_up(place, content):
    """Whoever left a file that cannot be read is gone."""
    place.write(LOCK, content)

    assert holder(place) == ""
    assert _taken(place)


@pytest.mark.usefixtures("fast")
def test_signs_of_life_go_on(place):
    """`beat` follows the clock while the lock is held; nothing else changes."""
    with locked(place) as lock:
        first = json.loads(place.read(LOCK))
        _eventually(lambda: json.loads(place.read(LOCK))["beat"] > first["beat"] + 0.1)
        last = json.loads(place.read(LOCK))
        lock.check()

    assert last | {"beat": 0} == first | {"beat": 0}
    assert abs(last["beat"] - time.time()) < 10


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("there", ["another", "nothing", "torn"])
def test_a_lost_lock_is_told(place, owner, there):
    """After it was taken over, `check` raises, and the other one's lock is left alone."""
    theirs = {
        "another": replace(owner, token="other", host="node7", space="n").to_bytes(),
        "torn": b"{",
    }.get(there)
    with locked(place) as lock:
        if theirs is None:
            place.delete(LOCK)
        else:
            place.write(LOCK, theirs)
        _eventually(lambda: lock._lost)
        with pytest.raises(StoreError, match=f"the lock of {place.url} was taken over"):
            lock.check()

    assert place.exists(LOCK) == (theirs is not None)
    assert theirs is None or place.read(LOCK) == theirs


def test_releasing_leaves_the_lock_of_another_alone(place, owner):
    """Also where it was taken over since the last sign of life."""
    theirs = replace(owner, token="other").to_bytes()

    with locked(place):
        place.write(LOCK, theirs)

    assert place.read(LOCK) == theirs


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("arrives", [True, False])
def test_a_sign_of_life_that_failed_is_made_good(place, monkeypatch, arrives):
    """A network that hangs costs nothing, whether or not the request had arrived."""
    real, failed = LocalFiles.replace, []

    def hangs(self, name, old, new):
        if len(failed) < 3:
            failed.append(arrives and real(self, name, old, new))
            raise OSError(110, "Connection timed out")
        return real(self, name, old, new)

    monkeypatch.setattr(LocalFiles, "replace", hangs)
    with locked(place) as lock:
        _eventually(lambda: len(failed) == 3)
        then = time.time()
        _eventually(lambda: json.loads(place.read(LOCK))["beat"] > then)
        lock.check()

    assert failed == [arrives] * 3
    assert not place.exists(LOCK)


def test_a_lock_that_is_let_go_meanwhile_is_taken(place, owner, monkeypatch):
    """Between finding it held and looking who holds it, its owner may have gone."""
    place.write(LOCK, owner.to_bytes())
    real = module._read

    def gone(files):
        place.delete(LOCK)
        monkeypatch.setattr(module, "_read", real)

    monkeypatch.setattr(module, "_read", gone)

    assert _taken(place)


def test_a_dead_lock_that_another_takes_first_is_theirs(place, owner, monkeypatch):
    """Of two that find a dead lock, the slower one is told of the faster."""
    place.write(LOCK, replace(owner, born=-1.0).to_bytes())
    faster = replace(owner, token="faster").to_bytes()
    real = LocalFiles.replace

    def late(self, name, old, new):
        self.write(LOCK, faster)
        return real(self, name, old, new)

    monkeypatch.setattr(LocalFiles, "replace", late)
    with pytest.raises(StoreError, match="is being written by process"):
        _taken(place)

    assert place.read(LOCK) == faster


def test_an_owner_is_one_line_of_json(owner):
    """So that people can read it, and nothing is lost."""
    again = Owner(**json.loads(owner.to_bytes()))

    assert again == owner
    assert owner.pid == os.getpid()
    assert socket.gethostname() in owner.space


def test_processes_are_found_without_proc_too(monkeypatch):
    """Where there is no /proc, psutil tells the time of birth and the dead."""
    monkeypatch.setattr(Path, "exists", lambda self: False)

    def nothing(self, *args):
        raise FileNotFoundError(2, "No such file")

    monkeypatch.setattr(Path, "read_text", nothing)

    assert module._born_elsewhere(os.getpid()) == psutil.Process().create_time()
    assert module._born(2**22 + 1) is None
    assert module._space() == socket.gethostname()


_RACES = """
import os, sys, time
from embedkit.errors import StoreError
from embedkit.files.files import files_at
from embedkit.store.lock import locked
place, mark = files_at(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
end = time.monotonic() + 120
while time.monotonic() < end:
    try:
        with locked(place):
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))  # fails where two are inside
            time.sleep(0.02)
            os.remove(mark)
            print("in", flush=True)
            os._exit(0)  # dies with the lock
    except StoreError:
        time.sleep(0.001)
"""


@pytest.mark.slow
def test_of_many_that_race_for_a_dead_lock_one_at_a_time_holds_it(place, tmp_path):
    """Eight processes die one after the other with the lock, and never two at once."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACES, place.url, str(tmp_path / "mark")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    for each in racers:
        assert each.stdout.readline() == "ready\n"
    for each in racers:
        each.stdin.write("\n")
        each.stdin.flush()

    said = [each.communicate(timeout=180) for each in racers]

    assert said == [("in\n", "")] * 8
    assert not (tmp_path / "mark").exists()
    assert _taken(place)
