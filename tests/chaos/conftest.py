"""A stage for violence: real clients with real workers, killed for good."""

import ctypes
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import xarray as xr
import zarr
from PIL import Image

import embedkit as ek

collect_ignore = ["chaos_parts.py", "client.py", "disk.py", "matrix.py", "user.py"]
HERE = Path(__file__).parent
MARK = (201, 45, 77)  # as in chaos_parts, which would bring torch into this process
N_IMAGES = 1000  # 32 blocks, the last one shorter
PATIENCE = 90.0
PR_SET_CHILD_SUBREAPER = 36
QUARANTINE = "embedkit.errors.IncompleteStore: "


def pytest_collection_modifyitems(items):
    """Everything here takes long; the count of kills comes last."""
    mine = [item for item in items if item.path.parent == HERE]
    for item in mine:
        item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.path.name == "test_tally.py")


@pytest.fixture(scope="session", autouse=True)
def _adopt_orphans():
    """Workers whose client was killed become children of this process, which then
    learns what they died of and leaves none behind."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.fixture(scope="session")
def kills():
    """Every kill of the suite: pid by what it was."""
    return []


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A thousand noisy pictures whose second pixel spells their row."""
    folder = tmp_path_factory.mktemp("chaos") / "photos"
    folder.mkdir()
    rng = np.random.default_rng(5)
    for row in range(N_IMAGES):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        pixels[0, 0] = MARK
        pixels[0, 1, :2] = divmod(row, 256)
        Image.fromarray(pixels).save(folder / f"{row:04d}.png")
    return folder


def environment(**more):
    """Return an environment in which children find embedkit and the parts."""
    roots = [str(HERE), str(Path(ek.__file__).parent.parent)]
    before = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([*roots, *([before] if before else [])])
    ours = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return {**os.environ, **ours, **{k: str(v) for k, v in more.items()}}


