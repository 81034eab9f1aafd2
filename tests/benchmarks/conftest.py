"""What the benchmarks share: arms that take turns, and real photos of one size."""

import faulthandler
import fnmatch
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from PIL import Image

FULL = os.environ.get("EMBEDKIT_BENCH") == "1"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2


@dataclass
class Arm:
    """One way to do the work, and what it took."""

    name: str
    work: object
    seconds: list[float] = field(default_factory=list)

    @property
    def best(self):
        """Seconds of the fastest run: others were disturbed."""
        return min(self.seconds)


@pytest.fixture(autouse=True)
def _patient():
    """No stack of a test that is slow by intention amid its table."""
    if FULL:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def full():
    """Whether figures are asked for; otherwise a benchmark only shows that it runs."""
    return FULL


@pytest.fixture(scope="session")
def cores():
    """The cores that all arms together may use."""
    return CORES


@pytest.fixture(scope="session")
def arm():
    """The class of an arm."""
    return Arm


@pytest.fixture
def race(tmp_path):
    """Run arms in turn, so that a disturbance meets all of them; return what each gave.

    What an arm writes is synchronised inside its time. The first results are returned.
    """

    def run(arms):
        results, own = {}, Path(tempfile.mkdtemp(prefix="race-", dir=tmp_path))
        for turn in range(3 if FULL else 1):
            for each in arms:
                place = own / f"{each.name.replace(' ', '-')}-{turn}"
                place.mkdir()
                began = time.perf_counter()
                found = each.work(place)
                os.sync()
                each.seconds.append(time.perf_counter() - began)
                results.setdefault(each.name, found)
        return results

    return run


@pytest.fixture(scope="session")
def threads():
    """Set the threads of PyTorch for a while."""

    @contextmanager
    def among(count):
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    return among


@pytest.fixture(scope="session")
def jpegs(shared_data, tmp_path_factory):
    """Real photos, 500 by 375 pixels, as JPEG files: 384, or 16 where nobody measures."""
    folder = tmp_path_factory.mktemp("jpegs")
    photos = sorted((shared_data / "clothing_cc0").rglob("*.jpg"))
    for number, photo in enumerate(photos[: 384 if FULL else 16]):
        with Image.open(photo) as image:
            image.convert("RGB").resize((500, 375)).save(
                folder / f"{number:04d}.jpg", quality=90
            )
    return sorted(folder.iterdir())


@pytest.fixture(scope="session")
def shown():
    """The module with tables, summaries and the machine's name."""
    spec = importlib.util.spec_from_file_location(
        "embedkit_shown", Path(__file__).with_name("shown.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def many_jpegs(jpegs, tmp_path_factory):
    """Make a folder of as many photos as are asked for: the same ones, under more names."""

    def folder_of(count):
        folder = tmp_path_factory.mktemp("many-jpegs")
        for number in range(count):
            os.link(jpegs[number % len(jpegs)], folder / f"{number:06d}.jpg")
        return folder

    return folder_of


@pytest.fixture(scope="session")
def chosen():
    """Tell whether a cell is wanted: all are, or those that EMBEDKIT_BENCH_ONLY matches."""
    pattern = os.environ.get("EMBEDKIT_BENCH_ONLY", "*")
    return lambda cell: fnmatch.fnmatch(cell, pattern)


@pytest.fixture
def planner_run(tmp_path):
    """Run `planner_user.py` in a process of its own; return what it told.

    No process of it outlives it. Measurements are kept for the length of a test.
    """

    if sys.platform == "win32":
        pytest.skip("no process groups")

    def run(**asked):
        user = Path(__file__).with_name("planner_user.py")
        process = subprocess.Popen(
            [sys.executable, str(user), json.dumps(asked)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"EMBEDKIT_CACHE": str(tmp_path / "cache")},
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=3600)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == 0, err[-3000:]
        return json.loads(out.splitlines()[-1])

    return run
