"""The script for machines with a GPU runs here too, on the CPU, and compares first."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("gpu_extraction.py")
SMALL = ["--device", "cpu", "--network", "resnet18", "--batch", "2", "--batches", "2"]


@pytest.mark.slow
def test_the_script_runs_without_a_gpu():
    """It prints a rate for every arm, and the threads that are needed."""
    said = subprocess.run(
        [sys.executable, SCRIPT, *SMALL, "--repeats", "1", "--threads", "1", "2"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout

    assert "fc: largest relative error" in said
    for arm in ("bare forward", "taps,", "2 threads", "extract,"):
        assert arm in said
    assert "threads of this kind that feed the bare forward: " in said
