"""The machine that a network runs on, as far as speed and memory depend on it."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def processor() -> str:
    """Return what the processor is called, where that can be found out."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def gpu() -> str:
    """Return what the GPU is called that this process sees; empty where there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def version_of(package: str) -> str:
    """Return the version of an installed package; empty where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def inner_threads() -> int:
    """Return how many threads work on one operator in the thread that calls this."""
    return int(torch.get_num_threads())


def use_threads(count: int) -> None:
    """Let so many threads work on one operator, in the thread that calls this."""
    torch.set_num_threads(count)
