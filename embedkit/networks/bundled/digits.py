"""The bundled network: a small residual network that reads handwritten digits.

It works in place wherever a large one would (rectifiers, shortcut sums), so what is true
of its taps is true of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_name("digits.safetensors")
"""The weights, as trained by `embedkit.networks.bundled.train_digits`."""

RECORD = Path(__file__).with_name("digits.json")
"""How the weights were made and how well they do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitsTransform:
    """Turn a picture into the input of `DigitsNetwork`: grey, small, centred on zero.

    Parameters
    ----------
    size : int, default 16
        Rows and columns of the result.
    mean, std : float, default 0.5
        Subtracted from and then divided into grey values between 0 and 1.

    Examples
    --------
    >>> DigitsTransform()(Image.new("RGB", (40, 30))).shape
    torch.Size([1, 16, 16])
    """

    size: int = 16
    mean: float = 0.5
    std: float = 0.5

    def __call__(self, image: Image.Image) -> Tensor:
        """Return a float32 tensor of shape (1, size, size) for an image of any size."""
        edges = (self.size, self.size)
        small = image.convert("L").resize(edges, Image.Resampling.BILINEAR)
        grey = torch.from_numpy(np.asarray(small, dtype=np.float32) / 255)  # H W
        return ((grey - self.mean) / self.std).unsqueeze(0)  # 1 H W


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut.

    Parameters
    ----------
    inputs, outputs : int
        Channels that come in and go out.
    stride : int, keyword-only
        Step of the first convolution.

    References
    ----------
    K. He, X. Zhang, S. Ren and J. Sun, "Deep Residual Learning for Image Recognition",
    CVPR 2016, figure 2 and section 3.3 (projection shortcut where the shape changes).
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            project = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(project, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return the rectified sum of the two ways through the block."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.shortcut is None else self.shortcut(x)
        rectified: Tensor = self.relu(out)
        return rectified


class DigitsNetwork(nn.Module):
    """A residual network of seven convolutions for grey pictures of 16 × 16.

    About 77,000 parameters, and ten scores, one for each digit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.stage1 = ResidualBlock(16, 16, stride=1)
        self.stage2 = ResidualBlock(16, 32, stride=2)
        self.stage3 = ResidualBlock(32, 64, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores of shape (B, 10) for pictures of shape (B, 1, 16, 16)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        scores: Tensor = self.fc(self.flatten(self.avgpool(x)))
        return scores
