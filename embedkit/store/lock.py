"""One driver a store: a lock that names its owner and tells a dead one from a live one.

The lock is a small file that is made only where there is none. Its owner adds a sign of
life every few seconds, so another machine can tell whether it is still there; on the
owner's own machine the process itself is looked for, which tells at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil

from embedkit.errors import StoreError
from embedkit.files.files import Files
from embedkit.store.commits import PRIVATE

LOCK = f"{PRIVATE}/lock.json"
_held: set[str] = set()
"""Tokens of the locks that this process holds. One of its own that is not among them was
let go where it could not be deleted, on a disk that had become read-only for instance."""

BEAT = 15.0
"""Seconds between two signs of life (chosen: next to nothing, even to object stores)."""
SILENCE = 8 * BEAT
"""Seconds without one after which an owner elsewhere counts as dead (chosen: a network
file system may hang for a minute, and clocks differ by some seconds)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who holds a store.

    Parameters
    ----------
    token : str
        Unique to this taking of the lock.
    host, pid : str, int
        Machine and process, for people.
    born : float or None
        When the process began, on the system's own scale: numbers of processes are
        used again.
    space : str
        Where `pid` means that process: one boot of one machine, or of one container.
    since : str
        When the lock was taken, ISO 8601, UTC.
    beat : float
        The last sign of life, seconds since the epoch.
    """

    token: str
    host: str
    pid: int
    born: float | None
    space: str
    since: str
    beat: float

    def to_bytes(self) -> bytes:
        """Return the owner as JSON."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @property
    def dead(self) -> bool:
        """Whether this owner is certainly gone, or has been silent for too long."""
        if self.space == _space():
            mine = self.pid == os.getpid() and self.token not in _held
            return mine or _born(self.pid) != self.born
        return time.time() - self.beat > SILENCE


class Lock:
    """A lock that this process holds.

    Attributes
    ----------
    token : str
        Unique to this taking: what a task must find in the lock before it writes.
    """

    def __init__(self, files: Files, owner: Owner) -> None:
        self.token = owner.token
        self._files = files
        self._lost = False
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=self._live, name="embedkit-lock", daemon=True
        )
        self._thread.start()

    def check(self) -> None:
        """Raise `StoreError` if the lock has been taken over.

        That happens to a process that was asleep for so long that it passed for dead.
        """
        if self._lost:
            message = (
                f"the lock of {self._files.url} was taken over by another process while "
                "this one gave no sign of life: let the other one finish"
            )
            raise StoreError(message)

    def release(self) -> None:
        """Let go, where it is still held."""
        self._ended.set()
        self._thread.join()
        try:
            with suppress(*self._files.failures):
                if holder(self._files) == self.token:
                    self._files.delete(LOCK)
        finally:  # not before: another thread would take over what is deleted here
            _held.discard(self.token)

    def _live(self) -> None:
        """Give a sign of life until the end. A failed one is made good by the next."""
        while not self._ended.wait(BEAT):
            try:
                self._lost = not self._beat()
            except OSError:
                continue
            if self._lost:
                return

    def _beat(self) -> bool:
        """Renew the sign of life; return whether the lock is still held.

        What stands there is read first: a beat that failed may have arrived all the same.
        """
        found = _read(self._files)
        if found is None or found[1].token != self.token:
            return False
        data, owner = found
        alive = replace(owner, beat=time.time())
        return self._files.replace(LOCK, data, alive.to_bytes())


@contextmanager
def locked(files: Files) -> Iterator[Lock]:
    """Hold the lock of a store for the length of a ``with`` block.

    Parameters
    ----------
    files : Files
        The store.

    Yields
    ------
    Lock
        Call its `check` now and then.

    Raises
    ------
    StoreError
        At once, when another process holds it, naming host, process and since when.
        The lock of a dead process is taken over.
    """
    lock = Lock(files, _take(files))
    try:
        yield lock
    finally:
        lock.release()


def holder(files: Files) -> str | None:
    """Return the token of whoever holds the lock; None where nobody does."""
    found = _read(files)
    return None if found is None else found[1].token


def process_name() -> str:
    """Return a short name of this process that none other anywhere has."""
    space = hashlib.sha256(_space().encode()).hexdigest()[:8]
    return f"{space}-{os.getpid()}-{_born(os.getpid()):.0f}"


def is_dead(name: str) -> bool:
    """Whether the process of that name ran here, and is gone."""
    space, pid, born = name.split("-")
    if space != process_name().partition("-")[0]:
        return False
    alive = _born(int(pid))
    return alive is None or f"{alive:.0f}" != born


def _take(files: Files) -> Owner:
    mine = _myself()
    _held.add(mine.token)
    while not files.create(LOCK, mine.to_bytes()):
        found = _read(files)
        if found is None:  # let go just now
            continue
        data, owner = found
        if not owner.dead:
            _held.discard(mine.token)
            raise StoreError(_in_use(files, owner))
        if files.replace(LOCK, data, mine.to_bytes()):
            break
    return mine


def _in_use(files: Files, owner: Owner) -> str:
    silent = time.time() - owner.beat
    return (
        f"store {files.url} is being written by process {owner.pid} on {owner.host} since "
        f"{owner.since} (last sign of life {max(0, silent):.0f} s ago): wait for it, or "
        f"end it; if it is gone, its lock is free at once on {owner.host}, and after "
        f"{SILENCE:.0f} s of silence elsewhere"
    )


def _read(files: Files) -> tuple[bytes, Owner] | None:
    """Return the lock as it is, and its owner; a lock nobody can read has a dead one."""
    try:
        data = files.read(LOCK)
    except FileNotFoundError:
        return None
    try:
        return data, Owner(**json.loads(data))
    except (ValueError, TypeError):
        nobody = Owner(token="", host="", pid=0, born=0, space="", since="", beat=0)
        return data, nobody


def _myself() -> Owner:
    return Owner(
        token=uuid.uuid4().hex,
        host=socket.gethostname(),
        pid=os.getpid(),
        born=_born(os.getpid()),
        space=_space(),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        beat=time.time(),
    )


def _space() -> str:
    """Return what tells one boot of one machine (and container) from every other."""
    parts = [socket.gethostname()]
    boot = Path("/proc/sys/kernel/random/boot_id")
    if boot.exists():
        parts.append(boot.read_text("ascii").strip())
    namespace = Path("/proc/self/ns/pid")
    if namespace.exists():  # Linux: containers of one machine number processes anew
        parts.append(str(namespace.readlink()))
    return " ".join(parts)


def _born(pid: int) -> float | None:
    """Return when a process began; None where there is none, or only its remains.

    On Linux in clock ticks since the boot, which no change of the clock can move.
    """
    try:
        status = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None if Path("/proc/self/stat").exists() else _born_elsewhere(pid)
    fields = status.rpartition(")")[2].split()  # behind the name, which may hold spaces
    return None if fields[0] in "ZX" else float(fields[19])


def _born_elsewhere(pid: int) -> float | None:
    try:
        process = psutil.Process(pid)
        gone = process.status() == psutil.STATUS_ZOMBIE
        return None if gone else process.create_time()
    except psutil.Error:
        return None
