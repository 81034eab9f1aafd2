"""A process that measures one network on one machine: ``python -m embedkit.extraction.measure.probe``.

It is fresh, so that its peaks are its own; it may die of a batch that is too large, and
nobody else with it. What it finds lies in a file, line by line: see `Findings`.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import distributed.nanny
import distributed.worker

from embedkit.errors import EmbedkitError
from embedkit.extraction.block.memory import reset_peak
from embedkit.extraction.block.ticker import idle_share
from embedkit.extraction.measure.probe_codecs import measure_codecs
from embedkit.extraction.measure.probe_forward import BY_SIZE, Forwards
from embedkit.extraction.measure.probe_job import Findings, ProbeJob
from embedkit.extraction.measure.probe_pixels import measure_pixels, resident, top
from embedkit.extraction.measure.probe_shards import measure_shards
from embedkit.networks.device import DeviceMemory, device_memory
from embedkit.networks.machine import use_threads
from embedkit.networks.network import Network
from embedkit.networks.spool import load_spooled
from embedkit.networks.taps import TapGraph

# What is imported here a worker has too, and `embedkit.extraction.block.task` with it.
_OF_A_WORKER = (distributed.nanny, distributed.worker)


def main(folder: Path) -> int:
    """Measure what the job in a folder says. Returns the exit status of the process."""
    findings = Findings(folder)
    began = time.perf_counter()
    findings.tell("reserved", resident())
    # As in a worker, where tasks run in a thread that is not the first.
    with ThreadPoolExecutor(1, "embedkit-measured") as pool:
        try:
            pool.submit(_measure, ProbeJob.read(folder), findings).result()
        except EmbedkitError as error:
            findings.tell("error", [type(error).__name__, str(error)])
            return 1
    findings.tell("done", time.perf_counter() - began)
    return 0


def _measure(job: ProbeJob, findings: Findings) -> None:
    use_threads(1)
    idle = idle_share()
    device = device_memory()
    network, taps = _loaded(job, findings, device)
    inputs = measure_pixels(job, network, findings, idle=idle)
    until = time.perf_counter() + job.seconds
    forwards = Forwards(job, taps, inputs, findings, until=until, device=device)
    if len(job.layers) > 1 and job.backend not in BY_SIZE:
        deepest = job.layers[-1]
        forwards.alone(
            network.taps(
                [deepest.tap], pool={deepest.tap: deepest.pool}, backend=job.backend
            )
        )
    rows = forwards.first()
    measure_shards(job, rows, findings, idle=idle)
    forwards.grow()
    forwards.threads(idle)
    measure_codecs(job, forwards.rows(), findings, tolerance=taps.tolerance)


def _loaded(
    job: ProbeJob, findings: Findings, device: DeviceMemory | None
) -> tuple[Network, TapGraph]:
    """Load the network and make its graph of layers, as a worker does for a job."""
    before = resident()
    reset_peak()
    began = time.perf_counter()
    network = load_spooled(job.network)
    taps = network.taps(
        [spec.tap for spec in job.layers],
        pool={spec.tap: spec.pool for spec in job.layers},
        backend=job.backend,
    )
    found = {
        "seconds": time.perf_counter() - began,
        "bytes": resident() - before,
        "peak": top() - before,
        "input": network.input_shape,
        "device": 0 if device is None or taps.device == "cpu" else device.held(),
    }
    findings.tell("loaded", found)
    return network, taps


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
