"""What a user's program allows for itself does not reach stored numbers."""

import numpy as np
import pytest
import torch
from torch import nn

import embedkit as ek


@pytest.fixture
def taps():
    """All layers of a small network of convolutions and products."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(800, 64),
        nn.Linear(64, 5),
    )
    network = ek.load_network(
        module, transform=lambda image: torch.zeros(3, 12, 12), name="small"
    )
    return network.taps("all")


def test_autocast_and_rounded_products_are_left_out(taps):
    """The rows are the same bits, and what was set is set again."""
    batch = np.random.default_rng(0).standard_normal((4, 3, 12, 12), np.float32)
    expected = taps.forward(batch)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = taps.forward(batch)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)

    for layer, rows in expected.items():
        assert found[layer].tobytes() == rows.tobytes()