@pytest.fixture(scope="session")
def run_script():
    """Run a script of this folder to its end and return what became of it."""

    def run(name, asked, *, within=PATIENCE, before=(), **more):
        child = subprocess.Popen(
            [*before, sys.executable, str(HERE / name), json.dumps(asked)],
            env=environment(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = child.communicate(timeout=within)
        finally:
            end_family(child)
        return subprocess.CompletedProcess(child.args, child.returncode, output)

    return run


def end_family(child):
    """End a process and whatever it started, by pid, and wait for it."""
    family = []
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(child.pid)
        family = [root, *root.children(recursive=True)]
    # Orphans of the same session: their parents are gone, not their session.
    for process in psutil.Process().children():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getsid(process.pid) == child.pid:
                family.append(process)
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    child.wait(timeout=PATIENCE)
    for process in family:
        with suppress(ChildProcessError):
            os.waitpid(process.pid, 0)
    assert not psutil.wait_procs(family, timeout=PATIENCE)[1]


@pytest.fixture(scope="session")
def contents():
    """Read a store: files of activations, and every array's bytes as plain xarray."""

    def read(store):
        root = Path(store) / "layers"
        files = {
            file.relative_to(root).as_posix(): _digest(file.read_bytes())
            for file in sorted(root.rglob("*"))
            if file.is_file() and file.name != "zarr.json"
        }
        with xr.open_datatree(store, engine="zarr") as tree:
            arrays = {
                f"{node.path}/{name}": _digest(_bytes(variable.values))
                for node in tree.subtree
                for name, variable in node.to_dataset(inherit=False).variables.items()
            }
        assert files
        assert len(arrays) > 3
        return {"files": files, "arrays": arrays}

    return read


def _bytes(values):
    """Return an array's bytes; those of texts by their lengths and letters."""
    if values.dtype.kind in "OTU":
        return json.dumps([str(value) for value in values.ravel()]).encode()
    return values.tobytes()


def _digest(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="session")
def reference(photos, tmp_path_factory, run_script, contents):
    """What an undisturbed run in one process writes."""
    store = tmp_path_factory.mktemp("reference") / "s.zarr"
    asked = {"photos": str(photos), "runs": [{"store": str(store)}]}
    done = run_script("matrix.py", asked)
    assert done.returncode == 0, done.stdout
    return contents(store)


class Stage:
    """One store, and the clients that are sent to write it."""

    def __init__(self, folder, photos, kills):
        self.folder, self.photos, self.kills = folder, photos, kills
        self.store = folder / "place" / "s.zarr"
        self.diary, self.errors = folder / "diary", folder / "errors"
        self.errors.touch()
        self.clients = []
        self.lost = 0  # worker threads that were killed or lost their client

    @property
    def client(self):
        """The client that runs now, or ran last."""
        return self.clients[-1]

    def start(self, *, sleep=0.025, env=(), **asked):
        """Send a client; it is a session of its own, and a group."""
        self.asked = {"sleep": sleep, "env": dict(env), **asked}
        given = {"photos": str(self.photos), "store": str(self.store), **asked}
        variables = {"CHAOS_DIARY": self.diary, "CHAOS_SLEEP": sleep, **dict(env)}
        with self.errors.open("ab") as errors:
            client = subprocess.Popen(
                [sys.executable, str(HERE / "client.py"), json.dumps(given)],
                env=environment(**variables),
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )
        self.clients.append(client)

    def again(self):
        """Make the same call again."""
        self.start(**self.asked)

    def workers(self):
        """Return the worker processes of the client, spawned by it or forked for it."""
        found = []
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(self.client.pid).children(recursive=True)
            for each in family:
                with suppress(psutil.NoSuchProcess):  # or a zombie
                    forked = "forkserver" in " ".join(each.parent().cmdline())
                    if forked or "spawn_main" in " ".join(each.cmdline()):
                        found.append(each)
        return found

    def notes(self):
        """Return the diary: (pid, row), -1 for a picture that is none of ours."""
        lines = self.diary.read_text().split("\n")[:-1] if self.diary.exists() else []
        return [tuple(int(word) for word in line.split()) for line in lines]

    def busy(self):
        """Return the workers that have prepared images."""
        known = {pid for pid, row in self.notes() if row >= 0}
        return [each for each in self.workers() if each.pid in known]

    def wait(self, condition, *, within=PATIENCE):
        """Wait until a condition holds and return it; the client going is no reason."""
        end = time.monotonic() + within
        while not (found := condition()):
            if time.monotonic() > end:
                self.client.send_signal(signal.SIGUSR1)  # to tell where it hangs
                time.sleep(1)
                raise AssertionError(f"waited {within} s\n{self.tail()}")
            time.sleep(0.02)
        return found

    def tail(self):
        """Return the end of what clients and workers said."""
        return self.errors.read_text()[-6000:]

    def kill_workers(self, victims):
        """Kill workers; their nannies must have seen the signal."""
        for victim in victims:
            assert victim.is_running()
            assert victim.status() != psutil.STATUS_ZOMBIE
        for victim in victims:
            victim.kill()
        self.lost += len(victims)
        for victim in victims:
            died = f"Worker process {victim.pid} was killed by signal 9"
            self.wait(lambda died=died: died in self.errors.read_text())
            assert not _alive(victim)
            self.kills.append((victim.pid, "worker"))

    def kill_client(self, *, group):
        """Kill the client, with its workers or alone; then they must go by themselves."""
        workers = self.workers()
        client = psutil.Process(self.client.pid)
        assert client.status() != psutil.STATUS_ZOMBIE
        if group:
            os.killpg(client.pid, signal.SIGKILL)
        else:
            client.kill()
        assert self.client.wait(timeout=PATIENCE) == -signal.SIGKILL
        self.lost += len(workers)
        self.kills.append((client.pid, "client"))
        for worker in workers:
            pid, status = self.wait(lambda worker=worker: _reaped(worker.pid))
            if group:
                assert os.WIFSIGNALED(status)
                assert os.WTERMSIG(status) == signal.SIGKILL
                self.kills.append((pid, "worker of a killed client"))

    def finish(self, *, runs=6):
        """Run the call again until it succeeds; quarantined blocks are a reason to."""
        for _ in range(runs):
            self.wait(self.ended, within=2 * PATIENCE)
            if self.client.returncode == 0:
                return
            self.again_after_quarantine()
        raise AssertionError(f"not complete after {runs} runs\n{self.tail()}")

    def ended(self):
        """Whether the client has ended."""
        return self.client.poll() is not None

    def again_after_quarantine(self):
        """Make the same call again: blocks that saw three deaths are a reason to."""
        assert self.client.wait() == 1, self.tail()
        assert self.last_error().startswith(QUARANTINE), self.tail()
        self.again()

    def last_error(self):
        """Return the last line of the last traceback."""
        return _last_error(self.errors.read_text())

    def deaths_in_errors(self):
        """Return how many workers died by signals, as their nannies say."""
        return self.errors.read_text().count("was killed by signal")

    def rows_of_a_block(self):
        """Return the rows of a block."""
        return _rows_of_a_block(self.store)

    def attempts(self):
        """Return how often each block was begun."""
        rows = _rows_of_a_block(self.store)
        return Counter(row // rows for _, row in self.notes() if row % rows == 0 <= row)

    def n_blocks(self):
        """Return how many blocks there are."""
        return -(-N_IMAGES // _rows_of_a_block(self.store))

    def computed_again(self):
        """Return how many blocks were begun more than once, counting every time."""
        return sum(count - 1 for count in self.attempts().values())

    def leavings(self):
        """Return what killed writers left behind, beside the store and in it."""
        place = self.store.parent
        return [file for file in place.rglob("*") if file.name.endswith(".partial")]

    def check(self, reference, contents):
        """Assert what holds after every scenario."""
        assert ek.open_store(self.store).complete
        assert contents(self.store) == reference
        assert self.leavings() == []
        assert [file.name for file in self.store.parent.iterdir()] == ["s.zarr"]
        assert sorted(self.attempts()) == list(range(self.n_blocks()))
        # One thread a worker: it had begun one block at most when it was lost.
        assert self.computed_again() <= self.lost

    def end(self):
        """End every process that is left."""
        for client in self.clients:
            end_family(client)


def _alive(process):
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _last_error(text):
    """Return the last line of the last traceback in a text."""
    lines = text[text.rindex("Traceback (most recent") :].split("\n")[1:]
    return next(line for line in lines if line and not line.startswith(" "))


def _reaped(pid):
    """Return what an orphan that has ended died of, else None.

    The server that forked it may have been quicker to ask; then the status is None.
    """
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None if psutil.pid_exists(pid) else (pid, None)
    return (ended, status) if ended else None


def _rows_of_a_block(store):
    """Return the rows of a shard, the same for every layer."""
    found = set()
    for metadata in (store / "layers").rglob("zarr.json"):
        if json.loads(metadata.read_bytes())["node_type"] == "array":
            array = zarr.open_array(metadata.parent, mode="r")
            found.add((array.shards or array.chunks)[0])
    (rows,) = found
    return rows


@pytest.fixture
def stage(tmp_path, photos, kills):
    """A stage that is cleared whatever happens."""
    stage = Stage(tmp_path, photos, kills)
    yield stage
    stage.end()
