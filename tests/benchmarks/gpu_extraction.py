"""Extraction on a GPU: against the bare forward pass, and the threads that feed it.

Run it from the repository on a machine with a GPU: it needs what embedkit needs, and no
data (it draws its own JPEG files). ``python tests/benchmarks/gpu_extraction.py --help``
tells how to make it smaller; ``--device cpu`` shows on any machine that it runs.

The bare arm is what PyTorch does at its best with inputs that lie on the device already:
channels last, half precision, compiled. The others begin with arrays in main memory, or
with JPEG files, and end with pooled rows of every stage in main memory, or on disk.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import dask
import numpy as np
import torch
from PIL import Image

import embedkit as ek

LAYERS = ["layer1", "layer2", "layer3", "layer4", "fc"]


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Measure, print a table, and return images per second by arm."""
    asked = _parser().parse_args(arguments)
    backend = "cuda_amp" if asked.device == "cuda" else "torch_channels_last"
    network = ek.load_network(asked.network, weights="none")
    taps = network.taps(LAYERS, backend=backend)
    rng = np.random.default_rng(0)
    shape = (asked.batch, *network.input_shape)
    batches = [rng.standard_normal(shape, np.float32) for _ in range(asked.batches)]
    _check(network, taps, batches[0])
    count = asked.batch * asked.batches
    arms = {
        "bare forward, inputs on the device": _bare(network, batches, asked.device),
        "taps, arrays in main memory": lambda: [taps.forward(one) for one in batches],
    }
    rates = {name: count / _best(work, asked.repeats) for name, work in arms.items()}
    with tempfile.TemporaryDirectory() as folder:
        files = _jpegs(Path(folder) / "jpegs", count, rng)
        for threads in asked.threads:
            name = f"decode and transform, {threads} threads"
            rates[name] = count / _best(_decoding(network, files, threads), 1)
        store = Path(folder) / "s.zarr"
        rates["extract, JPEG files to disk"] = count / _best(
            lambda: _extracted(network, files, store, asked.batch, backend), 1
        )
    _show(rates, asked.network, asked.device)
    return rates


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--batch", type=int, default=128, help="images per batch")
    parser.add_argument("--batches", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    return parser


def _check(network: ek.Network, taps: object, batch: np.ndarray) -> None:
    """Refuse to time other numbers than the reference's."""
    expected = network.taps(LAYERS).forward(batch[:8])
    found = taps.forward(batch[:8])
    for layer, rows in expected.items():
        error = np.abs(found[layer] - rows).max() / np.abs(rows).max()
        if error > taps.tolerance:
            raise SystemExit(f"{layer} differs from the reference by {error:.1e}")
        print(f"{layer}: largest relative error {error:.1e}")


def _bare(
    network: ek.Network, batches: list[np.ndarray], device: str
) -> Callable[[], None]:
    """Return the forward pass alone, over inputs that are where they are needed."""
    module = network.module.to(device, memory_format=torch.channels_last)
    cuda = device == "cuda"
    run = torch.compile(module) if cuda else module
    amp = torch.autocast("cuda", torch.bfloat16) if cuda else nullcontext()
    inputs = [
        torch.from_numpy(batch).to(device, memory_format=torch.channels_last)
        for batch in batches
    ]

    def work() -> None:
        with torch.inference_mode(), amp:
            for batch in inputs:
                run(batch)
        if cuda:
            torch.cuda.synchronize()

    return work


def _best(work: Callable[[], object], repeats: int) -> float:
    """Return the seconds of the fastest run, after one that warms up."""
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def _jpegs(folder: Path, count: int, rng: np.random.Generator) -> list[Path]:
    """Draw JPEG files of 500 by 375 pixels: smooth, with some noise, about 60 kB each."""
    folder.mkdir()
    for number in range(count):
        coarse = rng.integers(0, 255, (12, 16, 3), np.uint8)
        smooth = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        noise = rng.normal(0, 8, (375, 500, 3))
        pixels = np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05d}.jpg", quality=90)
    return sorted(folder.iterdir())


def _decoding(
    network: ek.Network, files: list[Path], threads: int
) -> Callable[[], None]:
    """Return what the threads before a forward pass do, without the pass."""

    def one(path: Path) -> None:
        with Image.open(path) as image:
            network.prepare(image.convert("RGB"))

    def work() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(one, files))

    return work


def _extracted(
    network: ek.Network, files: list[Path], store: Path, batch: int, backend: str
) -> None:
    place = store.with_name(f"{time.time_ns()}.zarr")
    with dask.config.set(scheduler="synchronous"):
        ek.extract(
            files, network, place, layers=LAYERS, batch_size=batch, backend=backend
        )


def _show(rates: dict[str, float], network: str, device: str) -> None:
    """Print the table, and what it takes to feed the device."""
    bare = next(iter(rates.values()))
    print(
        f"\n{network}, {len(LAYERS)} stages, {device}, {torch.get_num_threads()} threads"
    )
    for name, rate in rates.items():
        print(f"  {name}: {rate:.1f} images/s = {rate / bare:.2f} of bare")
    single = next((rate for name, rate in rates.items() if ", 1 threads" in name), None)
    if single is not None:
        needed = int(np.ceil(bare / single))
        print(f"  threads of this kind that feed the bare forward: {needed}")


if __name__ == "__main__":
    main()
