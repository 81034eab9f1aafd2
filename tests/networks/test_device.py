"""Memory of a GPU: nothing where there is none, and the real numbers where there is one."""

import numpy as np
import pytest
import torch

from embedkit.networks.device import device_memory, device_state, release_device
from embedkit.networks.load import load_network

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="PyTorch finds no GPU here"
)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_there_is_nothing_to_tell():
    """Nothing is measured, nothing is given back, and nothing fails."""
    assert device_memory() is None
    assert device_state() is None
    release_device()
    assert not torch.cuda.is_initialized()


@needs_gpu
def test_a_larger_batch_takes_more_of_the_gpu():
    """Each peak is that of its own batch, because the one before was forgotten."""
    network = load_network("resnet18", weights=None)
    taps = network.taps(["layer1"], pool="avg")
    memory, peaks = device_memory(), {}

    for size in (1, 16, 1):
        memory.reset()
        held = memory.held()
        taps.forward(np.zeros((size, 3, 224, 224), np.float32))
        peaks.setdefault(size, []).append(memory.peak() - held)

    assert held > 0
    assert min(peaks[16]) > max(peaks[1]) > 0


@needs_gpu
def test_a_gpu_has_one_name_and_some_memory():
    """What a process keeps is less than what there is."""
    one, two = device_state(), device_state()

    assert one.name == two.name != ""
    assert one.free > 0
    assert one.kept >= 0
