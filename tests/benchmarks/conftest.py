"""What the benchmarks share: arms that take turns, and real photos of one size."""

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

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
        results = {}
        for turn in range(3 if FULL else 1):
            for each in arms:
                place = tmp_path / f"{each.name.replace(' ', '-')}-{turn}"
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
