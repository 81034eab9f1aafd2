"""Half precision on a GPU."""

from __future__ import annotations

import pytest
import torch

from embedkit.errors import InputError


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_said(digits):
    """Half precision on a GPU needs one."""
    with pytest.raises(InputError, match=r"'cuda_amp' was asked for .* finds no GPU"):
        digits.taps("fc", backend="cuda_amp")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_half_precision_agrees(digits, noise, assert_agrees):
    """On a GPU, half precision is within its tolerance."""
    assert_agrees(digits, noise(4, 1, 16, 16), "cuda_amp")
