"""When a GPU is used, and that its products are as exact as the bounds ask for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from embedkit.analysis.exact import device_product
from embedkit.analysis.exact.device_product import DeviceFailed, DeviceRoom, device_for

ENOUGH = 1e15  # operations


@pytest.fixture
def fresh():
    """No device is known to work or not, before and after."""
    device_product._works.cache_clear()
    yield
    device_product._works.cache_clear()


@pytest.fixture
def switches():
    """The switches of torch, put back afterwards."""
    yield torch.backends
    torch.backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.fp32_precision = "none"


@pytest.mark.parametrize("chosen", ["highest", "high", "medium"])
def test_products_round_no_factors_and_leave_the_choice(switches, chosen):
    """TF32 is off during a product, also where autocast is on, and back afterwards."""
    torch.set_float32_matmul_precision(chosen)

    with (
        torch.autocast("cpu"),
        device_product._exact_factors(torch, torch.device("cpu")),
    ):
        assert switches.cuda.matmul.fp32_precision == "ieee"
        assert not torch.is_autocast_enabled("cpu")

    assert switches.cuda.matmul.allow_tf32 == (chosen != "highest")
    assert torch.get_float32_matmul_precision() == chosen


def test_the_newer_switch_is_put_back_also_after_an_error(switches):
    """It may be set for everything, or for products."""
    switches.fp32_precision = "tf32"

    seen = []

    def fail():
        with (
            device_product._failures(),
            device_product._exact_factors(torch, torch.device("cpu")),
        ):
            seen.append(switches.cuda.matmul.fp32_precision)
            raise RuntimeError("broken\nstack")

    with pytest.raises(DeviceFailed, match=r"^broken$"):
        fail()

    assert seen == ["ieee"]

    assert switches.cuda.matmul.fp32_precision == "tf32"


def test_older_releases_of_torch_have_one_switch():
    """Before 2.9 the precision is a truth value."""

    class Older:
        class backends:
            class cuda:
                class matmul:
                    allow_tf32 = True

        no_grad, autocast = torch.no_grad, torch.autocast

    with device_product._exact_factors(Older, torch.device("cpu")):
        assert Older.backends.cuda.matmul.allow_tf32 is False
    assert Older.backends.cuda.matmul.allow_tf32 is True


@pytest.mark.usefixtures("fresh")
def test_a_device_that_rounds_factors_is_not_used(monkeypatch):
    """One product with a known answer tells, whatever the switches say."""
    assert device_product._works("cpu")
    device_product._works.cache_clear()
    sent = DeviceRoom._there
    monkeypatch.setattr(
        DeviceRoom,
        "_there",
        lambda self, rows: sent(self, rows.astype(np.float16).astype(np.float32)),
    )

    assert not device_product._works("cpu")


@pytest.mark.usefixtures("fresh")
def test_a_device_that_fails_is_not_used(monkeypatch):
    """Such as one that is full from the beginning."""

    def fail(self, rows):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(DeviceRoom, "_there", fail)

    assert not device_product._works("cpu")


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(("cuda", "at_hand"), [(None, True), ("13.0", False)])
def test_torch_without_a_gpu_is_not_asked_for_products(monkeypatch, cuda, at_hand):
    """Built without CUDA, or no GPU that it can use."""
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: at_hand)

    assert device_for(ENOUGH) is None


@pytest.fixture
def a_gpu(monkeypatch, tmp_path):
    """A device file, torch not loaded, and a GPU that works."""
    monkeypatch.setattr(device_product, "_DRIVER", (tmp_path / "none", tmp_path))
    monkeypatch.setattr(device_product, "_works", lambda device: device == "cuda")
    monkeypatch.delitem(sys.modules, "torch")
    for name in ("CUDA_VISIBLE_DEVICES", device_product._EMULATION):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("a_gpu")
def test_a_large_search_uses_the_gpu():
    """A small one is done before torch is loaded."""
    assert device_for(ENOUGH) == "cuda"
    assert device_for(1e9) is None


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("CUDA_VISIBLE_DEVICES", "", None),
        ("CUDA_VISIBLE_DEVICES", "-1", None),
        ("CUDA_VISIBLE_DEVICES", "1", "cuda"),
        ("CUBLAS_EMULATE_SINGLE_PRECISION", "1", None),
        ("CUBLAS_EMULATE_SINGLE_PRECISION", "0", "cuda"),
    ],
)
def test_variables_that_keep_a_search_off_the_gpu(monkeypatch, name, value, expected):
    """Hidden GPUs, and products that are put together from lower precision."""
    monkeypatch.setenv(name, value)

    assert device_for(ENOUGH) == expected


@pytest.mark.usefixtures("a_gpu")
def test_no_driver_is_no_gpu(monkeypatch):
    """Nothing is loaded to find out."""
    monkeypatch.setattr(device_product, "_DRIVER", (Path("/nowhere/at/all"),))

    assert device_for(ENOUGH) is None
    assert "torch" not in sys.modules


def test_without_a_gpu_torch_stays_out_of_the_process():
    """A fresh process that asks has not loaded it."""
    code = (
        "import sys; from embedkit.analysis.exact.device_product import device_for; "
        "print(device_for(1e15), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == ["None", "False"]
