"""Half precision on a GPU: compiled, channels last, with the matrix units in use."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from embedkit.errors import InputError
from embedkit.networks.backends import ChannelsLastTaps
from embedkit.networks.taps import BACKEND


class AmpTaps(ChannelsLastTaps):
    """Convolutions and products in bfloat16, or float16 on GPUs that lack it.

    What PyTorch holds to be sensitive, and all pooling, stays float32. The first batch
    of a size is slow, because the graph is compiled for it.

    Attributes
    ----------
    tolerance : float
        bfloat16 keeps 8 bits, so one rounding moves a number by up to 2⁻⁹ of it; over
        tens of layers that adds up to percents. Derived, not measured.

    Raises
    ------
    InputError
        Where there is no GPU.
    """

    backend: ClassVar[str] = "cuda_amp"
    tolerance: ClassVar[float] = 5e-2

    def _find_device(self) -> str:
        if torch.cuda.is_available():
            return "cuda"
        message = (
            f"backend {self.backend!r} was asked for and PyTorch {torch.__version__} "
            f"finds no GPU: use backend={BACKEND!r}, or a build of PyTorch for your GPU"
        )
        raise InputError(message)

    def _ready(self, module: nn.Module) -> nn.Module:
        ready = super()._ready(module)
        ready.compile(dynamic=False)  # a batch has the same size every time
        return ready

    def _run(self, values: Tensor) -> dict[str, Tensor]:
        wide = torch.cuda.is_bf16_supported(including_emulation=False)
        half = torch.bfloat16 if wide else torch.float16
        with torch.autocast("cuda", dtype=half):
            return super()._run(values)
