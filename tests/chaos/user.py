"""What the user's script does: start workers, extract, end when the store is complete."""

from __future__ import annotations

import os
import sys
import time

import chaos_parts
import dask
from distributed import Client, LocalCluster

import embedkit as ek
from embedkit.errors import EmbedkitError


def settle(client, n_workers):
    """Wait for workers: a cluster closed while it restarts some may never close."""
    end = time.monotonic() + 30
    while len(client.run(os.getpid, on_error="ignore")) < n_workers:
        if time.monotonic() > end:
            return
        time.sleep(0.2)


def main(asked):
    """Extract on a cluster of `workers` processes, scaled by `scale` as the run goes."""
    method = asked.get("method", "forkserver")
    dask.config.set({"distributed.worker.multiprocessing-method": method})
    # This long after a death a local cluster looks whether the worker is back, and if it
    # has just died again, gives it up for ever: with all given up, a run would wait.
    dask.config.set({"distributed.deploy.lost-worker-timeout": "1 hour"})
    dask.config.set(asked.get("config", {}))
    scale = {int(done): to for done, to in asked.get("scale", {}).items()}
    seen = set()
    with (
        LocalCluster(
            n_workers=asked.get("workers", 2),
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=False,
            **asked.get("options", {}),
        ) as cluster,
        Client(cluster) as client,
    ):

        def follow(progress):
            """Let workers join or leave once so many blocks have ended."""
            seen.add(progress.images_done)
            if len(seen) in scale:
                to = scale.pop(len(seen))
                cluster.scale(to)
                if to > len(client.scheduler_info(n_workers=-1)["workers"]):
                    client.wait_for_workers(to, timeout=30)

        try:
            store = ek.extract(
                asked["photos"],
                chaos_parts.load(),
                asked["store"],
                layers=asked.get("layers", "all"),
                strategy=asked.get("strategy", "auto"),
                on_progress=follow,
            )
        except EmbedkitError:
            settle(client, len(cluster.workers))
            raise
    if not (store.complete and ek.open_store(asked["store"]).complete and not scale):
        sys.exit(f"the call came back from an unfinished run; left to scale: {scale}")
