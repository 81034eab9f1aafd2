"""What 175 pooled taps of ResNet-50 add to the peak memory of a forward pass."""

import json
import subprocess
import sys

import pytest

# A process of its own for each: what one allocator keeps would hide the other's peak.
MEASURE = """
import ctypes, json, sys
from pathlib import Path

import numpy as np
import torch

import embedkit as ek

def said(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])

torch.set_num_threads(1)
backend, count = sys.argv[1], 0
network = ek.load_network("resnet50", weights="none")
batch = np.random.default_rng(0).normal(size=(8, 3, 224, 224)).astype(np.float32)
if backend == "plain":
    run = lambda: network.module(torch.from_numpy(batch))
else:
    taps = network.taps("all", backend=backend)
    count, run = len(taps.layers), lambda: taps.forward(batch)
peaks = []
for _ in range(5):
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = said("VmRSS")
    with torch.inference_mode():
        run()
    peaks.append(said("VmHWM") - before)
print(json.dumps({"layers": count, "bytes": sorted(peaks)[len(peaks) // 2]}))
"""


def _measured(backend):
    said = subprocess.run(
        [sys.executable, "-c", MEASURE, backend],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(said.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("backend", ["torch", "torch_channels_last"])
def test_all_taps_pooled_take_little_more_than_the_forward(backend, capsys):
    """At most 200 MB more for a batch of 8, where the maps themselves are 1.2 GB."""
    plain, taps = _measured("plain"), _measured(backend)

    extra = taps["bytes"] - plain["bytes"]

    with capsys.disabled():
        print(f"\nresnet50, batch 8, {taps['layers']} taps, backend {backend}")
        print(f"  forward {plain['bytes'] / 1e6:.0f} MB, taps {extra / 1e6:+.0f} MB")
    assert taps["layers"] == 175
    assert extra <= 200e6
