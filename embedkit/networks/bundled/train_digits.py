"""Train the bundled network: ``python -m embedkit.networks.bundled.train_digits``.

Writes the weights and their record beside this file. With ``--check`` it writes nothing:
it trains again and fails where the held-out accuracy is not the recorded one.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from embedkit.networks.bundled.digits import (
    RECORD,
    WEIGHTS,
    DigitsNetwork,
    DigitsTransform,
)
from embedkit.networks.bundled.digits_data import SEED, digits_split

EPOCHS = 30
BATCH = 64
LEARNING_RATE = 0.01
WEIGHT_DECAY = 0.01
TURN = math.radians(12)  # handwriting leans about this much from writer to writer
SHIFT = 0.12  # of half the width: about one picture element of sixteen
TOLERANCE = 0.005  # 2 of 450 pictures: what another processor's rounding may change


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A network that was trained and its accuracy.

    Attributes
    ----------
    network : DigitsNetwork
        In evaluation mode.
    accuracy : float
        Share of the held-out pictures whose digit it names.
    """

    network: DigitsNetwork
    accuracy: float


@contextmanager
def _reproducible() -> Iterator[None]:
    """Seed PyTorch and forbid its varying algorithms, and put both back afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        torch.use_deterministic_algorithms(True)  # noqa: FBT003 - has no keyword
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)


def _inputs(images: NDArray[np.uint8]) -> Tensor:
    """Return images (N, 8, 8) as the network sees them: (N, 1, 16, 16)."""
    transform = DigitsTransform()
    return torch.stack([transform(Image.fromarray(image)) for image in images])


def _jitter(batch: Tensor) -> Tensor:
    """Return every picture of (B, 1, H, W) turned and shifted a little, at random."""
    count = len(batch)
    turn = (2 * torch.rand(count) - 1) * TURN
    shift = (2 * torch.rand(count, 2) - 1) * SHIFT
    cos, sin = torch.cos(turn), torch.sin(turn)
    rows = [
        torch.stack([cos, -sin, shift[:, 0]], dim=1),
        torch.stack([sin, cos, shift[:, 1]], dim=1),
    ]
    motion = torch.stack(rows, dim=1)  # B 2 3
    grid = functional.affine_grid(motion, list(batch.shape), align_corners=False)
    # "border", because the background is -1 here and not the 0 that padding would give.
    return functional.grid_sample(
        batch, grid, padding_mode="border", align_corners=False
    )


def accuracy(network: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Return the share of `inputs` (N, 1, 16, 16) that `network` labels rightly."""
    with torch.no_grad():
        return float((network(inputs).argmax(1) == labels).float().mean())


def train(*, epochs: int = EPOCHS) -> Trained:
    """Train on the training part of the digits and test on the rest.

    Parameters
    ----------
    epochs : int, default 30
        Passes over the 1,347 training pictures.

    Returns
    -------
    Trained
        The network and its held-out accuracy.

    References
    ----------
    I. Loshchilov and F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019
    (AdamW). L. N. Smith and N. Topin, "Super-Convergence", 2018, section 3 (one cycle).
    """
    split = digits_split()
    inputs, labels = _inputs(split.train_images), torch.from_numpy(split.train_labels)
    with _reproducible():
        network = DigitsNetwork()
        _fit(network, inputs, labels, epochs=epochs)
    network.eval()
    held_out = _inputs(split.test_images), torch.from_numpy(split.test_labels)
    return Trained(network=network, accuracy=accuracy(network, *held_out))


def _fit(network: nn.Module, inputs: Tensor, labels: Tensor, *, epochs: int) -> None:
    steps = math.ceil(len(labels) / BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=steps * epochs
    )
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(labels)), BATCH):
            scores = network(_jitter(inputs[rows]))
            loss = functional.cross_entropy(scores, labels[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()


def record(trained: Trained, *, epochs: int = EPOCHS) -> dict[str, object]:
    """Return what has to be known to make the weights again."""
    split = digits_split()
    libraries = ("torch", "numpy", "pillow", "scikit-learn", "safetensors")
    return {
        "script": "python -m embedkit.networks.bundled.train_digits",
        "seed": SEED,
        "epochs": epochs,
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in libraries},
        "train": len(split.train_labels),
        "test": len(split.test_labels),
        "accuracy": round(trained.accuracy, 6),
    }


def write(trained: Trained, *, epochs: int = EPOCHS) -> None:
    """Write the weights and the record beside this file."""
    WEIGHTS.write_bytes(save(trained.network.state_dict()))
    text = json.dumps(record(trained, epochs=epochs), indent=2)
    RECORD.write_text(text + "\n", encoding="utf-8")


def agrees(found: float) -> bool:
    """Tell whether an accuracy is the recorded one, to within half a point."""
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))["accuracy"]
    return bool(abs(found - recorded) <= TOLERANCE)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status: 1 where ``--check`` fails."""
    summary = str(__doc__).partition("\n")[0]
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args(arguments)
    trained = train(epochs=options.epochs)
    sys.stdout.write(f"held-out accuracy {trained.accuracy:.4f}\n")
    if options.check:
        return 0 if agrees(trained.accuracy) else 1
    write(trained, epochs=options.epochs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
