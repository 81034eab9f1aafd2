"""What every process of the suite imports: a network, a diary, poison, sudden death.

Settings come by environment, because worker processes inherit it:

CHAOS_DIARY   file that gets a line ``pid row`` for every image prepared
CHAOS_SLEEP   seconds that preparing one image takes
CHAOS_POISON  file that holds the row of an image that eats memory, while it is there
CHAOS_DEATH   JSON, a list of `Death`: where worker processes kill themselves
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import embedkit as ek

MARK = (201, 45, 77)
POISON_BYTES = 4 * 2**30
RENAMES = ("replace", "rename", "link")


class Tiny(nn.Module):
    """Convolutions with an in-place ReLU, an in-place shortcut, and wide vectors."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
            self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
            self.wide = nn.Linear(8, 256)
            self.last = nn.Linear(256, 256)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.relu(self.conv1(x))
        y = self.conv2(x)
        y += x
        return self.last(self.wide(self.relu(y).mean((2, 3))))


class Slow:
    """A transform that takes its time and notes every image; see the module."""

    def __call__(self, image):
        pixels = np.asarray(image.crop((0, 0, 8, 8)), np.float32)  # H W C
        row = _row_of(pixels)
        _note(row)
        _eat_poison(row)
        time.sleep(float(os.environ.get("CHAOS_SLEEP", "0")))
        return torch.from_numpy(pixels.transpose(2, 0, 1) / 255)

    def __repr__(self):
        return "Slow(8)"


def load():
    """Return the network of the suite."""
    return ek.load_network(Tiny(), transform=Slow())


def _row_of(pixels):
    """Return the row that the first pixels spell, -1 for a picture without the mark."""
    high, low = pixels[0, 1, :2].astype(int)
    return 256 * high + low if tuple(pixels[0, 0]) == MARK else -1


def _note(row):
    """Append one line in one write, so that processes do not mix theirs."""
    if "CHAOS_DIARY" in os.environ:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        file = os.open(os.environ["CHAOS_DIARY"], flags, 0o600)
        os.write(file, f"{os.getpid()} {row}\n".encode())
        os.close(file)


def _eat_poison(row):
    """Take memory, a little at a time, until this process is killed for it."""
    poison = Path(os.environ.get("CHAOS_POISON", "/nonexistent"))
    if row < 0 or not poison.exists() or int(poison.read_text()) != row:
        return
    eaten = []
    while len(eaten) * 2**26 < POISON_BYTES:
        eaten.append(np.ones(2**26, np.uint8))
        time.sleep(0.02)
    time.sleep(60)
    raise AssertionError("nobody killed the worker that took too much memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """Where worker processes kill themselves: around the renaming of a file.

    Parameters
    ----------
    moment : {"before", "after"}
        The renaming.
    place : str
        Part of the file's final path.
    counts : list of int
        One entry a death: the how-manieth such file of a process it strikes at.
    folder : str
        Where a file ``<moment>-<number>`` tells the pid of each.
    """

    moment: str
    place: str
    counts: list[int]
    folder: str


def arm(death: Death) -> None:
    """Make this process, if it is a worker, die there: each death is died once."""
    seen = 0
    guard = threading.Lock()

    def deadly(true: Callable[..., Any]) -> Callable[..., Any]:
        def rename(source: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal seen
            path = Path(os.fsdecode(target)).as_posix()
            ours = death.place in path and not path.endswith("zarr.json")
            if multiprocessing.parent_process() is None or not ours:
                return true(source, target, *args, **kwargs)
            with guard:
                seen += 1
                mine = any(
                    seen == count and _claim(death, number)
                    for number, count in enumerate(death.counts)
                )
                if mine and death.moment == "before":
                    os.truncate(source, Path(source).stat().st_size // 2)  # torn
                    os.kill(os.getpid(), signal.SIGKILL)
                result = true(source, target, *args, **kwargs)
                if mine:
                    os.kill(os.getpid(), signal.SIGKILL)
            return result

        return rename

    for name in RENAMES:
        setattr(os, name, deadly(getattr(os, name)))


def _claim(death: Death, number: int) -> bool:
    """Whether this process is the one to die this death; each is died once."""
    with suppress(FileExistsError), _grave(death, number).open("x") as file:
        file.write(str(os.getpid()))
        return True
    return False


def _grave(death: Death, number: int) -> Path:
    return Path(death.folder) / f"{death.moment}-{number}"


if "CHAOS_DEATH" in os.environ:
    for each in json.loads(os.environ["CHAOS_DEATH"]):
        arm(Death(**each))
